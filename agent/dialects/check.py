"""Whether a dialect is whole: what it writes, its own grammar accepts and its own reader reads back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from agent.dialects.base import CallBroken, CallDone, Dialect, Piece, TextPiece
from agent.dialects.constrain import Constraint
from agent.dialects.parser import StreamParser
from agent.dialects.write import write_calls
from agent.errors import SchemaError
from agent.messages import Segment, ToolCall, ToolSpec

_TOOL = ToolSpec("zfqx_first", "", {
    "type": "object",
    "properties": {
        "zfqa": {"type": "string"}, "zfqn": {"type": "integer"}, "zfql": {"type": "array", "items": {"type": "string"}},
        "zfqb": {"type": "boolean"},
    },
})  # fmt: skip
_CALLS = (
    ToolCall(_TOOL.name, {"zfqa": 'Zfq "alpha"\n<b> {1}', "zfqn": 73219, "zfql": ["a]", "b}"], "zfqb": True}, "zfqid0001"),
    ToolCall(_TOOL.name, {"zfqa": "", "zfqn": -1}, "zfqid0002"),
    ToolCall(_TOOL.name, {}, "zfqid0003"),
)


def fault(dialect: Dialect) -> str:
    """What is wrong with a dialect, in a few words; empty if a call that it writes can be constrained and read back."""
    for calls in [_CALLS[:1], _CALLS[2:], *([_CALLS] if dialect.parallel else [])]:
        written = write_calls(dialect, calls, {_TOOL.name: _TOOL})
        try:
            stopped = refused(dialect, written, [_TOOL])
        except SchemaError as error:
            return f"its calls cannot be constrained: {error}"
        if stopped:
            return f"its grammar refuses its own call at {stopped[:40]!r}"
        text = "".join(segment.text for segment in written)
        for cut in (text, list(text)):
            if read_back(dialect, cut, {_TOOL.name: _TOOL}) != [(call.name, call.arguments) for call in calls]:
                return "a call that it writes is not read back"
    return ""


def refused(dialect: Dialect, written: Iterable[Segment], tools: Sequence[ToolSpec]) -> str:
    """The rest of a written answer from where the dialect's grammar refuses it on; empty if it is accepted whole."""
    offered = [{"name": tool.name, "parameters": dict(tool.parameters)} for tool in tools]
    text = "".join(segment.text for segment in written)
    spec = {"dialect": dialect.to_dict(), "tools": offered, "choice": "required", "parallel": True, "prefix": prompted(dialect)}
    at = Constraint.from_spec(spec)
    text = text.removeprefix(prompted(dialect))
    for index, character in enumerate(text):
        piece = character.encode()
        if not at.accepts(piece) and not at.accepts(piece, special=True):
            return text[index:]
        at.commit(piece, special=not at.accepts(piece))
    return "" if at.may_end() else "its end"


def read_back(dialect: Dialect, text: str | Sequence[str], tools: Mapping[str, ToolSpec]) -> list[tuple[str, Any]] | None:
    """Names and arguments of the calls in a written answer, fed at once or piece by piece; None if anything else was in it."""
    parser = StreamParser(dialect, tools, thinking=None)
    pieces: list[Piece] = []
    for part in [text] if isinstance(text, str) else text:
        pieces += parser.feed(part)
    pieces += parser.finish()
    if any(isinstance(piece, CallBroken | TextPiece) for piece in pieces):
        return None
    return [(piece.call.name, piece.call.arguments) for piece in pieces if isinstance(piece, CallDone)]


def prompted(dialect: Dialect) -> str:
    """What of a call the prompt of a dialect that names recipients has written already."""
    return dialect.call_open if dialect.text_name else ""
