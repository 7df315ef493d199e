"""What goes along with a message, in words, before it is sent: its files, what of them is cut, and whether all of it fits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.files import human_size

if TYPE_CHECKING:
    from tui.prompt.attach import Attached

LONG = 2_000  # characters from which a message may be too long for a small context
MORE_ROOM = "fewer /tools make room, and so does a larger context (/settings)"


@dataclass(frozen=True, slots=True)
class MessageSize:
    """What a message takes of the context, and the most that it may take; both in tokens."""

    tokens: int
    most: int

    @property
    def fits(self) -> bool:
        return self.tokens <= self.most


def along(attached: Attached, size: MessageSize | None) -> str:
    """A line for a person, safe to show; "" where there is nothing to say. ``size`` is None where no model is there to tell."""
    named = [f"{file.name}, {human_size(len(file.content.encode()))}" for file in attached.files]
    parts = [named[0] if len(named) == 1 else f"{len(named)} files: {'; '.join(named)}"] if named and not attached.cuts else []
    parts += [f"! {cut}" for cut in attached.cuts]
    if size is not None:
        parts.append(f"{size.tokens:,} tokens, {size.most:,} fit" if size.fits else f"! {_too_much(size)}")
    return " · ".join(parts)


def too_long(size: MessageSize, files: int) -> str:
    """Why a message is not sent, and what a person can do about it here."""
    less = "take out an @file or name a smaller one" if files else "shorten it"
    return f"Not sent: {_too_much(size)}. You can {less}; {MORE_ROOM}."


def _too_much(size: MessageSize) -> str:
    return f"it takes {size.tokens:,} tokens, and {size.most:,} fit"
