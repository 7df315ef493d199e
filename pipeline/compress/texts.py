"""The user's data, divided once: nine tenths to learn and to calibrate from, a tenth to judge by."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import atomic_write, human_size, write_error
from pipeline.text.user_text import read_user_text

_PART = 10  # of ten blocks one is held out
_BLOCK = 4096  # characters; less where a text has fewer than ten such blocks
_LEAST = 40_000  # bytes of all data
_SMALL = 20_000  # characters: such files are one domain together
CALIBRATES = 32_000  # bytes that are worth calibrating from; with fewer the model writes its text itself
_MOST = 256 << 20  # bytes of a file
_OTHERS = "others.txt"


@dataclass(frozen=True, slots=True)
class DividedTexts:
    """Files of the work folder, as they are to be there.

    Attributes:
        learn: as they came, without what is held out.
        read: the same as plain text, for vocabularies and activations.
        held: plain text that nothing else has seen, a domain each.
    """

    learn: Mapping[Path, str] = field(default_factory=dict)
    read: Mapping[Path, str] = field(default_factory=dict)
    held: Mapping[Path, str] = field(default_factory=dict)

    @property
    def calibrates(self) -> bool:
        """Whether there is enough to calibrate from."""
        return sum(len(text.encode()) for text in self.read.values()) >= CALIBRATES

    @property
    def learn_tokens(self) -> int:
        """About how many tokens there are to learn from."""
        return sum(map(len, self.learn.values())) // 4

    def digest(self, path: Path) -> str | None:
        """SHA-256 of one of the files; None for any other."""
        text = next((part[path] for part in (self.learn, self.read, self.held) if path in part), None)
        return None if text is None else hashlib.sha256(text.encode()).hexdigest()

    def write(self) -> None:
        """Write what is not there yet. Raises OutputError."""
        for part in (self.learn, self.read, self.held):
            for path, text in part.items():
                _write(path, text)


def divide(files: Sequence[Path], folder: Path) -> DividedTexts:
    """Divide the data; the same files give the same parts. Nothing is written.

    Args:
        folder: where the parts will lie.

    Raises:
        SprigError: a file cannot be read, is no text or no JSONL of conversations, or there is too little of it.
    """
    if not files:
        return DividedTexts()
    learn: dict[Path, str] = {}
    read: dict[Path, str] = {}
    held: dict[Path, str] = {}
    total = 0
    for path in files:
        text, chat = read_user_text(path, "--data", most=_MOST), path.suffix.lower() in (".jsonl", ".ndjson")
        total += len(text.encode())
        rest, away = _hold_out(list(_lines(text, path) if chat else _paragraphs(text)))
        name = _free(path.name, [one.name for one in learn])
        learn[folder / "learn" / name] = "".join(rest)
        read[folder / "read" / f"{name}.txt"] = "".join(map(_words, rest) if chat else rest)
        domain = folder / "held" / (f"{Path(name).stem}.txt" if len(text) >= _SMALL else _OTHERS)
        held[domain] = held.get(domain, "") + "".join(map(_words, away) if chat else away)
    if total < _LEAST:
        raise SprigError(
            f"the data is {human_size(total)}, and {human_size(_LEAST)} are needed, so that a tenth can be held out to judge by: "
            "give more, or leave it out, and the model writes its text itself"
        )
    return DividedTexts(learn, read, held)


def _paragraphs(text: str) -> Iterator[str]:
    """Blocks that end where a paragraph does, or else a line."""
    size = max(1, min(_BLOCK, len(text) // _PART))
    block = ""
    for piece in re.split(r"(?<=\n)", text):
        block += piece
        if len(block) >= size and (piece == "\n" or len(block) >= 2 * size):
            yield block
            block = ""
    if block:
        yield block


def _lines(text: str, path: Path) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            _conversation(line, f"line {number} of {path}")
            yield f"{line}\n"


def _conversation(line: str, where: str) -> list[str]:
    """What is said in a line. Raises SprigError if it is no conversation."""
    try:
        told: Any = json.loads(line)
        if isinstance(told, dict) and isinstance(told.get("text"), str):
            return [told["text"]]
        found = [one["content"] for one in told["messages"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        found = [None]
    texts = [one for one in found if isinstance(one, str)]
    if not texts:
        raise SprigError(f'{where} is no conversation: each line of a JSONL file is an object with "messages" or "text"')
    return texts


def _words(line: str) -> str:
    return "\n\n".join(_conversation(line, "it")) + "\n\n"


def _hold_out(blocks: Sequence[str]) -> tuple[list[str], list[str]]:
    """Each tenth block, and the last one where there are fewer than ten."""
    away = {i for i in range(len(blocks)) if i % _PART == _PART - 1} or {len(blocks) - 1}
    return [one for i, one in enumerate(blocks) if i not in away], [one for i, one in enumerate(blocks) if i in away]


def _free(name: str, taken: Sequence[str]) -> str:
    found, number = Path(name), 2
    while found.name in taken:
        found, number = Path(f"{Path(name).stem}-{number}{Path(name).suffix}"), number + 1
    return found.name


def _write(path: Path, text: str) -> None:
    with suppress(OSError):
        if path.read_bytes() == text.encode():
            return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(e, path) from None
    atomic_write(path, text)
