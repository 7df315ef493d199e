"""One answer of the model: tokens become words, thoughts and calls as they come."""

from __future__ import annotations

import secrets
import string
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.dialects.base import CallBroken, CallDone, CallPart, CallStart, Piece, TextPiece, ThinkingPiece
from agent.dialects.parser import StreamParser
from agent.engine.steps import EndStep, Step, TextStep
from agent.events import CallForming, CallReady, Event, Text, Thought
from agent.messages import Message, ToolCall

_ID_LETTERS = string.ascii_letters + string.digits


def new_call_id() -> str:
    """Nine letters and digits: the form that Mistral's templates insist on, and no other minds."""
    return "".join(secrets.choice(_ID_LETTERS) for _ in range(9))


def _joined(pieces: list[Piece]) -> list[Piece]:
    """Neighbouring parts of the same arguments as one: a forced stretch would otherwise be a dozen events."""
    out: list[Piece] = []
    for piece in pieces:
        last = out[-1] if out else None
        if isinstance(piece, CallPart) and isinstance(last, CallPart) and last.index == piece.index:
            out[-1] = CallPart(piece.index, last.text + piece.text)
        else:
            out.append(piece)
    return out


@dataclass(slots=True)
class Generation:
    """What the model has said so far.

    Attributes:
        parser: of its dialect.
        text, thinking: its words.
        calls: those that could be read.
        broken: why others could not, each with what was written.
        tokens: that it generated.
        end: how it ended; None while it has not.
    """

    parser: StreamParser
    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)
    broken: list[CallBroken] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    end: EndStep | None = None
    _names: dict[int, str] = field(default_factory=dict)
    _untold: int = 0  # tokens that no event has counted yet

    def events(self, steps: Iterator[Step]) -> Iterator[Event]:
        """Read the engine's steps to their end."""
        for step in steps:
            if isinstance(step, TextStep):
                self.tokens += step.ids
                self._untold += len(step.ids)
                yield from self._pieces(self.parser.feed(step.text))
            elif isinstance(step, EndStep):
                self.end = step
            else:
                yield step
        yield from self._pieces(self.parser.finish())

    def _pieces(self, pieces: list[Piece]) -> Iterator[Event]:
        for piece in _joined(pieces):
            match piece:
                case TextPiece(text):
                    self.text += text
                    yield Text(text, tokens=self._told())
                case ThinkingPiece(text):
                    self.thinking += text
                    yield Thought(text, tokens=self._told())
                case CallStart(index, name):
                    self._names[index] = name
                    yield CallForming(index, name, tokens=self._told())
                case CallPart(index, text):
                    yield CallForming(index, self._names.get(index, ""), text, tokens=self._told())
                case CallDone(_, call):
                    taken = {c.id for c in self.calls}
                    whole = call if call.id and call.id not in taken else replace(call, id=new_call_id())
                    self.calls.append(whole)
                    yield CallReady(whole)
                case CallBroken():
                    self.broken.append(piece)

    def _told(self) -> int:
        count, self._untold = self._untold, 0
        return count

    @property
    def message(self) -> Message:
        return Message("assistant", self.text.strip(), self.thinking.strip(), tuple(self.calls))

    @property
    def kept_message(self) -> Message:
        """The message as it stays in the conversation: what was written of calls that nobody could read is part of it."""
        message = self.message
        if not self.broken or self.calls:
            return message
        return replace(message, text="\n".join(filter(None, [message.text, *(b.raw for b in self.broken)])))

    @property
    def timing(self) -> Mapping[str, Any]:
        return self.end.timing if self.end is not None else {}
