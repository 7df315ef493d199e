"""What a run leaves in the log: names, counts and seconds; nothing that anybody said."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Generator, Iterator

from agent.errors import SprigError
from agent.events import CallRefused, Compacted, Done, Event, ToolDone

log = logging.getLogger(__name__)


def logged(events: Generator[Event]) -> Iterator[Event]:
    """The same events; leaving them early closes ``events`` too."""
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
        case _:
            pass
