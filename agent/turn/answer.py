"""One answer of the model: how it begins and what it is held to; then tokens become words, thoughts and calls as they come."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.dialects.base import CallBroken, CallDone, CallPart, CallStart, Dialect, Piece, TextPiece, ThinkingPiece
from agent.dialects.parser import StreamParser
from agent.dialects.reading import CUT_OFF
from agent.engine.handle import EndStep, Step, TextStep
from agent.events import CallForming, CallReady, Event, Text, Thought, TokenLogprob
from agent.messages import Message, Segment, ToolCall
from agent.turn.parts import Parts
from agent.turn.stopping import StopFinder, Stopped, cut

_NO_CALLS = Dialect("words", "json", trigger="")
_ID_LETTERS = string.ascii_letters + string.digits


def begin_answer(parts: Parts, choice: str, *, form: bool) -> tuple[Generation, Mapping[str, Any] | None]:
    """An answer, with the tokens that it begins with before the model is asked; and the constraint that it is held to.

    With ``form``, it is the object that ``parts.options.output`` describes.
    """
    transcript, profile = parts.transcript, parts.template.profile
    dialect, started, lead = profile.dialect, parts.template.started(transcript.options), []
    # Some generation prompts have begun a call already, like functionary's ``>>>``.
    prefix = dialect.call_open if dialect.call_open and profile.prefix.endswith(dialect.call_open) else ""
    if form:  # an object may hold the mark of a call, or begin like one; here nothing is a call
        if prefix and dialect.text_name:  # the name that makes words of the call that has begun
            name = Segment(dialect.text_name + dialect.after_name, trusted=True)
            lead = parts.engine.tokenize([name], after=transcript.tokens[-1], until=transcript.until)
        dialect, prefix = _NO_CALLS, ""
    parser = StreamParser(
        dialect, {} if form else transcript.by_name, thinking=profile.thinking, started=started, prefix=prefix,
        bare_calls=choice != "none",
    )  # fmt: skip

    def plain(text: str, tokens: list[int]) -> list[int]:
        after = (tokens or transcript.tokens)[-1]
        return parts.engine.tokenize([Segment(text, trusted=False)], after=after, until=transcript.until)

    stops = StopFinder(() if form else parts.options.stop)  # an object without its end is none
    generation = Generation(parser, stops, Stopped(parts.cancelled), plain, tokens=lead)
    return generation, _constraint(parts, choice, form=form, started=started, prefix=prefix)


def _constraint(parts: Parts, choice: str, *, form: bool, started: bool, prefix: str) -> Mapping[str, Any] | None:
    profile = parts.template.profile
    offered = () if form else parts.transcript.tools
    schema = parts.options.output.schema if form and parts.options.output is not None else None
    enforce = schema is not None or (parts.constrain and bool(offered))
    if not enforce and parts.max_thinking is None:
        return None
    return {
        "dialect": profile.dialect.to_dict(),
        "tools": [{"name": t.name, "parameters": dict(t.parameters)} for t in offered],
        "choice": choice if offered else "auto",
        "parallel": profile.dialect.parallel,
        "thinking": None if profile.thinking is None else {"open": profile.thinking.open, "close": profile.thinking.close},
        "started": started,
        "prefix": prefix,
        "schema": schema,
        "enforce": enforce,
    }


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
    """What the model has said so far."""

    parser: StreamParser  # of its dialect
    stops: StopFinder = field(default_factory=StopFinder)  # in its words
    over: Stopped = field(default_factory=Stopped)  # ends the computation
    plain: Callable[[str, list[int]], list[int]] | None = None  # the tokens of a text behind others
    text: str = ""
    thinking: str = ""
    calls: list[ToolCall] = field(default_factory=list)  # those that could be read
    broken: list[CallBroken] = field(default_factory=list)  # why others could not, each with what was written
    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    end: EndStep | None = None
    _names: dict[int, str] = field(default_factory=dict)
    _untold: int = 0  # tokens that no event has counted yet
    _shown: int = 0  # log-probabilities that events had
    _texts: list[str] = field(default_factory=list)  # of the tokens, where they may have to be cut
    _read_before: int = 0  # characters of these, but for the last one
    _words: str = ""  # since the last thought or call
    _words_from: int = 0  # at least so many characters of the texts stand before them

    def events(self, steps: Iterator[Step]) -> Iterator[Event]:
        """Read the engine's steps to their end."""
        for step in steps:
            if isinstance(step, TextStep):
                if not self.stops.found:
                    yield from self._read(step)
            elif isinstance(step, EndStep):
                self.end = step
            else:
                yield step
        if not self.stops.found:
            yield from self._pieces(self.parser.finish(cut=self.end is not None and self.end.reason != "stop"))
        if not self.stops.found:
            yield from self._say(self.stops.flush())
        elif self.end is not None:
            self.end = replace(self.end, reason="stop")

    def _read(self, step: TextStep) -> Iterator[Event]:
        if not step.texts:
            self.tokens += step.ids
            self._untold += len(step.ids)
            yield from self._pieces(self.parser.feed(step.text))
            return
        for number, (token, text) in enumerate(zip(step.ids, step.texts, strict=True)):
            self.tokens.append(token)
            self.logprobs += step.logprobs[number : number + 1]
            self._untold += 1
            self._read_before += len(self._texts[-1]) if self._texts else 0
            self._texts.append(text)
            yield from self._pieces(self.parser.feed(text))
            if self.stops.found:
                return
        yield from self._pieces(self.parser.feed(step.text[sum(map(len, step.texts)) :]))  # of a character that never got whole

    def _pieces(self, pieces: list[Piece]) -> Iterator[Event]:
        for piece in _joined(pieces):
            if isinstance(piece, TextPiece):
                words = self.stops.feed(piece.text)
                if self.stops.found:
                    self._cut(words)
                yield from self._say(words)
                if self.stops.found:
                    return
                continue
            yield from self._say(self.stops.flush())  # a stop does not go on behind a thought or a call
            self._words, self._words_from = "", self._read_before
            match piece:
                case ThinkingPiece(text):
                    self.thinking += text
                    yield Thought(text, tokens=self._told(), logprobs=self._likely())
                case CallStart(index, name):
                    self._names[index] = name
                    yield CallForming(index, name, tokens=self._told(), logprobs=self._likely())
                case CallPart(index, text):
                    yield CallForming(index, self._names.get(index, ""), text, tokens=self._told(), logprobs=self._likely())
                case CallDone(_, call):
                    taken = {c.id for c in self.calls}
                    whole = call if call.id and call.id not in taken else replace(call, id=new_call_id())
                    self.calls.append(whole)
                    yield CallReady(whole)
                case CallBroken():
                    self.broken.append(piece)

    def _say(self, words: str) -> Iterator[Event]:
        if words or (self.stops.found and len(self.logprobs) > self._shown):  # no event comes after this one
            self.text += words
            self._words += words
            yield Text(words, tokens=self._told(), logprobs=self._likely())

    def _cut(self, words: str) -> None:
        """A stop was found behind these words: it ends the answer, and neither it nor what follows is among the tokens."""
        self.over.set()
        count, rest = cut(self._texts, self._words + words, self.stops.found, self._words_from)
        del self.tokens[count:], self.logprobs[count:]
        if rest and self.plain is not None:
            self.tokens += self.plain(rest, self.tokens)

    def _likely(self) -> tuple[TokenLogprob, ...]:
        """What no event had yet; while words are held back that may be a stop, nothing."""
        if self.stops.held:
            return ()
        shown, self._shown = self._shown, len(self.logprobs)
        return tuple(self.logprobs[shown:])

    def _told(self) -> int:
        count, self._untold = self._untold, 0
        return count

    @property
    def message(self) -> Message:
        return Message("assistant", self.text.strip(), self.thinking.strip(), tuple(self.calls))

    @property
    def kept_message(self) -> Message:
        """The message as it stays in the conversation: what was written of calls that nobody could read is part of it, half a
        call is not."""
        message = self.message
        unread = [broken.raw for broken in self.broken if broken.why != CUT_OFF]
        if not unread or self.calls:
            return message
        return replace(message, text="\n".join(filter(None, [message.text, *unread])))
