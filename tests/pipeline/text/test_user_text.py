"""A text that a person named: read as it is, or refused in one line that names the option."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.text.user_text import read_user_text


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (None, r"--text: .*a\.txt is no file; name a text in UTF-8"),
        (b"ab\xff", r"--text: .*a\.txt is no text in UTF-8 \(byte 2\); convert it"),
        (b"x" * 2001, r"--text: .*a\.txt is larger than 2 kB; take a part of it"),
    ],
)
def test_what_is_no_text_is_refused(data: bytes | None, says: str, tmp_path: Path) -> None:
    if data is not None:
        (tmp_path / "a.txt").write_bytes(data)
    with pytest.raises(SprigError, match=says):
        read_user_text(tmp_path / "a.txt", "--text", most=2000)


def test_a_folder_is_no_text(tmp_path: Path) -> None:
    with pytest.raises(SprigError, match="is no file"):
        read_user_text(tmp_path, "--text")


def test_line_ends_and_marks_stay_unless_a_mark_is_not_wanted(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("\ufeffone\r\ntwo\n".encode())
    assert read_user_text(path, "--text") == "\ufeffone\r\ntwo\n"
    assert read_user_text(path, "--text", encoding="utf-8-sig") == "one\r\ntwo\n"


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_bytes, args=(b"words " * 100,))
    writer.start()
    assert read_user_text(pipe, "--text", most=2000) == "words " * 100
    writer.join()
