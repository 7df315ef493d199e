"""What a stage will take: seconds, memory and disk, from the number of weights.

The times are those of SmolLM2-135M on x86-64 cores with AVX2 (docs/compression.md), scaled by weights, tokens and cores. They say
minutes or hours, not more.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.compress.shape import ModelShape

# Core seconds for each weight and token.
_READ = 8.5e-11  # llama.cpp, F32, with its logits
_MEASURE = 1.2e-10  # and with second moments
_WRITE = 1.8e-10  # the model writes what is measured
_LEARN = 1.5e-10  # torch, forward and backward, and the teacher
# Core seconds for each weight.
_ROUND = 3.6e-6  # probes, errors, gptq
_COPY = 1.0e-8
_START = 6.0  # seconds of a stage besides: Python, its libraries, checks
_PYTHON, _TORCH = 200 << 20, 600 << 20


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one stage.

    Attributes:
        seconds: that it runs.
        memory: bytes at the peak, mapped files among them.
        kept, scratch: bytes on disk that stay, and that are needed besides while it runs.
    """

    seconds: float
    memory: int
    kept: int
    scratch: int = 0


def convert_forecast(shape: ModelShape, size: int) -> Forecast:
    """Of a file of so many bytes for which nothing is measured."""
    return Forecast(_START + shape.n_weights * _COPY, _PYTHON + 8 * shape.largest, size)


def prune_forecast(shape: ModelShape, after: ModelShape, cores: int) -> Forecast:
    """Of a cut, whose activations were measured before."""
    n = shape.n_weights
    seconds = _START + n * _COPY * 4 + n * _READ * 2048 / cores
    return Forecast(seconds, _PYTHON + 12 * shape.largest + shape.moments() // max(1, shape.layers), 2 * after.n_weights)


def distill_forecast(shape: ModelShape, tokens: int, cores: int) -> Forecast:
    n = shape.n_weights
    return Forecast(_START + tokens * learn_seconds(shape, cores), _TORCH + 20 * n, 2 * n, 14 * n)


def learn_seconds(shape: ModelShape, cores: int) -> float:
    """Of one token."""
    return shape.n_weights * _LEARN / cores


def calibrate_forecast(shape: ModelShape, tokens: int, own: bool, cores: int) -> Forecast:
    """``own``: the model writes its text itself."""
    n = shape.n_weights
    seconds = _START + n * tokens * (_MEASURE + (_WRITE if own else 0)) / cores
    return Forecast(seconds, _PYTHON + 4 * n + shape.moments() // 2, shape.moments() + (1 << 20), 4 * n)


def quantize_forecast(shape: ModelShape, size: int, cores: int) -> Forecast:
    """Of a budget that is measured, and gptq."""
    n = shape.n_weights
    seconds = _START + n * _ROUND / cores
    return Forecast(seconds, _PYTHON + 4 * n + 24 * shape.largest, size, 4 * n)


def read_forecast(shape: ModelShape, size: int, tokens: int, beside: bool, cores: int) -> Forecast:
    """Of judging a file of so many bytes; ``beside``: the original reads the same."""
    n, logits = shape.n_weights, 4 * 3 * 257 * shape.vocabulary
    models = 2 if beside else 1
    return Forecast(
        _START + models * n * tokens * _READ / cores, models * _PYTHON + logits + size + (4 * n if beside else 0), 1 << 20
    )
