"""An evaluation of files that are there: loaded, run side by side, and what they did summed up."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from agent.gguf.reader import Header
from pipeline.evaluate.estimates import estimate_figures
from pipeline.evaluate.figures import EvaluatedFile, Evaluation, Figures, Style, WindowFigures
from pipeline.evaluate.side_by_side import OnWindow, TokenScores, loaded, read_headers, side_by_side, text_bytes
from pipeline.evaluate.windows import Window, cut_windows


def evaluate_files(
    candidates: Sequence[Path],
    *,
    reference: Path | None,
    texts: Mapping[str, str],
    n_ctx: int = 512,
    windows: int | None = None,
    style: Style = "sprig",
    threads: int | None = None,
    on_window: OnWindow = lambda done, total: None,
) -> Evaluation:
    """``pipeline.evaluate.compare.evaluate`` for a reference that is a file. Raises as it does."""
    paths = [*candidates] if reference is None else [reference, *candidates]
    headers = read_headers(paths, n_ctx)
    with loaded(paths, n_ctx=n_ctx, threads=threads) as models:
        bos = models[0].bos if models[0].add_bos else None
        chosen = cut_windows(texts, models[0].tokenize, bos=bos, n_ctx=n_ctx, windows=windows, style=style)
        of_text = _Text(chosen, text_bytes(models[0], chosen), by_token=style == "llama-perplexity")
        start = time.perf_counter()
        scores = side_by_side(models, chosen, with_reference=reference is not None, on_window=on_window)
        seconds = time.perf_counter() - start
        loads = [model.load_seconds for model in models]
    files: list[EvaluatedFile] = []
    first = scores[-len(candidates)]
    for path, header, load, own in zip(paths, headers, loads, scores, strict=True):
        later = len(files) > len(paths) - len(candidates)
        files.append(_file(path, header, load, of_text, own, first if later else None))
    return Evaluation(tuple(files[-len(candidates) :]), None if reference is None else files[0], style, n_ctx, seconds)


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
