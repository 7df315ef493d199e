"""Long pasted texts: in the prompt each is one short mark, and what it stands for is put in when the message is sent."""

from __future__ import annotations

import re
from collections.abc import Iterator

from agent.text import display

MOST = 1_000_000  # characters of one paste
_LINES = 8
_CHARACTERS = 1_000
_CHUNK = 50_000  # characters that are cleaned at a time, well under 50 ms on a small board
MARK = re.compile(r"\[pasted [\d,]+ (?:lines|characters) #\d+\]")


def clean(text: str) -> Iterator[str]:
    """The text in pieces, with control and invisible characters made visible: it is sent as it is seen. Line ends become LF."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    for at in range(0, len(text), _CHUNK):
        yield display(text[at : at + _CHUNK], lines=True)


class Pastes:
    """The pasted texts of one prompt: mark -> text."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._count = 0

    @staticmethod
    def is_long(text: str) -> bool:
        """Whether a paste is better shown as a mark."""
        return len(text) > _CHARACTERS or text.count("\n") >= _LINES

    def fold(self, text: str) -> str:
        """Keep a text; the mark that stands for it."""
        self._count += 1
        lines = text.removesuffix("\n").count("\n") + 1
        size = f"{lines:,} lines" if lines > 1 else f"{len(text):,} characters"
        mark = f"[pasted {size} #{self._count}]"
        self._texts[mark] = text
        return mark

    def expand(self, text: str) -> str:
        """The text with each mark replaced by what it stands for. A look-alike that was typed stays as it is."""
        return MARK.sub(lambda found: self._texts.get(found[0], found[0]), text) if self._texts else text

    def marks(self, line: str) -> Iterator[tuple[int, int]]:
        """Where marks stand in a line."""
        if self._texts:
            yield from (found.span() for found in MARK.finditer(line) if found[0] in self._texts)

    def keep(self, *texts: str) -> None:
        """Forget what none of these texts has a mark of."""
        used = {mark for text in texts for mark in MARK.findall(text)}
        self._texts = {mark: text for mark, text in self._texts.items() if mark in used}
        if not self._texts:
            self._count = 0
