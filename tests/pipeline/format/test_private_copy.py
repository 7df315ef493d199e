"""A copy to work on is the file's own bytes, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import OutputError
from agent.files import publish
from pipeline.format.private_copy import private_copy


def test_a_longer_copy_that_a_killed_run_left_does_not_show_through(tmp_path: Path) -> None:
    source, part = tmp_path / "x", tmp_path / "x.part"
    source.write_bytes(b"short")
    part.write_bytes(b"a longer one")
    with private_copy(source, part):
        assert part.read_bytes() == b"short"
        with pytest.raises(OutputError, match="another run"), private_copy(source, part):
            pass
        publish(part, tmp_path / "y")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x", "y"]


def test_it_is_gone_when_nobody_wanted_it(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(ValueError, match="no"), private_copy(tmp_path / "x", tmp_path / "x.part"):
        raise ValueError("no")
    with pytest.raises(OutputError, match="cannot write"), private_copy(tmp_path / "none", tmp_path / "x.part"):
        pass
    assert [p.name for p in tmp_path.iterdir()] == ["x"]
