"""The text of a calibration: windows as llama-imatrix cuts them, files in turns, and what is no text in one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.calibrate.text import Text, cut, from_pieces, read_files
from pipeline.forward.process import ForwardProcess
from tests.fixtures.tiny import llama


def test_a_window_begins_with_bos_where_the_model_wants_it() -> None:
    assert cut(range(10), 4, None) == [(0, 1, 2, 3), (4, 5, 6, 7)]
    assert cut(range(10), 4, 99) == [(99, 1, 2, 3), (99, 5, 6, 7)]


def test_files_are_read_in_turns_up_to_so_many_tokens(tmp_path: Path) -> None:
    for name, letter in (("a.txt", "a"), ("b.txt", "b")):
        (tmp_path / name).write_text(letter * 100, encoding="utf-8")
    with ForwardProcess(llama(tmp_path / "tiny.gguf"), n_ctx=32, threads=1) as process:
        a, b = (process.tokenize(letter * 100)[-1] for letter in "ab")
        text = read_files(process, [tmp_path / "a.txt", tmp_path / "b.txt"], 16, 64)
        assert [window[5] for window in text.windows] == [a, b, a, b]
        assert {window[0] for window in text.windows} == {process.bos}
        assert text.tokens == 64
        assert text.left > 100
        assert text.datasets[0].startswith("a.txt sha256:")


@pytest.mark.parametrize(
    ("content", "says"), [(b"too short", "too few for two windows"), (b"no \xff text", r"byte 3"), (None, "is no file")]
)
def test_what_is_no_text_is_one_line(content: bytes | None, says: str, tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    if content is not None:
        path.write_bytes(content)
    with (
        ForwardProcess(llama(tmp_path / "tiny.gguf"), n_ctx=32, threads=1) as process,
        pytest.raises(SprigError, match=says),
    ):
        read_files(process, [path], 32, 64)


def test_a_kept_text_is_the_same_and_a_broken_one_is_none(tmp_path: Path) -> None:
    text = from_pieces([(1, 2, 3), (4, 5, 6, 7, 8)], 4, 1000, None, "two pieces")
    assert text.windows == ((1, 2, 3, 4), (5, 6, 7, 8))
    assert text.datasets[0] == "two pieces"
    text.save(tmp_path / "text.json")
    assert Text.load(tmp_path / "text.json") == text
    (tmp_path / "text.json").write_text('{"windows": 3}')
    assert Text.load(tmp_path / "text.json") is None
    assert Text.load(tmp_path / "none.json") is None
