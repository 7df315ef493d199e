"""How fast this machine reads and writes, measured with small stand-ins, one for each type of weights."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from agent.device import features, kernel, machine, processor
from agent.errors import SprigError
from agent.fit.bench import BenchResult, Way, bench_file
from agent.fit.profile import DecodeSpeed, DeviceProfile, Figure, PrefillSpeed
from agent.fit.stand_in import StandIn
from agent.home import home
from agent.models.memory import BATCH, Processor

TYPES = ("Q8_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "IQ4_XS", "Q3_K", "Q5_0", "F16")
_WIDE = StandIn("Q8_0", width=1024, ffn=2816, layers=6, vocab=1024)  # most of its time goes to weights
_DEEP = StandIn("Q8_0", width=256, ffn=512, layers=24, vocab=256)  # most of its time goes to all that is between them
_PROMPT, _LONG_PROMPT, _GENERATE, _REPEAT = 64, 768, 16, 3
_DECODE_ERROR, _PREFILL_ERROR = 15, 25  # per cent; benchmarks/fit.py measures them
_LEAST = 1e-9  # of a time that noise has made negative


def measure_machine(on_step: Callable[[str], None], *, own_time: bool = False) -> DeviceProfile:
    """Measure how fast this machine reads and writes, in about half a minute.

    Args:
        on_step: takes a line for each thing that was measured.
        own_time: with one thread, by the processor's time that it takes: for a machine that other programs keep busy.

    Raises:
        SprigError: the stand-ins cannot be written, or llama.cpp cannot be loaded.
    """
    way = Way(processor.choose_threads(wanted=1 if own_time else None), BATCH, "f16", repack=True)
    place = home() / "cache"
    try:
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=place, prefix="measure-") as folder:

            def bench(shape: StandIn, prompt: int, generate: int) -> BenchResult:
                path, name = shape.write(Path(folder) / "stand-in.gguf"), f"a model of {shape.type}"
                return bench_file(str(path), name, way, prompt=prompt, generate=generate, repeat=_REPEAT, own_time=own_time)

            return _measure(bench, on_step)
    except OSError as e:
        raise SprigError(f"this machine cannot be measured: {place}: {e.strerror}") from None


Bench = Callable[[StandIn, int, int], BenchResult]


def _measure(bench: Bench, on_step: Callable[[str], None]) -> DeviceProfile:
    """The figures from the best of several runs each: what other programs take only ever slows a run."""

    def times(shape: StandIn, prompt: int, generate: int) -> tuple[float, float]:
        """Seconds of a token when it is read, and when it is written."""
        found = bench(shape, prompt, generate)
        return 1 / max(found.prefill), 1 / max(found.decode, default=1.0)

    deep_read, deep_write = times(_DEEP, _PROMPT, _GENERATE)
    long_read, _ = times(_DEEP, _LONG_PROMPT, 0)
    shapes = {kind: replace(_WIDE, type=kind) for kind in TYPES}
    wide: dict[str, tuple[float, float]] = {}
    for kind, shape in shapes.items():
        read, write = wide[kind] = times(shape, _PROMPT, _GENERATE)
        on_step(f"{kind}: reads {_flops(shape) / read / 1e9:.0f} GFLOP/s, writes {shape.nbytes / write / 1e9:.1f} GB/s")
    layer = _layer(deep_write, wide["Q8_0"][1])
    attention = 4 * _DEEP.layers * _DEEP.width * (_LONG_PROMPT - _PROMPT) / 2 / max(_LEAST, long_read - deep_read)
    each = _elementwise(deep_read, wide["Q8_0"][0], attention)
    reads: dict[str, float] = {}
    writes: dict[str, float] = {}
    for kind, (read, write) in wide.items():
        shape = shapes[kind]
        reads[kind] = _flops(shape) / max(_LEAST, read - each * _numbers(shape) - _scores(shape) / attention) / 1e9
        writes[kind] = shape.nbytes / max(_LEAST, write - layer * shape.layers) / 1e9
    return _profile(layer, attention, each, reads, writes)


def _layer(deep: float, wide: float) -> float:
    """Seconds of a layer besides its bytes, from two shapes that differ in layers and in bytes."""
    per_byte = (wide * _DEEP.layers - deep * _WIDE.layers) / (_WIDE.nbytes * _DEEP.layers - _DEEP.nbytes * _WIDE.layers)
    return max(0.0, (deep - max(0.0, per_byte) * _DEEP.nbytes) / _DEEP.layers)


def _elementwise(deep: float, wide: float, attention: float) -> float:
    """Seconds of each number of each layer besides the weights, from the same two shapes."""
    deep, wide = deep - _scores(_DEEP) / attention, wide - _scores(_WIDE) / attention
    top = deep * _flops(_WIDE) - wide * _flops(_DEEP)
    return max(0.0, top / (_numbers(_DEEP) * _flops(_WIDE) - _numbers(_WIDE) * _flops(_DEEP)))


def _flops(shape: StandIn) -> float:
    return 2.0 * shape.weights


def _numbers(shape: StandIn) -> int:
    return shape.layers * shape.width


def _scores(shape: StandIn) -> float:
    """FLOP of attention for a token of the shorter prompt, on average."""
    return 4.0 * shape.layers * shape.width * _PROMPT / 2


def _profile(
    layer: float, attention: float, each: float, reads: Mapping[str, float], writes: Mapping[str, float]
) -> DeviceProfile:
    source = f"sprig fit on this machine, {time.strftime('%Y-%m-%d')}, llama-cpp-python {version('llama-cpp-python')}"

    def figure(value: float) -> Figure:
        return Figure(float(f"{min(max(value, 1e-6), 1e6):.4g}"), "measured", source)

    here = Processor(platform.machine().lower(), features.features())
    plain = [rate for kind, rate in reads.items() if kind not in here.repacked and kind != "F16"] or list(reads.values())
    packed = [rate for kind, rate in reads.items() if kind in here.repacked] or plain
    memory = machine.total_memory()
    free = machine.available_memory()
    cores = processor.choose_threads()
    return DeviceProfile(
        "", kernel.model_name(Path("/")) or platform.machine(), memory, (memory,), max(0, memory - free), 0, cores.why, here,
        DecodeSpeed(
            figure(layer * 1e3), figure(max(writes.values())), {k: figure(v) for k, v in writes.items()}, _DECODE_ERROR
        ),
        PrefillSpeed(
            {k: figure(v) for k, v in reads.items()}, figure(min(packed)), figure(min(plain)), figure(attention / 1e9),
            figure(1 / each / 1e9) if each > 0 else None, _PREFILL_ERROR,
        ),
    )  # fmt: skip
