"""The text that a tuning learns from, and apart from it the text that says whether it learned: windows of token ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.errors import SprigError
from pipeline.forward.process import ForwardProcess

Ids = tuple[int, ...]
FEWEST = 4  # windows to learn from, at least


@dataclass(frozen=True, slots=True)
class Lessons:
    """Windows of one length: those to learn from, in a random order, and those to judge by, spread evenly over the text."""

    training: tuple[Ids, ...]
    validation: tuple[Ids, ...]


def cut(process: ForwardProcess, texts: Sequence[str | Ids], *, width: int, validation: int, seed: int) -> Lessons:
    """Windows of texts, or of token ids. In a text marks such as <|im_start|> are control tokens.

    Raises SprigError when all of it is too short.
    """
    start = (process.bos,) if process.add_bos else ()
    step = width - len(start)
    windows: list[Ids] = []
    for text in texts:
        ids = process.tokenize(text, parse_special=True) if isinstance(text, str) else text
        ids = ids[1:] if start and ids[:1] == start else ids
        windows += [(*start, *ids[i : i + step]) for i in range(0, len(ids) - step + 1, step)]
    if len(windows) < validation + FEWEST:
        needed = (validation + FEWEST) * width
        raise SprigError(
            f"the text gives {len(windows)} windows of {width} tokens; a tuning needs {needed:,} tokens: give more text"
        )
    judged = {int(i) for i in np.linspace(0, len(windows) - 1, validation + 2)[1:-1]}
    training = [w for i, w in enumerate(windows) if i not in judged]
    order = np.random.default_rng(seed).permutation(len(training))
    return Lessons(tuple(training[i] for i in order), tuple(windows[i] for i in sorted(judged)))
