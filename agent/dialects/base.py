"""What a dialect is: the marks and the style in which a model family writes a tool call. Plain data, no code of a family."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

from agent.messages import ToolCall

_TAG = re.compile(r"<[^<>\s]+>")

StyleName = Literal["json", "named", "tagged", "python", "gemma"]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How calls are written. The file of its style (agent/dialects/styles) writes, reads, constrains and probes them by this.

    A turn with calls reads: [text] section_open call (separator call)* section_close, and a call is written by ``style``:

    ==========  =======================================================================================
    ``json``    call_open {before_name "name_key": NAME, "arguments_key": {...}[, "id_key": ID]} call_close
    ``named``   call_open [ID id_close] NAME [id_open ID] after_name {...} call_close
    ``tagged``  call_open NAME after_name (parameter_open KEY parameter_middle VALUE parameter_close)* call_close
    ``python``  call_open NAME(key=value, ...) call_close
    ``gemma``   call_open NAME{key:value,...} call_close, where strings stand between two ``quote``
    ==========  =======================================================================================

    Some marks have holes: in before_name and after_name ``{0}`` and ``{1}`` are the number of the call, counted from 0 or 1, and
    ``{name}`` its name once more; in parameter_middle ``{type}`` is the JSON type of the value, ``{string}`` whether it is one
    (``true`` or ``false``).

    Attributes:
        name: of the dialect, for people.
        style: see above.
        trigger: the text with which a first call begins to be one: from here on nothing is free. Usually the start of
            ``section_open + call_open``. It is looked for anywhere in the answer, or, with ``only_at_start``, only as its first
            visible characters.
        parallel: whether one turn may hold several calls.
        also_after: other texts that may stand for ``after_name``.
        raw_strings: in ``tagged`` style, a string argument is written as it is (True) or as JSON (False).
        cdata: in ``tagged`` style, a value with ``<``, ``>`` or ``&`` is wrapped in ``<![CDATA[`` and ``]]>``.
        pair, comma: what JSON and its kin put between key and value, and between members: ``": "`` and ``", "``.
        aliases: other texts that may stand for ``section_open + call_open`` when a model is lax.
        silent: marks around words that are not words themselves, such as the name of a channel.
        text_name: in ``named`` style, the name that announces words for the user instead of a tool. A dialect that has one names
            a recipient for everything, and its prompt already ends with the first ``call_open``.
    """

    name: str
    style: StyleName
    trigger: str
    section_open: str = ""
    section_close: str = ""
    call_open: str = ""
    call_close: str = ""
    separator: str = ""
    parallel: bool = True
    only_at_start: bool = False
    before_name: str = ""
    name_key: str = "name"
    arguments_key: str = "arguments"
    id_key: str = ""
    id_open: str = ""
    id_close: str = ""
    after_name: str = ""
    also_after: tuple[str, ...] = ()
    parameter_open: str = ""
    parameter_middle: str = ""
    parameter_close: str = ""
    raw_strings: bool = True
    cdata: bool = False
    quote: str = '"'
    pair: str = ": "
    comma: str = ", "
    aliases: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    text_name: str = ""

    @property
    def call_mark(self) -> str:
        """The mark that each call begins with: a tag, or all of ``call_open`` where that tag has other uses too."""
        found = _TAG.match(self.call_open.strip())
        used = found is not None and found[0] in self.section_open + self.parameter_open
        return self.call_open.strip() if used else found[0] if found else ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Dialect:
        return cls(**{**data, **{key: tuple(data.get(key, ())) for key in ("aliases", "also_after", "silent")}})


_HOLE = re.compile(r"(\{(?:0|1|name|type|string)\})")


def holes(mark: str) -> list[str]:
    """A mark cut into its fixed texts and its holes, each hole with its braces."""
    return [part for part in _HOLE.split(mark) if part]


def fill(mark: str, number: int = 0, name: str = "", kind: str = "") -> str:
    """A mark with its holes filled in, for the call ``number`` (from 0) of the tool ``name`` and a value of the type ``kind``."""
    if "{" not in mark:
        return mark
    filled = {
        "{0}": str(number),
        "{1}": str(number + 1),
        "{name}": name,
        "{type}": kind,
        "{string}": str(kind == "string").lower(),
    }
    return "".join(filled.get(part, part) for part in holes(mark))


@dataclass(frozen=True, slots=True)
class Thinking:
    """The marks between which a model thinks, like ``<think>`` and ``</think>``."""

    open: str
    close: str


@dataclass(frozen=True, slots=True)
class TextPiece:
    """Words for the user."""

    text: str


@dataclass(frozen=True, slots=True)
class ThinkingPiece:
    """Words of a thought."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """The name of a call is known. ``index`` counts the calls of one answer from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallPart:
    """The next characters of a call's arguments, as the model wrote them."""

    index: int
    text: str


@dataclass(frozen=True, slots=True)
class CallDone:
    """A call is whole and its arguments could be read."""

    index: int
    call: ToolCall


@dataclass(frozen=True, slots=True)
class CallBroken:
    """Something that began like a call and cannot be read as one: ``raw`` as it was written, ``why`` in one line."""

    index: int
    raw: str
    why: str


Piece = TextPiece | ThinkingPiece | CallStart | CallPart | CallDone | CallBroken
