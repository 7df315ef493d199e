"""What a template writes behind an assistant's words: found by rendering a short conversation and cutting it behind a mark."""

from __future__ import annotations

from collections.abc import Sequence

from agent.dialects.base import Dialect
from agent.messages import Message, ToolSpec
from agent.templates.dialect_probe import object_around
from agent.templates.messages import Entry, call_entry, converted, identified, settled
from agent.templates.profile import Profile

MARK = "Zfq=mark"  # stands for the assistant's words; no plain name can be it, and shadowed text cannot


def marked(
    previous: Message, new: Sequence[Message], tools: Sequence[ToolSpec], profile: Profile, *, with_calls: bool
) -> list[Entry]:
    """A conversation in which a user said something, the assistant said MARK (or called with it), and ``new`` followed."""
    previous, *followed = identified([previous, *new])
    words: Entry = {"role": "assistant", "content": MARK}
    if with_calls:
        calls = [call_entry(call.name, call.id, {"zfqa": MARK}, profile) for call in previous.calls]
        words = {
            "role": "assistant",
            "content": None if profile.null_content else "",
            "tool_calls": calls if profile.parallel else calls[:1],
        }
    return settled([{"role": "user", "content": "x"}, words, *converted(followed, tools, profile)], profile)


def after_words(text: str, profile: Profile, *, with_calls: bool) -> str | None:
    """What stands behind the assistant's words in a rendered conversation; None when they cannot be found."""
    at = text.rfind(MARK)
    if at < 0:
        return None
    end = _end_of_call(text, at, profile.dialect) if with_calls else at + len(MARK)
    return None if end is None else text[end:]


def _end_of_call(text: str, at: int, dialect: Dialect) -> int | None:
    """Where a call ends, and the section of calls with it, that has an argument at ``at``."""
    if dialect.style in ("json", "named"):
        span = object_around(text, at, dialect.name_key if dialect.style == "json" else "")
        if span is None:
            return None
        end = span.end
    else:
        closing = dialect.call_close or dialect.section_close
        end = text.find(closing, at)
        if end < 0:
            return None
    for closing in (dialect.call_close, dialect.section_close):
        if closing and text.startswith(closing, end):
            end += len(closing)
    return end
