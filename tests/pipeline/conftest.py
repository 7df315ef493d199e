"""What the pipeline's tests share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.kept_children import keep_children


@pytest.fixture(scope="module", autouse=True)
def _kept_children() -> Iterator[None]:
    """Nearly every test makes a file, and every file is tried; the processes of a trial are a story of tests/agent/engine."""
    with pytest.MonkeyPatch.context() as patch:
        keep_children(patch)
        yield
