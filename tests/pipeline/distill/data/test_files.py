"""Broken files are named by their line before anything is loaded."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SprigError
from agent.messages import Message, ToolCall, ToolSpec
from pipeline.distill.data.content import ChatTranscript, LineError, Passage
from pipeline.distill.data.files import _read_line, read_files
from pipeline.distill.data.read import read_lessons

USER, SAID = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Good day."}


def lines(path: Path, *values: Any) -> Path:
    path.write_text("\n".join(v if isinstance(v, str) else json.dumps(v) for v in values), "utf-8")
    return path


def test_all_three_kinds_of_lines_and_a_text(tmp_path: Path) -> None:
    call = {"id": "a1", "type": "function", "function": {"name": "look", "arguments": '{"place": "Bern"}'}}
    talk = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Look "}, {"type": "text", "text": "there."}]},
        {"role": "assistant", "content": None, "reasoning_content": "Where?", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "a1", "content": "rain"},
        SAID,
    ]
    tool = {"type": "function", "function": {"name": "look", "description": "Looks.", "parameters": {"type": "object"}}}
    file = lines(
        tmp_path / "a.jsonl",
        {"messages": talk, "tools": [tool]}, "", {"prompt": "2 + 2 =", "completion": " 4"}, {"text": "Once.", "source": "me"},
    )  # fmt: skip
    plain = tmp_path / "b.txt"
    plain.write_bytes(b"\xef\xbb\xbfGr\xc3\xbc\xc3\x9fe\n")
    found = read_files([file, plain])
    assert [one.where.rpartition("/")[2] for one in found] == ["a.jsonl:1", "a.jsonl:3", "a.jsonl:4", "b.txt"]
    assert found[0].content == ChatTranscript(
        (
            Message("system", "Be brief."),
            Message("user", "Look there."),
            Message("assistant", thinking="Where?", calls=(ToolCall("look", {"place": "Bern"}, "a1"),)),
            Message("tool", "rain", call_id="a1"),
            Message("assistant", "Good day."),
        ),
        (ToolSpec("look", "Looks.", {"type": "object", "properties": {}}),),
    )
    assert found[1].content == Passage("2 + 2 =", " 4", ends=True)
    assert found[2].content == Passage("", "Once.", ends=True)
    assert found[3].content == Passage("", "Grüße\n", ends=False)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ('{"text": "a', "no JSON"),
        ("[1]", "a JSON object is wanted, and this is a list"),
        ({"conversations": []}, "neither messages, nor prompt and completion, nor text; this looks like ShareGPT"),
        ({"text": "  "}, "text must be a text that is not empty"),
        ({"prompt": "a"}, "prompt and completion must both be texts"),
        ({"messages": []}, "messages must be a list that is not empty"),
        ({"messages": [USER, "hi"]}, "message 2 is a str and must be an object"),
        ({"messages": [{"role": "wizard", "content": ""}]}, "message 1 has the role 'wizard'; known are system"),
        ({"messages": [USER]}, "no message is the assistant's"),
        ({"messages": [SAID, USER]}, "the assistant answers no user"),
        ({"messages": [USER, {"role": "assistant", "content": " "}]}, "the assistant says nothing and calls nothing"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, SAID]}, "pictures and sounds are not learned from"),
        (
            {"messages": [USER, {**SAID, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
            "call of 'f' are no JSON",
        ),
        ({"messages": [USER, {**SAID, "tool_calls": [{"function": {"name": "f", "arguments": "3"}}]}]}, "are no object"),
        ({"messages": [USER, {**SAID, "tool_calls": [{"name": "f"}]}]}, "a tool call has no function with a name"),
        ({"messages": [USER, SAID], "tools": [{"function": {}}]}, "tool 1 has no function with a name"),
    ],
)
def test_a_broken_line_is_named_with_what_is_wrong(line: Any, why: str, tmp_path: Path) -> None:
    file = lines(tmp_path / "talks.jsonl", {"text": "fine"}, line)
    with pytest.raises(SprigError) as e:
        read_lessons(tmp_path / "no checkpoint is there", [file], width=16)
    assert "talks.jsonl:2: " in str(e.value)
    assert why in str(e.value)
    assert "\n" not in str(e.value)


def test_one_message_names_all_broken_lines(tmp_path: Path) -> None:
    file = lines(tmp_path / "t.jsonl", *["{"] * 9)
    with pytest.raises(SprigError, match=r"t\.jsonl:1: no JSON .*\(8 more: t\.jsonl:2, .*t\.jsonl:6, \.\.\.\)"):
        read_files([file])


def test_files_that_are_none(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty.jsonl", tmp_path / "binary.txt"
    empty.write_text(" \n\n")
    binary.write_bytes(b"ab\xff")
    for file, why in ((empty, "is empty"), (binary, r"no text in UTF-8 \(byte 2\)"), (tmp_path, "is no file")):
        with pytest.raises(SprigError, match=why):
            read_files([file])


_KEYS = (
    "messages", "role", "content", "tool_calls", "function", "name", "arguments", "text", "prompt", "completion", "tools", "type",
)  # fmt: skip
_LEAVES = st.none() | st.booleans() | st.integers() | st.sampled_from(["", "user", "assistant", "{}", "x"])
_JSON = st.recursive(
    _LEAVES, lambda one: st.lists(one, max_size=3) | st.dictionaries(st.sampled_from(_KEYS), one, max_size=4), max_leaves=12
)


@pytest.mark.generated
@settings(max_examples=40, deadline=None)
@given(_JSON)
def test_any_json_is_read_or_refused(value: Any) -> None:
    for line in (value, {"messages": [USER, value, SAID], "tools": value}):
        with contextlib.suppress(LineError):
            assert isinstance(_read_line(json.dumps(line)), ChatTranscript | Passage)
