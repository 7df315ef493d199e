"""One run of an agent: the user's message, the model's answers, the tools between them, until there is nothing left to do."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator
from dataclasses import replace

from agent.errors import SprigError, Unanswered
from agent.events import CallReady, CallRefused, Compacted, Done, Event, Prefill, Problem, ToolDone, ToolProgress
from agent.messages import Message
from agent.turn.answer import Generation, begin_answer
from agent.turn.answered import interrupted
from agent.turn.calls import Calls
from agent.turn.compaction import shorten
from agent.turn.given import Given
from agent.turn.hooks import HookError
from agent.turn.parts import Parts
from agent.turn.record import Record

log = logging.getLogger(__name__)

_REPAIRS = 2  # answers in a row whose calls could not be used, before the run is given up


class Run:
    """One run, which belongs to one thread: rounds of an answer and the calls in it."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.record = Record(parts)
        self.calls = Calls(parts, self.record)

    def events(self, given: Given | None) -> Generator[Event]:
        """Everything that happens, Done at last; without messages, what was said last is answered.

        Raises:
            SprigError: the run cannot begin: there is nothing to answer, a result belongs to no call, or it does not fit the
                context.
        """
        parts, record, output = self.parts, self.record, self.parts.options.output
        # Without tools the first answer is the object already.
        form = output is not None and (not parts.tools or parts.options.choice == "none")
        waiting = parts.transcript.open_calls
        if given is None and not parts.transcript.held and not waiting:
            raise SprigError("there is nothing to answer: the last message of this conversation is not the user's")
        asked = given.following(waiting) if given is not None else interrupted(waiting)
        try:
            yield from self._ask(_with(asked, output.instruction()) if output is not None and form else asked)
        except Unanswered as e:  # nothing was asked
            record.end(e.reason)
            yield Done(record.result())
            return
        try:
            yield from self._rounds(form=form)
            if output is not None and not form and record.reason == "done":
                record.end("")
                yield from self._ask([Message("user", output.instruction())])
                yield from self._rounds(form=True)
        except HookError:
            raise  # it is the script's own, and for its author
        except Unanswered as e:
            record.end(e.reason)
        except SprigError as e:
            record.end("error", str(e))
            yield Problem(str(e))
        finally:  # also when the reader went away
            record.settle()
        yield Done(record.result())

    def _ask(self, messages: list[Message]) -> Iterator[Event]:
        """Add messages and the results that are held; when that is too much for the context, give something up first."""
        transcript, context = self.parts.transcript, self.parts.engine.context
        kept = transcript.copy()
        try:
            if messages:
                transcript.extend(messages)
            else:
                transcript.ask([])
            room = self.parts.limits.room(context)
            before = len(transcript.tokens)
            shorter = shorten(transcript, context - room) if before + room > context else ""
            if shorter is None:
                raise SprigError(
                    f"the conversation takes {len(transcript.tokens)} tokens even when shortened, an answer {room}, and the "
                    f"context holds {context}; make a larger one (context=...), send less, or offer fewer tools"
                )
        except BaseException:
            transcript.go_back(kept)
            raise
        self.record.asked(messages)
        if shorter:
            yield Compacted(shorter, before, len(transcript.tokens))

    def _rounds(self, *, form: bool) -> Iterator[Event]:
        """Answers and the calls in them, until the record says why the run is over.

        With ``form``, the answer is the object that was asked for, and calls nothing.
        """
        parts, record, choice = self.parts, self.record, self.parts.options.choice
        unusable = 0  # answers in a row that held no call that could be run
        for number in range(parts.limits.rounds):
            answer = yield from self._answer(choice if number == 0 or choice == "none" else "auto", form)
            if record.reason:
                yield from self.calls.leave(answer)
                return
            if form and parts.options.output is not None:
                record.value, wrong = parts.options.output.read(answer.text)
                record.end("error" if wrong else "done", wrong)
                return
            if not answer.calls and not answer.broken:
                record.end("done")
                return
            ran = len(record.calls)
            yield from self.calls.handle(answer)
            unusable = 0 if len(record.calls) > ran else unusable + 1
            if not record.reason and unusable > _REPAIRS:
                record.end("error", f"{unusable} answers in a row held no call that could be run")
            if not record.reason and number + 1 == parts.limits.rounds:
                record.end("rounds")
            if record.reason:
                return
            yield from self._ask([])

    def _answer(self, choice: str, form: bool) -> Generator[Event, None, Generation]:
        """One answer, kept in transcript and session however it ends."""
        parts, record = self.parts, self.record
        answer, constraint = begin_answer(parts, choice, form=form)
        steps = parts.engine.generate(
            parts.conversation,
            [*parts.transcript.tokens, *answer.tokens],
            sampling=parts.options.sampling,
            max_tokens=parts.limits.tokens,
            constraint=constraint,
            prefix=parts.transcript.prefix,
            seconds=parts.seconds_left(),
            max_thinking=parts.max_thinking,
            by_token=bool(parts.options.stop),
            logprobs=parts.options.logprobs,
            cancelled=answer.over,
        )
        record.begin_answer(answer)
        try:
            with parts.spans.chat(parts.transcript.messages, parts.transcript.tools, form=form) as span:
                for event in answer.events(steps):
                    if not isinstance(event, Prefill):
                        record.first_token()
                    yield event
                    record.save_answer(answer)
                parts.spans.answered(span, answer.message, answer.end)
        finally:
            record.finish_answer(answer)
        end = answer.end
        assert end is not None
        if end.reason != "stop":
            reason = end.reason if end.reason in ("length", "time", "context", "loop", "cancelled") else "error"
            record.end(reason, end.why or ("the model could find no way to go on" if end.reason == "stuck" else ""))
        return answer


def _with(messages: list[Message], instruction: str) -> list[Message]:
    """The messages, the last one of the user with an instruction below it."""
    if not messages or messages[-1].role != "user":
        return [*messages, Message("user", instruction)]
    return [*messages[:-1], replace(messages[-1], text=f"{messages[-1].text}\n\n{instruction}")]


def logged(parts: Parts, events: Generator[Event]) -> Generator[Event]:
    """The same events, noted in the log without what anybody said; leaving them early closes ``events`` too."""
    log.info("run began: %s, %d tools, %d tokens so far", parts.engine.file.name, len(parts.tools), len(parts.transcript.tokens))
    with contextlib.closing(events):
        try:
            for event in events:
                try:
                    yield event
                finally:  # after it was shown, so that no log line stands behind half a line of the answer
                    _note(event)
        except SprigError as e:
            log.warning("run failed: %s", e)
            raise


def _note(event: Event) -> None:
    match event:
        case Prefill(done, total, cached):
            level = logging.INFO if done == total else logging.DEBUG
            log.log(level, "prompt: %d of %d tokens read, %d of them cached", done, total, cached)
        case CallReady(call):
            log.debug("tool %s: called", call.name)
        case ToolProgress(call, text):
            log.debug("tool %s: at work, a line of %d characters", call.name, len(text))
        case ToolDone(call, ok, text, _, seconds, cut):
            state = "done" if ok else "failed"
            log.info("tool %s: %s in %.2f s, %d characters, %d cut off", call.name, state, seconds, len(text), cut)
        case CallRefused(call, _):
            log.info("tool %s: the call was refused", call.name)
        case Compacted(_, before, after):
            log.info("the context was full: %d tokens became %d", before, after)
        case Done(result):
            u = result.usage
            log.info(
                "run ended (%s) after %.2f s: prefill %d tokens, %.1f t/s, %d cached; decode %d tokens, %.1f t/s, %d forced; "
                "first token %.2f s",
                result.reason, u.seconds, u.prefill_tokens, u.prefill_speed, u.cached_tokens, u.generated_tokens, u.decode_speed,
                u.forced_tokens, u.first_token_seconds,
            )  # fmt: skip
