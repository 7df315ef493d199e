"""Finished files are run in llama.cpp on the same windows of text, and compared with a reference."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path

import numpy as np

from agent.errors import SprigError
from agent.gguf.reader import Header
from agent.text import display
from pipeline.evaluate.estimates import estimate_figures
from pipeline.evaluate.figures import EvaluatedFile, Evaluation, Figures, Style, WindowFigures
from pipeline.evaluate.reference import open_reference
from pipeline.evaluate.side_by_side import OnWindow, TokenScores, loaded, read_headers, side_by_side, text_bytes
from pipeline.evaluate.tensors import tensor_errors
from pipeline.evaluate.windows import Window, cut_windows
from pipeline.forward.measures import Doubles
from pipeline.text.held_out import domains


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
    texts = domains() if texts is None else texts
    with open_reference(reference) if reference is not None else nullcontext() as beside:
        paths = [*candidates] if beside is None else [beside.path, *candidates]
        headers = read_headers(paths, n_ctx, display(beside.name) if beside else None)
        with loaded(paths, n_ctx=n_ctx, rows=n_ctx - n_ctx // 2 + 1, threads=threads) as models:
            bos = models[0].bos if models[0].add_bos else None
            chosen = cut_windows(texts, models[0].tokenize, bos=bos, n_ctx=n_ctx, windows=windows, style=style)
            read = _Text(chosen, text_bytes(models[0], chosen), by_token=style == "llama-perplexity")
            start = time.perf_counter()
            scores = side_by_side(models, chosen, with_reference=beside is not None, on_window=on_progress)
            seconds = time.perf_counter() - start
            loads = [model.load_seconds for model in models]
        pairs = list(zip(paths, headers, strict=True))
        errors = [{}, *(tensor_errors(pairs[0], one) for one in pairs[1:])] if beside else [{} for _ in pairs]
    files: list[EvaluatedFile] = []
    first = scores[-len(candidates)]
    for (path, header), load, own, lost in zip(pairs, loads, scores, errors, strict=True):
        later = len(files) > len(paths) - len(candidates)
        files.append(replace(_file(path, header, load, read, own, first if later else None), tensor_errors=lost))
    original = replace(files[0], name=beside.name) if beside else None
    return Evaluation(tuple(files[-len(candidates) :]), original, style, n_ctx, seconds)


def divergences(reference: Path, candidate: Path, windows: Sequence[Window], *, threads: int | None = None) -> Doubles:
    """Mean KL divergence of a candidate from its reference in each window, in nats: float64 [windows].

    Raises:
        SprigError: as ``evaluate`` does.
    """
    paths, n_ctx = [reference, candidate], max(len(window.ids) for window in windows)
    read_headers(paths, n_ctx)
    rows = max(len(window.ids) - window.first for window in windows)
    with loaded(paths, n_ctx=n_ctx, rows=rows, threads=threads) as models:
        _, scores = side_by_side(models, windows, with_reference=True)
    return np.array([one.kld.mean() for one in scores if one.kld is not None])


@dataclass(frozen=True, slots=True)
class _Text:
    """What was read: the windows, the bytes of each one's scored text, and whether llama-perplexity's errors are wanted."""

    windows: Sequence[Window]
    lengths: Sequence[int]
    by_token: bool

    def figures(self, own: Sequence[TokenScores], first: Sequence[TokenScores] | None, domain: str | None = None) -> Figures:
        at = [i for i, window in enumerate(self.windows) if domain in (None, window.domain)]
        beside = None if first is None else [first[i] for i in at]
        return estimate_figures([own[i] for i in at], [self.lengths[i] for i in at], beside, by_token=self.by_token)


def _file(
    path: Path, header: Header, load: float, text: _Text, own: Sequence[TokenScores], first: Sequence[TokenScores] | None
) -> EvaluatedFile:  # fmt: skip
    return EvaluatedFile(
        name=path.name,
        path=path,
        size=header.file_size,
        weights=sum(prod(t.shape) for t in header.tensors.values()),
        load_seconds=load,
        overall=text.figures(own, first),
        per_domain={d: text.figures(own, first, d) for d in dict.fromkeys(w.domain for w in text.windows)},
        per_window=tuple(_window(w, scores) for w, scores in zip(text.windows, own, strict=True)),
    )


def _window(window: Window, scores: TokenScores) -> WindowFigures:
    kld, top = (None if values is None else float(values.mean()) for values in (scores.kld, scores.same_top))
    return WindowFigures(window.domain, len(scores.nll), float(scores.nll.mean()), kld, top)
