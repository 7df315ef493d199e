"""The child process that tokenizes: llama.cpp with a vocabulary and no weights. See ``pipeline.distill.data.tokens``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from agent.engine.llama import LlamaModel
from pipeline.forward.child import Forward, main


class TokenizerOnly(Forward):
    """A vocabulary. A sequence is a list of stretches, a stretch a list of segments and whether they are said in one breath."""

    ops = ("ids", "memory")

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.model = LlamaModel(message["path"], repack=False, vocab_only=True)

    def ids(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The token ids of each stretch of each sequence; the first begins with BOS where the model wants it."""
        return {"ids": [self._sequence(sequence) for sequence in message["sequences"]]}

    def _sequence(self, sequence: Sequence[tuple[Sequence[tuple[str, bool]], bool]]) -> list[list[int]]:
        found: list[list[int]] = []
        last: int | None = None
        for segments, breath in sequence:
            given = self._breath(segments) if breath else [(text, bool(trusted)) for text, trusted in segments]
            found.append(self.model.tokenize(given, after=last))
            last = found[-1][-1] if found[-1] else last
        return found

    def _breath(self, segments: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
        """What a model says by itself is cut at control marks only, wherever the template's text ends and another's begins."""
        joined: list[tuple[str, bool]] = []
        for text, trusted in segments:
            for i, part in enumerate(self._marks.split(text) if trusted else [text]):
                mark = trusted and i % 2 == 1
                if joined and not mark and not joined[-1][1]:
                    joined[-1] = (joined[-1][0] + part, False)
                elif part:
                    joined.append((part, mark))
        return joined

    @cached_property
    def _marks(self) -> re.Pattern[str]:
        model = self.model
        texts = {model.piece(i).decode("utf-8", "replace") for i in range(model.n_vocab) if model.special(i)}
        marks = sorted((t for t in texts if len(t) > 1 and not t.isspace()), key=len, reverse=True)
        return re.compile(f"({'|'.join(map(re.escape, marks)) or '$^'})")


if __name__ == "__main__":
    main(TokenizerOnly)
