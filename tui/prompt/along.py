"""What goes along with a message, in words, before it is sent: its files, what of them is cut, and whether all of it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.files import human_size

if TYPE_CHECKING:
    from tui.prompt.attach import Attached
    from tui.talk.notes import Weight

LONG = 2_000  # characters from which a message may be too long for a small context


def along(attached: Attached, weight: Weight | None) -> str:
    """A line for a person, safe to show; "" where there is nothing to say. ``weight`` is None where no model is there to tell."""
    named = [f"{file.name}, {human_size(len(file.content.encode()))}" for file in attached.files]
    parts = [named[0] if len(named) == 1 else f"{len(named)} files: {'; '.join(named)}"] if named and not attached.cuts else []
    parts += [f"! {cut}" for cut in attached.cuts]
    if weight is not None:
        parts.append(f"{weight.tokens:,} tokens, {weight.most:,} fit" if weight.fits else f"! {_too_much(weight)}")
    return " · ".join(parts)


def too_long(weight: Weight, files: int) -> str:
    """Why a message is not sent, and what a person can do about it here."""
    less = "take out an @file, or name a smaller one" if files else "shorten it"
    return f"This was not sent: {_too_much(weight)}. You can {less}; {MORE_ROOM}."


MORE_ROOM = "/tools with fewer tools makes room, and so does a larger context (/settings)"


def _too_much(weight: Weight) -> str:
    return f"it takes {weight.tokens:,} tokens, and {weight.most:,} fit"
