"""The user's files to learn from, read and judged before a tokenizer or a model is loaded.

A ``.jsonl`` file has a JSON object on each line: a conversation as OpenAI's chat API writes it (``messages``, and ``tools`` where
there are any), ``prompt`` and ``completion``, or ``text``. Any other file is text in UTF-8.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.text import display, one_line
from pipeline.distill.data.content import ChatTranscript, LineError, Passage
from pipeline.distill.data.messages import read_messages, read_tools
from pipeline.text.user_text import read_user_text

_LINES = frozenset({".jsonl", ".ndjson", ".json"})
_MOST = 64 << 20  # bytes of a file
_NAMED = 5  # lines that a message names beside the first


@dataclass(frozen=True, slots=True)
class Material:
    """Something to learn from, and where it stands, as in ``talks.jsonl:12``."""

    where: str
    content: ChatTranscript | Passage


def read_files(files: Sequence[Path]) -> list[Material]:
    """All that the files hold.

    Raises:
        SprigError: a file cannot be read, is no text, or is empty; or lines are broken: the first one with what is wrong and the
            numbers of others.
    """
    found: list[Material] = []
    broken: list[tuple[str, str]] = []
    for path in files:
        text = _text(path)
        if path.suffix.lower() not in _LINES:
            found.append(Material(path.name, Passage("", text, ends=False)))
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if line.strip():
                where = f"{path}:{number}"
                try:
                    found.append(Material(where, _read_line(line)))
                except LineError as e:
                    broken.append((where, str(e)))
    refuse(broken)
    return found


def refuse(broken: Sequence[tuple[str, str]]) -> None:
    """Raise SprigError for pairs of a place and what is wrong there; nothing if there are none."""
    if not broken:
        return
    where, why = broken[0]
    names = [place.rpartition("/")[2] for place, _ in broken[1 : 1 + _NAMED]]
    others = f" ({len(broken) - 1} more: {', '.join(names)}{', ...' if len(broken) > len(names) + 1 else ''})" if names else ""
    raise SprigError(f"--data: {display(where)}: {one_line(why)}{display(others)}")


def _text(path: Path) -> str:
    text = read_user_text(path, "--data", most=_MOST, encoding="utf-8-sig")
    if not text.strip():
        raise SprigError(f"--data: {path} is empty; there is nothing to learn from it")
    return text


def _read_line(line: str) -> ChatTranscript | Passage:
    """Raises LineError."""
    try:
        value = json.loads(line)
    except ValueError as e:
        raise LineError(f"no JSON ({str(e)[:80]}); a line must be one whole object") from None
    except RecursionError:
        raise LineError("its JSON is nested too deeply") from None
    if not isinstance(value, dict):
        raise LineError(f"a JSON object is wanted, and this is a {type(value).__name__}")
    for key, read in _READERS:
        if key in value:
            return read(value)
    hint = "; this looks like ShareGPT's form, rename its fields" if "conversations" in value else ""
    raise LineError(f"it has neither messages, nor prompt and completion, nor text{hint}")


def _talk(value: dict[str, Any]) -> ChatTranscript:
    return ChatTranscript(read_messages(value["messages"]), read_tools(value.get("tools")))


def _completion(value: dict[str, Any]) -> Passage:
    completion = value.get("completion")
    if not isinstance(value["prompt"], str) or not isinstance(completion, str) or not completion:
        raise LineError("prompt and completion must both be texts, the completion not empty; a conversation goes under messages")
    return Passage(value["prompt"], completion, ends=True)


def _plain(value: dict[str, Any]) -> Passage:
    if not isinstance(value["text"], str) or not value["text"].strip():
        raise LineError("text must be a text that is not empty")
    return Passage("", value["text"], ends=True)


_READERS: tuple[tuple[str, Callable[[dict[str, Any]], ChatTranscript | Passage]], ...] = (
    ("messages", _talk), ("prompt", _completion), ("text", _plain),
)  # fmt: skip
