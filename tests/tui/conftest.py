"""What the tests of the screen share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fixtures.kept_styles import keep_styles


@pytest.fixture(scope="session", autouse=True)
def _kept_styles() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        keep_styles(patch)
        yield
