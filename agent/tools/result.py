"""What a tool gives back, and the little that it is told: plain data, safe for a prompt whatever the tool did."""

from __future__ import annotations

import dataclasses
import enum
import itertools
import json
import math
import re
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence, Set, ValuesView
from decimal import Decimal
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from agent.errors import SprigError
from agent.text import shortened
from agent.tools.forms import form_of

if TYPE_CHECKING:
    import asyncio

MAX_TEXT = 200_000  # characters that are kept of any result; the agent cuts further, to the context that is left
_MAX_ERROR = 500
_MAX_DEPTH = 50
_MAX_ITEMS = 10_000  # that are taken of an iterator within a value: it may have no end
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif"})


class ToolError(SprigError):
    """A tool could not do it; ``str(error)`` is what the model is told."""


class ToolDefinitionError(SprigError):
    """A function cannot be offered as a tool; names the function and the parameter, and says what to write instead."""


@dataclasses.dataclass(frozen=True, slots=True)
class ToolContext:
    """What a tool may know of the call; a parameter ``context: ToolContext`` gets it and is not shown to the model.

    Attributes:
        cancelled: set when nobody waits for the result any more, because of a cancellation or because time is up.
        call_id: of the tool call.
        session: id of the conversation that the call belongs to, where that is kept; else empty.
        progress: takes a line for the user while the tool works.
        loop: the event loop of the caller, where a coroutine is awaited; None, it gets a loop of its own.
        run: the run that the call belongs to; each has another.
        shown: the state of the preview that a person has said yes to; empty where nobody was asked.
    """

    cancelled: threading.Event = dataclasses.field(default_factory=threading.Event)
    call_id: str = ""
    session: str = ""
    progress: Callable[[str], None] = lambda line: None
    loop: asyncio.AbstractEventLoop | None = None
    run: str = ""
    shown: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class ToolResult:
    """How a call ended.

    Attributes:
        ok: whether the tool did what was asked.
        text: for the model; no control characters but newline and tab, no lone surrogates.
        data: the same as a JSON value where there is one, for a program or a screen.
        image: path of a picture that belongs to the text.
        seconds: how long it took.
        cut: characters that were left out of ``text``.
    """

    ok: bool
    text: str
    data: Any = None
    image: str | None = None
    seconds: float = 0.0
    cut: int = 0


def cap(text: str, limit: int) -> tuple[str, int]:
    """Text of at most ``limit`` characters and how many were left out: head and tail stay, the middle says what is missing.

    Below 80 characters there is no room to say it, and the text is only cut.
    """
    if len(text) <= limit:
        return text, 0
    if limit < 80:
        return text[: max(0, limit)], len(text) - max(0, limit)
    room = limit - len(_gap(len(text)))
    head = room * 2 // 3
    left_out = len(text) - room
    return text[:head] + _gap(left_out) + text[len(text) - (room - head) :], left_out


def _gap(count: int) -> str:
    return f"\n[... {count:,} characters left out ...]\n"


# ECMA-48: CSI; OSC, DCS, SOS, PM and APC strings up to their terminator; and the short escapes.
_ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"
    r"|(?:\x1b[\]PX^_]|[\x90\x98\x9d\x9e\x9f])[^\x07\x1b\x9c]{0,4096}(?:\x07|\x1b\\|\x9c)?"
    r"|\x1b[ -/]*[0-~]"
)


class _Clean(dict[int, str | None]):
    """code point -> what a model reads: control characters and invisible marks go, except those that words need."""

    def __missing__(self, code: int) -> str | None:
        category = unicodedata.category(chr(code))
        if category == "Cs":
            kept: str | None = "\ufffd"
        elif category == "Cc" or (category == "Cf" and code not in (0x200C, 0x200D)):  # Persian, Indic, emoji join with these
            kept = None
        else:
            kept = chr(code)
        self[code] = kept
        return kept


_CLEAN = _Clean({0x0A: "\n", 0x09: "\t"})


def clean(text: str) -> str:
    """Text for a model: terminal escapes, control characters and invisible format characters gone, surrogates replaced."""
    if text.isascii() and text.isprintable():
        return text
    if "\x1b" in text or not text.isascii():
        text = _ESCAPES.sub("", text)
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text.translate(_CLEAN)


def failure(text: str, seconds: float = 0.0) -> ToolResult:
    """A result that says why it did not work, in one short line."""
    line = shortened(" ".join(clean(text[: 4 * _MAX_ERROR]).split()), _MAX_ERROR)
    return ToolResult(False, line or "it failed", seconds=seconds)


def failure_of(error: BaseException, seconds: float = 0.0) -> ToolResult:
    """What a model is told of an exception: its kind and message, never a traceback."""
    try:
        said = str(error)
    except Exception:
        said = ""
    if isinstance(error, SprigError):
        return failure(said or type(error).__name__, seconds)
    return failure(f"{type(error).__name__}: {said}" if said else type(error).__name__, seconds)


def to_result(value: Any, seconds: float = 0.0) -> ToolResult:
    """A function's return value as a result: see the guide to tools for which value becomes what."""
    if isinstance(value, ToolResult):
        text, cut = cap(value.text, MAX_TEXT)
        return dataclasses.replace(value, text=clean(text), seconds=value.seconds or seconds, cut=value.cut + cut)
    if value is None:
        return ToolResult(True, "done", seconds=seconds)
    if isinstance(value, PurePath) and value.suffix.lower() in _IMAGES:
        path = Path(value)
        if path.is_file():
            return ToolResult(True, f"image {path.name}", data=str(value), image=str(path.absolute()), seconds=seconds)
    if isinstance(value, str):
        raw, data = value, None
    elif isinstance(value, bytes | bytearray | memoryview):
        raw, data = describe_bytes(bytes(value[:64]), len(value)), None
    else:
        data = jsonable(value)
        raw = (
            str(value)
            if isinstance(value, Decimal)
            else data
            if isinstance(data, str)
            else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
        )
    text, cut = cap(raw, MAX_TEXT)
    return ToolResult(True, clean(text), data=data, seconds=seconds, cut=cut)


_MAGIC = (
    (b"\x89PNG", "PNG image"), (b"\xff\xd8\xff", "JPEG image"), (b"GIF8", "GIF image"), (b"%PDF", "PDF document"),
    (b"PK\x03\x04", "zip archive"), (b"\x1f\x8b", "gzip data"), (b"\x7fELF", "ELF program"), (b"GGUF", "GGUF model"),
    (b"SQLite format 3", "SQLite database"), (b"RIFF", "RIFF media"), (b"OggS", "Ogg media"), (b"ID3", "MP3 audio"),
)  # fmt: skip


def describe_bytes(head: bytes, size: int) -> str:
    """Binary data in words: what it looks like and its size."""
    kind = next((name for magic, name in _MAGIC if head.startswith(magic)), "binary data")
    return f"{kind}, {size:,} bytes"


def jsonable(value: Any, depth: int = 0) -> Any:
    """The value in JSON's own types; what has none becomes its ``str``."""
    if value is None or isinstance(value, bool):
        return value
    if depth > _MAX_DEPTH:
        return "..."
    if isinstance(value, enum.Enum):
        return jsonable(value.value, depth + 1)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: jsonable(getattr(value, f.name), depth + 1) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(jsonable(k)): jsonable(v, depth + 1) for k, v in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return jsonable(value._asdict(), depth + 1)
    if isinstance(value, bytes | bytearray | memoryview):
        return describe_bytes(bytes(value[:64]), len(value))
    if form := form_of(type(value)):
        return form.write(value)
    if isinstance(value, Sequence | Set | ValuesView):
        return [jsonable(v, depth + 1) for v in value]
    if isinstance(value, Iterator):
        return [jsonable(v, depth + 1) for v in itertools.islice(value, _MAX_ITEMS)]
    return _foreign(value, depth)


def _foreign(value: Any, depth: int) -> Any:
    pydantic = sys.modules.get("pydantic")
    if pydantic is not None and isinstance(value, pydantic.BaseModel):
        return jsonable(value.model_dump(mode="json"), depth + 1)
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, numpy.generic | numpy.ndarray):
        return jsonable(value.tolist(), depth + 1)
    return str(value)
