"""What is given up when a conversation no longer fits the context, in which order, and never in silence.

The policy: first the results of tools, the oldest first, then what was thought in former turns, then whole former turns, of
which a digest stays. The system prompt, the tools and the user's last message are never touched.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from agent.messages import Message
from agent.tools.result import cap
from agent.turn.transcript import Transcript

_SHORT = 160  # characters that stay of an old tool result, and of each message of a digest
_DIGEST = 2000  # characters of the digest itself; where even that is too much, an eighth of it, and at last nothing
_MARK = "[Earlier in this conversation, shortened to fit the context]"


def shorten(transcript: Transcript, limit: int) -> str | None:
    """Give up parts of a conversation until its tokens are no more than a limit; returns one line on what was given up.

    None when nothing helps, and then the transcript is as short as it could be made.
    """
    whole = list(transcript.messages)
    generated = {id(m): transcript.turns[i] for i, m in enumerate(whole) if i in transcript.turns}

    def fits(messages: Sequence[Message]) -> bool:
        transcript.rebuild(messages, {i: generated[id(m)] for i, m in enumerate(messages) if id(m) in generated})
        return len(transcript.tokens) <= limit

    found = compacted(whole, fits)
    return found[1] if found is not None else None


def compact(transcript: Transcript) -> str | None:
    """Shorten a conversation now: the turns before the last one become a digest; where there are none, the results of the last
    one are shortened. Returns one line on what was given up; None when nothing is gained, and the transcript is as it was.
    """
    kept = transcript.copy()
    starts = [i for i, m in enumerate(kept.messages) if m.role == "user"]
    results = [i for i, m in enumerate(kept.messages) if m.role == "tool" and len(m.text) > _SHORT]
    if len(starts) > 1:
        shorter, what = _digested(kept.messages, starts[-1]), f"{_count(starts[:-1], 'former turn')} replaced by a digest"
    else:
        shorter, what = _short_results(kept.messages, results), f"{_count(results, 'tool result')} shortened"
    generated = {id(m): kept.turns[i] for i, m in enumerate(kept.messages) if i in kept.turns}
    try:
        transcript.rebuild(shorter, {i: generated[id(m)] for i, m in enumerate(shorter) if id(m) in generated})
    except BaseException:
        transcript.go_back(kept)
        raise
    if len(transcript.tokens) >= len(kept.tokens):
        transcript.go_back(kept)
        return None
    transcript.held = kept.held
    return what


def compacted(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> tuple[list[Message], str] | None:
    """A shorter conversation that fits, and one line on what was given up; None when nothing helps.

    ``fits`` is asked a few times only, since it has to render and tokenize.
    """
    last = max((i for i, m in enumerate(messages) if m.role == "user"), default=0)
    for what, shorter in _attempts(list(messages), last):
        if fits(shorter):
            return shorter, what
    return None


def _attempts(messages: list[Message], last: int) -> Iterator[tuple[str, list[Message]]]:
    current = messages
    old = [i for i, m in enumerate(messages) if m.role == "tool" and len(m.text) > _SHORT]
    former = [i for i in old if i < last]
    if former:
        half = former[: (len(former) + 1) // 2]
        if len(half) < len(former):
            yield f"{_count(half, 'old tool result')} shortened", _short_results(messages, half)
        current = _short_results(messages, former)
        yield f"{_count(former, 'old tool result')} shortened", current
    if any(m.thinking for m in current[:last]):
        current = [replace(m, thinking="") if i < last else m for i, m in enumerate(current)]
        yield "thoughts of former turns left out" + (", old tool results shortened" if former else ""), current
    starts = [i for i, m in enumerate(current) if m.role == "user" and i <= last]
    turns = len(starts) - 1
    if turns > 0:
        for drop in sorted({(turns + 1) // 2, turns}):
            yield f"{_count(range(drop), 'former turn')} replaced by a digest", _digested(current, starts[drop])
        whole = current
        for size in (_DIGEST, _DIGEST // 8, 0):
            current = _digested(whole, starts[turns], size)
            if size != _DIGEST:
                yield f"{_count(range(turns), 'former turn')} {'replaced by a short digest' if size else 'left out'}", current
        last = next(i for i in range(len(current) - 1, -1, -1) if current[i].role == "user")
    # What is left is this turn: its own results, the oldest first, and at last the newest.
    inner = [i for i, m in enumerate(current) if m.role == "tool" and i > last and len(m.text) > _SHORT]
    for count in range(1, len(inner) + 1):
        current = _short_results(current, inner[:count])
        yield f"{_count(range(count), 'tool result')} of this turn shortened", current


def _count(things: Sequence[int], name: str) -> str:
    return f"{len(things)} {name}{'' if len(things) == 1 else 's'}"


def _short_results(messages: Sequence[Message], places: Sequence[int]) -> list[Message]:
    chosen = set(places)
    return [replace(m, text=cap(m.text, _SHORT)[0]) if i in chosen else m for i, m in enumerate(messages)]


def _digested(messages: Sequence[Message], start: int, size: int = _DIGEST) -> list[Message]:
    """The turns before ``start`` as a few lines in front of the user's message there."""
    system = [m for m in messages if m.role == "system"]
    lines = []
    for m in messages[:start]:
        if m.role == "user" and m.text.startswith(_MARK):  # a digest is not shortened again, only cut where it grows too long
            earlier, _, said = m.text.removeprefix(_MARK).partition("\n\n")
            lines += [earlier.strip(), f"User: {_line(said)}"]
        elif m.role == "user":
            lines.append(f"User: {_line(m.text)}")
        elif m.role == "assistant" and (m.text or m.calls):
            calls = ", ".join(call.name for call in m.calls)
            lines.append(f"You: {_line(m.text)}" if m.text else f"You called {calls}")
    digest = cap("\n".join(lines), size)[0]
    first = messages[start]
    text = f"{_MARK}\n{digest}\n\n{first.text}" if digest else first.text
    others = any(m.untrusted for m in messages[: start + 1])  # what is left of their words is theirs
    return [*system, replace(first, text=text, untrusted=others), *messages[start + 1 :]]


def _line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _SHORT else line[: _SHORT - 1] + "\u2026"
