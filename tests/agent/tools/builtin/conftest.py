"""What the tests of file tools share."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.tools.builtin.catalogue import builtin
from agent.tools.define import Tool
from tests.fixtures.place import Place


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


@pytest.fixture
def tools(root: Path, home: Path) -> dict[str, Tool]:
    return {tool.name: tool for tool in builtin(["write_file", "edit_file", "read_file"], root=root, home=home)}
