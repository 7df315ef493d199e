"""The chosen file gets its name: the same bytes, a card that tells the story, and nobody else's text overwritten."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from agent.errors import OutputError
from pipeline.compress.publish import publish_choice

STORY = ["Made by `sprig compress` of org/m.", "# whole: 5 bytes.", "Chosen: whole\x1b[31m."]


@pytest.fixture
def made(tmp_path: Path) -> Path:
    work = tmp_path / "work"
    work.mkdir()
    (work / "old.gguf").write_bytes(b"GGUF!")
    (work / "old.md").write_text("# old.gguf\n\nMade by Sprig: `sprig chat old.gguf`.\n")
    return work / "old.gguf"


def test_it_is_a_second_name_for_the_same_bytes(made: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "new.gguf"
    for _ in range(2):  # again, as a second run does
        card = publish_choice(made, out, STORY)
        assert out.samefile(made)
        assert sorted(path.name for path in out.parent.iterdir()) == ["new.gguf", "new.md"]
    text = card.read_text()
    assert text.startswith("# new.gguf\n\nMade by Sprig: `sprig chat new.gguf`.\n")
    assert text.count("## How it was chosen") == 1
    assert "- \\# whole: 5 bytes.\n" in text
    assert "\x1b" not in text


def test_where_the_disk_knows_no_links_it_is_a_copy(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EXDEV, "another disk")

    monkeypatch.setattr(os, "link", refuse)
    out = tmp_path / "new.gguf"
    publish_choice(made, out, STORY)
    assert out.read_bytes() == made.read_bytes()
    assert not out.samefile(made)


def test_somebody_elses_text_stays(made: Path, tmp_path: Path) -> None:
    (tmp_path / "new.md").write_text("my notes")
    assert publish_choice(made, tmp_path / "new.gguf", STORY) == tmp_path / "new.gguf.md"
    assert (tmp_path / "new.md").read_text() == "my notes"


def test_a_folder_is_no_file(made: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder: name a file with -o"):
        publish_choice(made, tmp_path / "work", STORY)
