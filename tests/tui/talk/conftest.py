"""Talks of one test, which are closed when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.fake_engine import Say
from tests.fixtures.talks import Heard, MakeTalk


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kept_templates: None) -> Iterator[MakeTalk]:
    """Makes a talk of a script and of what Setup takes; it has not opened its model yet."""
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    made: list[Heard] = []

    def heard(*script: Say | str, **setup: Any) -> Heard:
        made.append(Heard(tmp_path, script, **setup))
        return made[-1]

    yield heard
    for one in made:
        one.close()
