"""The encoder ``gptq``: error feedback where it wins on activations that it has not seen, ggml's own kernel elsewhere.

Feedback trusts the second moment of few tokens too much. So each tensor chooses how much of it to believe (the shrinkage) over
the two folds of the text: a sample of its rows is rounded for one and judged on the other, and so is what ggml makes of them. All
rows are then rounded for both folds together.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.device.processor import cores
from agent.gguf.types import GGMLType
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.rounding.blocks import FORMATS, Blocks, Format, pack, values
from pipeline.rounding.descent import descend
from pipeline.rounding.encoder import Inputs, RoundedTensor
from pipeline.rounding.feedback import round_with_feedback, to_blocks
from pipeline.rounding.moments import Moment, moment, one_blas_thread, output_error
from pipeline.rounding.on_grid import exact, looks_on_grid

SHRINKAGES = (0.15, 0.35, 0.6)
_SAMPLE = 96  # rows that choose
_CHUNK = 288  # rows that are rounded together at most: their working set stays in a core's cache
_SWEEPS = 2
_FEWEST_TOKENS = 64  # of a fold, below which its second moment says nothing
_CACHE = 256 << 20  # bytes of factored second moments, which several weights share


@dataclass(frozen=True, slots=True)
class _Choice:
    shrinkage: float
    error: float
    ggml_error: float

    @property
    def wins(self) -> bool:
        return self.error < self.ggml_error


@dataclass(frozen=True, slots=True)
class _Folds:
    """The second moments of one matrix: their name for the cache, sums and tokens of both folds."""

    key: tuple[str, int]
    sums: tuple[Floats, Floats]
    tokens: tuple[int, int]

    def sum_of(self, fold: int | None) -> Floats:
        return self.sums[0] + self.sums[1] if fold is None else self.sums[fold]


class GptqEncoder:
    """Error feedback with the format's own scale search, then descent. Keeps what it decided for each tensor.

    Args:
        statistics: of the model's inputs.
        threads: by default every core.
    """

    name = "gptq"

    def __init__(self, statistics: Inputs, threads: int | None = None) -> None:
        self.inputs = statistics
        self.threads = threads or cores()
        self.decisions: dict[str, RoundedTensor] = {}
        self._moments = _MomentCache()
        self._last: _Folds | None = None

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """As ``TensorEncoder.check``."""
        self.inputs.check(shapes)

    def wants(self, name: str, kind: GGMLType, look: Callable[[], Floats]) -> bool:
        """As ``TensorEncoder.wants``."""
        return kind.name in FORMATS and (self.inputs.input_of(name) is not None or looks_on_grid(look(), FORMATS[kind.name]))

    def encode(self, name: str, weights: Floats, kind: GGMLType) -> Bytes | None:
        """As ``TensorEncoder.encode``. Raises SprigError if the statistics cannot be read."""
        form = FORMATS[kind.name]
        raw = exact(weights, form)
        if raw is not None:
            self.decisions[name] = RoundedTensor(name, kind.name, "grid")
            return raw
        matrices = weights if weights.ndim == 3 else weights[None]
        found = [self._folds(name, i) for i in range(len(matrices))]
        self.decisions[name] = RoundedTensor(name, kind.name, "ggml")
        if not any(found):
            return None
        pairs = list(zip(matrices, found, strict=True))
        # A tied embedding is also looked up, and its plain error grows: the less, the larger the shrinkage.
        tried = SHRINKAGES[1:] if name == "token_embd.weight" else SHRINKAGES
        with ThreadPoolExecutor(self.threads, thread_name_prefix="round") as pool, one_blas_thread():
            made = [self._matrix(w, folds, form, pool, tried) if folds else (None, None) for w, folds in pairs]
        self._record(name, kind, [choice for choice, _ in made if choice])
        if all(raw is None for _, raw in made):
            return None
        parts = [raw if raw is not None else _plain(w, form, folds) for (w, folds), (_, raw) in zip(pairs, made, strict=True)]
        return np.concatenate(parts)

    def errors(self, name: str, weights: Floats, kinds: Iterable[GGMLType]) -> dict[str, float]:
        """The error of a tensor's outputs under several types, with the encoder that would be used: summed over all rows, a mean
        over unseen tokens. Rows are sampled. Types that fit no row, and tensors that nothing is known of, are left out."""
        matrices = weights if weights.ndim == 3 else weights[None]
        pairs = [(_sample(matrix), folds) for i, matrix in enumerate(matrices) if (folds := self._folds(name, i)) is not None]
        fitting = [kind for kind in kinds if matrices.shape[2] % kind.block == 0] if pairs else []

        def error(kind: GGMLType) -> float:
            choices = [self._choose(sample, folds, kind, map, SHRINKAGES[1:2]) for sample, folds in pairs]
            per_row = float(np.mean([min(c.error, c.ggml_error) for c in choices]))
            return per_row * int(matrices.shape[0] * matrices.shape[1])

        with ThreadPoolExecutor(self.threads, thread_name_prefix="round") as pool, one_blas_thread():
            return {kind.name: found for kind, found in zip(fitting, pool.map(error, fitting), strict=True)}

    def _folds(self, name: str, matrix: int) -> _Folds | None:
        one = self.inputs.input_of(name)
        if one is not None and self._last is not None and self._last.key == (one.name, matrix):
            return self._last  # q, k and v are asked for one after another
        a, b = (self.inputs.hessian(name, fold, matrix) if one else None for fold in ("A", "B"))
        if one is None or a is None or b is None or min(a[1], b[1]) < _FEWEST_TOKENS:
            return None
        if not (np.isfinite(a[0]).all() and np.isfinite(b[0]).all()):
            return None
        self._last = _Folds((one.name, matrix), (a[0], b[0]), (a[1], b[1]))
        return self._last

    def _matrix(
        self, weights: Floats, folds: _Folds, form: Format, pool: ThreadPoolExecutor, shrinkages: Sequence[float]
    ) -> tuple[_Choice, Bytes | None]:
        choice = self._choose(_sample(weights), folds, form.kind, pool.map, shrinkages)
        if not choice.wins:
            return choice, None
        known = self._moments.of(folds, None, choice.shrinkage, form)
        sweeps = _SWEEPS if len(form.levels) <= 32 else 1
        raw = np.concatenate(list(pool.map(lambda part: pack(_blocks(part, known, form, sweeps), form), _chunks(weights))))
        return choice, raw if ggml.valid(raw, form.kind) else None

    def _choose(
        self, sample: Floats, folds: _Folds, kind: GGMLType, mapped: Callable[..., Any], shrinkages: Sequence[float] = SHRINKAGES
    ) -> _Choice:
        """Compare shrinkages, and ggml's kernel, all fitted on fold A, on fold B; ``mapped`` is ``map``, or that of a pool."""
        form = FORMATS.get(kind.name)

        def judged(made: Floats) -> float:
            return output_error(sample - made, folds.sums[1]) / folds.tokens[1] / len(sample)

        def error(shrinkage: float | None) -> float:
            if shrinkage is None or form is None:
                importance = np.ascontiguousarray(np.diagonal(folds.sums[0]) / folds.tokens[0], dtype=np.float32)
                raw = ggml.quantize(sample, kind, importance)
                return judged(ggml.to_float(raw, kind, sample.shape[1])) if ggml.valid(raw, kind) else np.inf
            try:
                known = self._moments.of(folds, 0, shrinkage, form)
            except FloatingPointError:
                return np.inf
            return judged(values(_blocks(sample, known, form, 1), form))

        if form is None:
            return _Choice(1.0, np.inf, error(None))
        *errors, ggml_error = mapped(error, (*shrinkages, None))
        best = int(np.argmin(errors))
        return _Choice(shrinkages[best], errors[best], ggml_error)

    def _record(self, name: str, kind: GGMLType, choices: Sequence[_Choice]) -> None:
        if choices:
            won = [c for c in choices if c.wins]
            self.decisions[name] = RoundedTensor(
                name, kind.name, "gptq" if won else "ggml", float(np.mean([c.shrinkage for c in won])) if won else None,
                float(np.mean([min(c.error, c.ggml_error) for c in choices])), float(np.mean([c.ggml_error for c in choices])),
            )  # fmt: skip


class _MomentCache:
    """Factored second moments that were used last: q, k and v share an input, and so do gate and up."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[Any, ...], Moment] = OrderedDict()

    def of(self, folds: _Folds, fold: int | None, shrinkage: float, form: Format) -> Moment:
        """Raises FloatingPointError as ``moment`` does."""
        key = (folds.key, fold, shrinkage, form.kind.block, form.group)
        found = self._kept.pop(key, None) or moment(folds.sum_of(fold), shrinkage, form)
        self._kept[key] = found
        size = sum(m.nbytes for m in list(self._kept.values()))
        while size > _CACHE and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            size -= old.nbytes
        return found


def _blocks(weights: Floats, known: Moment, form: Format, sweeps: int) -> Blocks:
    done = round_with_feedback(weights, known, form)
    descend(done, known, form, sweeps)
    return to_blocks(done, known, form)


def _chunks(weights: Floats) -> list[Floats]:
    """Parts of the rows: always the same, about equally long, and two at least, since most machines have two cores or more."""
    parts = max(2, -(-len(weights) // _CHUNK))
    return [part for part in np.array_split(weights, parts + parts % 2) if len(part)]


def _sample(weights: Floats) -> Floats:
    """Rows spread evenly."""
    if len(weights) <= _SAMPLE:
        return np.ascontiguousarray(weights)
    return np.ascontiguousarray(weights[np.linspace(0, len(weights) - 1, _SAMPLE).astype(int)])


def _plain(weights: Floats, form: Format, folds: _Folds | None) -> Bytes:
    """An expert that ggml's kernel rounds better, or of which nothing is known."""
    importance = None
    if folds is not None:
        importance = np.ascontiguousarray(np.diagonal(folds.sum_of(None)) / sum(folds.tokens), dtype=np.float32)
    raw = ggml.quantize(np.ascontiguousarray(weights), form.kind, importance)
    return raw if ggml.valid(raw, form.kind) else ggml.quantize(np.ascontiguousarray(weights), form.kind)
