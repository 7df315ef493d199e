"""Models read the same windows side by side; of their logits only a few numbers per token stay.

All models are loaded at once, each in its own process. One computes at a time, with all threads, and what the one before it has
said is measured meanwhile. Logits never reach a disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from agent.errors import GGUFError, SprigError
from agent.gguf.check import check
from agent.gguf.reader import Header
from agent.models.file import writes_text
from agent.text import display
from pipeline.evaluate.windows import Window
from pipeline.format.ggml import Floats
from pipeline.forward.measures import Doubles, Ints, differences, likelihoods
from pipeline.forward.process import ForwardProcess

OnWindow = Callable[[int, int], None]  # windows done, windows in all


@dataclass(frozen=True, slots=True)
class TokenScores:
    """A model on the scored tokens of one window, float64 [n] each; without a reference there is only ``nll``.

    Attributes:
        nll: negative log-likelihood of the right token, in nats.
        kld: KL divergence from the reference, in nats.
        same_top: 1 where the likeliest token is that of the reference, else 0.
        dp: probability of the right token, minus the reference's.
        nll_over: ``nll`` minus the reference's.
    """

    nll: Doubles
    kld: Doubles | None = None
    same_top: Doubles | None = None
    dp: Doubles | None = None
    nll_over: Doubles | None = None


def read_headers(paths: Sequence[Path], n_ctx: int, first: str | None = None) -> list[Header]:
    """Headers of files that can be evaluated on the same windows; ``first`` is what a person calls the first of them.

    Raises:
        GGUFError: a file is broken or missing.
        SprigError: it writes no text, was trained for shorter texts, or has another vocabulary than the first.
    """
    headers = [check(path) for path in paths]
    for path, header in zip(paths, headers, strict=True):
        trained = header.context_length
        if not writes_text(header.keys):
            raise SprigError(f"{path} gives vectors or scores of texts and writes none, so there is nothing to predict")
        if trained is not None and trained < n_ctx:
            raise SprigError(f"{path} was trained for {trained} tokens of context, and windows have {n_ctx}: take shorter ones")
        if why := _other_vocabulary(headers[0], header):
            raise SprigError(
                f"{path} has another vocabulary than {first or paths[0]} ({why}), and only models that read the same tokens can "
                "be compared token by token; evaluate each by itself and compare bits per byte"
            )
    return headers


def _other_vocabulary(first: Header, other: Header) -> str:
    """What differs, empty if the token lists are the same."""
    a, b = (list(h.keys.get("tokenizer.ggml.tokens", [])) for h in (first, other))
    if a == b:
        return ""
    at = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
    if at is None:
        return f"{len(b):,} tokens, not {len(a):,}"
    return f"its token {at} is {display(repr(b[at])[:40])}, not {display(repr(a[at])[:40])}"


@contextmanager
def loaded(paths: Sequence[Path], *, n_ctx: int, rows: int, threads: int | None) -> Iterator[list[ForwardProcess]]:
    """The models, each in its process, for windows of at most ``n_ctx`` tokens that give at most ``rows`` rows of logits.

    Raises GGUFError for the first that llama.cpp does not load.
    """
    with ExitStack() as stack:
        yield [
            stack.enter_context(ForwardProcess(path, "pipeline.evaluate.child", n_ctx=n_ctx, n_outputs=rows, threads=threads))
            for path in paths
        ]


def text_bytes(model: ForwardProcess, windows: Sequence[Window]) -> list[int]:
    """Bytes of the text of each window's scored tokens."""
    return [sum(model.ask("lengths", ids=window.targets)["bytes"]) for window in windows]


def side_by_side(
    models: Sequence[ForwardProcess],
    windows: Sequence[Window],
    *,
    with_reference: bool,
    on_window: OnWindow = lambda done, total: None,
) -> list[list[TokenScores]]:
    """Let all models read all windows.

    Args:
        with_reference: the first model is the one that the others are compared with.

    Returns:
        For each model, what it did in each window.

    Raises:
        GGUFError: a model's process died, or its logits are NaN or infinite.
    """
    scores: list[list[TokenScores]] = [[] for _ in models]
    measure = _Measure(models[0] if with_reference else None)
    waiting: Callable[[], None] | None = None  # the measuring of the model that computed last
    for done, window in enumerate(windows, 1):
        n, targets = len(window.targets), np.array(window.targets, np.int64)
        for model, own in zip(models, scores, strict=True):
            if waiting and len(models) == 1:
                waiting()  # the next window's logits go where these are
                waiting = None
            model.ask_logits(list(window.ids), window.first)
            if waiting:
                waiting()
            logits = model.take_logits(n + 1)[:n]  # the last row predicts a token that is no longer in the window
            waiting = partial(_measure_one, own, measure, model, logits, targets)
        on_window(done, len(windows))
    if waiting:
        waiting()
    if with_reference:
        scores[0] = [TokenScores(one.nll - one.nll_over) for one in scores[1] if one.nll_over is not None]
    return scores


class _Measure:
    """Measures the models in turn. The reference's logits are kept until the other models of its window were compared."""

    def __init__(self, reference: ForwardProcess | None) -> None:
        self._reference = reference
        self._held: Floats = np.empty((0, 0), np.float32)

    def __call__(self, model: ForwardProcess, logits: Floats, targets: Ints) -> TokenScores | None:
        """What the model did; None of the reference, whose scores come with those of the first candidate."""
        if self._reference is None:
            nll = likelihoods(logits, targets).nll
            if not np.isfinite(nll).all():
                raise _nan(model)
            return TokenScores(nll)
        if model is self._reference:
            if self._held.shape != logits.shape:
                self._held = np.empty_like(logits)
            np.copyto(self._held, logits)
            return None
        found = differences(self._held, logits, targets)
        nll, same = found.candidate.nll, found.same_top.astype(np.float64)
        if not (np.isfinite(found.kld).all() and np.isfinite(nll).all()):
            raise _nan(self._reference if np.isfinite(logits).all() else model)
        return TokenScores(nll, found.kld, same, found.dp, nll - found.reference.nll)


def _measure_one(own: list[TokenScores], measure: _Measure, model: ForwardProcess, logits: Floats, targets: Ints) -> None:
    if scores := measure(model, logits, targets):
        own.append(scores)


def _nan(model: ForwardProcess) -> GGUFError:
    return GGUFError(f"{model.path} cannot be evaluated: llama.cpp computes NaN or infinity with it; make it again")
