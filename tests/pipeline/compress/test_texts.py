"""The user's data, divided: nothing that is judged by was learnt from, and what is no text is named with its place."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.compress.texts import DividedTexts, divide

LONG = "".join(f"Sentence {i} stands here.\n" + ("\n" if i % 5 == 0 else "") for i in range(4000))


def wrote(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_a_tenth_is_held_out_and_nothing_is_in_both(tmp_path: Path) -> None:
    found = divide([wrote(tmp_path / "a.txt", LONG)], tmp_path / "texts")
    (learn,), (held,) = found.learn.values(), found.held.values()
    assert sorted((learn + held).splitlines()) == sorted(LONG.splitlines())
    assert not set(learn.split("\n")) & set(held.split("\n")) - {""}
    assert 0.05 < len(held) / len(LONG) < 0.2
    assert found.read == {tmp_path / "texts" / "read" / "a.txt.txt": learn}
    assert found.calibrates
    assert not (tmp_path / "texts").exists(), "nothing is written before it is wanted"
    found.write()
    path = next(iter(found.learn))
    before = path.stat().st_mtime_ns
    found.write()
    assert path.stat().st_mtime_ns == before
    assert found.digest(path) == divide([tmp_path / "a.txt"], tmp_path / "texts").digest(path)
    assert found.digest(tmp_path / "a.txt") is None


def test_conversations_are_learnt_as_they_are_and_read_as_text(tmp_path: Path) -> None:
    lines = [
        json.dumps({"messages": [{"role": "user", "content": f"Question {i}? " * 20}, {"role": "assistant", "content": "Yes."}]})
        for i in range(200)
    ]
    found = divide([wrote(tmp_path / "chat.jsonl", "\n".join(lines))], tmp_path)
    (learn,), (held,) = found.learn.values(), found.held.values()
    assert len(learn.splitlines()) == 180
    assert json.loads(learn.splitlines()[0])["messages"][1]["content"] == "Yes."
    assert held.count("Yes.") == 20
    assert "role" not in held
    assert "Question 9?" in held


def test_small_files_are_one_domain_and_names_do_not_clash(tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    files = [
        wrote(tmp_path / "a.txt", LONG[:15000]),
        wrote(tmp_path / "more" / "a.txt", LONG[:15000]),
        wrote(tmp_path / "b.txt", LONG),
    ]
    found = divide(files, tmp_path)
    assert sorted(path.name for path in found.held) == ["b.txt", "others.txt"]
    assert sorted(path.name for path in found.learn) == ["a-2.txt", "a.txt", "b.txt"]


def test_no_data_is_no_text() -> None:
    assert divide([], Path("/nowhere")) == DividedTexts()
    assert not DividedTexts().calibrates


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.txt", b"short", "the data is 5 bytes, and 40 kB are needed"),
        ("a.txt", b"\xff" * 50_000, "a.txt is no text in UTF-8 (byte 0)"),
        ("a.jsonl", b'{"messages": [{"content": "x"}]}\n{"messages":\n', "line 2 of "),
        ("a.jsonl", b'{"messages": [{"role": "user"}]}\n', 'each line of a JSONL file is an object with "messages" or "text"'),
        ("a.jsonl", b"[1]\n", "line 1 of "),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SprigError) as e:
        divide([tmp_path / name], tmp_path)
    assert said in str(e.value)
    assert "\n" not in str(e.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SprigError, match=r"--data: .*gone\.txt is no file"):
        divide([tmp_path / "gone.txt"], tmp_path)
