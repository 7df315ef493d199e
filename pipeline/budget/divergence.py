"""How far a changed model is from the original on a few windows of text: the mean KL divergence of the next token.

This is the light call of the probes. ``sprig evaluate`` measures finished files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

from agent.errors import GGUFError, RecipeError
from pipeline.forward.measures import divergences
from pipeline.forward.process import ForwardProcess

N_CTX, FIRST, WINDOWS = 192, 32, 4  # tokens of a window, the first whose prediction counts, windows


class Divergence:
    """The original's logits, kept in a file, and how far others are from them. A ``with`` removes the file.

    Args:
        reference: the original.
        texts: of which the windows are made, spread evenly over them.
        folder: where the file may lie; it takes four bytes for each token of the vocabulary and each row.

    Raises:
        RecipeError: the texts are too short for one window.
        GGUFError: llama.cpp does not run the model.
    """

    def __init__(
        self, reference: Path, texts: Sequence[str], folder: Path, threads: int, meanwhile: Callable[[], None] = lambda: None
    ) -> None:
        self.threads, self.meanwhile, self._file = threads, meanwhile, folder / "reference.logits"
        with self._open(reference) as process:
            self.windows = windows(process, texts)
            shape = (len(self.windows), N_CTX - FIRST - 1, process.n_vocab)
            self.kept = np.memmap(self._file, np.float32, "w+", shape=shape)
            for kept, ids in zip(self.kept, self.windows, strict=True):
                kept[:] = process.logits(ids, FIRST, meanwhile)[:-1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.unlink(missing_ok=True)

    def of(self, path: Path) -> float:
        """The mean KL divergence of a model from the original, in nats. Raises GGUFError if llama.cpp cannot run it."""
        with self._open(path) as process:
            parts = zip(self.windows, self.kept, strict=True)
            means = [divergences(kept, process.logits(ids, FIRST, self.meanwhile)[:-1]).mean() for ids, kept in parts]
        if not np.isfinite(means).all():
            raise GGUFError(f"llama.cpp computes NaN with {path.name}; its weights may be too large for F16")
        return float(np.mean(means))

    def _open(self, path: Path) -> ForwardProcess:
        return ForwardProcess(path, n_ctx=N_CTX, n_outputs=N_CTX - FIRST, threads=self.threads)


def windows(process: ForwardProcess, texts: Sequence[str]) -> list[list[int]]:
    """Windows of ``N_CTX`` tokens, at most ``WINDOWS`` of them, spread over the texts."""
    length = N_CTX - process.add_bos
    pieces = []
    for text in texts:
        ids = process.tokenize(text)
        pieces += [ids[i : i + length] for i in range(0, len(ids) - length + 1, length)]
    if not pieces:
        joined = process.tokenize("\n\n".join(texts))
        pieces = [joined[i : i + length] for i in range(0, len(joined) - length + 1, length)]
    if not pieces:
        raise RecipeError(f"the text for measuring has fewer than {N_CTX} tokens; give a longer one")
    chosen = sorted({int(i) for i in np.linspace(0, len(pieces) - 1, WINDOWS)})
    return [[process.bos] * process.add_bos + pieces[i] for i in chosen]
