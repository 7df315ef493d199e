"""Finished files are run in llama.cpp on the same windows of text, and compared with a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from agent.errors import SprigError
from pipeline.evaluate.figures import Evaluation, Style
from pipeline.evaluate.measures import Doubles
from pipeline.evaluate.reference import open_reference
from pipeline.evaluate.run import evaluate_files
from pipeline.evaluate.side_by_side import OnWindow, loaded, read_headers, side_by_side
from pipeline.evaluate.windows import Window, default_texts


def evaluate(
    candidates: Sequence[Path],
    *,
    reference: Path | str | None = None,
    texts: Mapping[str, str] | None = None,
    n_ctx: int = 512,
    windows: int | None = None,
    style: Style = "sprig",
    threads: int | None = None,
    on_progress: OnWindow = lambda done, total: None,
) -> Evaluation:
    """Run files in llama.cpp and say what they lost.

    Args:
        candidates: GGUFs; the others are compared with the first, window by window.
        reference: what they were made of: a GGUF, or a checkpoint (folder, Hub id), of which a GGUF is made for the time of this
            call. None gives perplexity and bits per byte only.
        texts: domain -> text; by default the project's held-out domains, which are no part of any calibration text.
        n_ctx: tokens of a window; the second half of each is scored.
        windows: how many at most, shared evenly among the domains.
        style: "llama-perplexity" for exactly its windows, with the errors that it prints beside those over windows.
        threads: of each model's computation; by default every core.
        on_progress: called after each window with the number of windows done and in all.

    Raises:
        SprigError: a file does not run, vocabularies differ, a text is too short, or logits are NaN or infinite.
    """
    if not candidates:
        raise SprigError("name at least one GGUF to evaluate")
    texts = default_texts() if texts is None else texts

    def against(path: Path | None) -> Evaluation:
        return evaluate_files(
            candidates, reference=path, texts=texts, n_ctx=n_ctx, windows=windows, style=style, threads=threads,
            on_window=on_progress,
        )  # fmt: skip

    if reference is None:
        return against(None)
    with open_reference(reference) as beside:
        found = against(beside.path)
    assert found.reference is not None
    return replace(found, reference=replace(found.reference, name=beside.name))


def divergences(
    reference: Path, candidate: Path, windows: Sequence[Window], *, n_ctx: int = 512, threads: int | None = None
) -> Doubles:
    """Mean KL divergence of a candidate from its reference in each window, in nats: float64 [windows].

    Raises:
        SprigError: as ``evaluate`` does.
    """
    paths = [reference, candidate]
    read_headers(paths, n_ctx)
    with loaded(paths, n_ctx=n_ctx, threads=threads) as models:
        _, scores = side_by_side(models, windows, with_reference=True)
    return np.array([one.kld.mean() for one in scores if one.kld is not None])
