"""One sshd for the stories of a file; each has a board of its own behind it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.board import Board, Sshd, sshd
from tests.fixtures.ggufs import Shape, write_bf16


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@pytest.fixture
def board(server: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board with nothing on it; ``ssh`` knows it as "board"."""
    monkeypatch.setenv("PATH", f"{server.folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    return Board.make(server, tmp_path / "board")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A GGUF of about a megabyte."""
    return write_bf16(tmp_path_factory.mktemp("model") / "new.gguf", Shape("new", "llama", 256, 256, 1, 4, 4, 64))
