"""Stretches of text that a dialect or a model wrote: which of them are trusted, and how they are put together."""

from __future__ import annotations

from collections.abc import Sequence

from agent.messages import Segment


def trusted(text: str) -> Segment:
    """A text of a dialect's, in which control tokens may be."""
    return Segment(text, trusted=True)


def untrusted(text: str) -> Segment:
    """A text of a model, a user or a tool."""
    return Segment(text, trusted=False)


def joined(segments: Sequence[Segment]) -> list[Segment]:
    """The same, without empty segments and with neighbours of one kind made one."""
    out: list[Segment] = []
    for segment in segments:
        if not segment.text:
            continue
        if out and out[-1].trusted == segment.trusted:
            out[-1] = Segment(out[-1].text + segment.text, segment.trusted)
        else:
            out.append(segment)
    return out


def tame(text: str, mark: str) -> str:
    """The same text with every ``mark`` in it visibly broken by a space."""
    return text.replace(mark, f"{mark[0]} {mark[1:]}")
