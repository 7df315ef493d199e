"""What a file costs on this machine: the time to load it, prefill and decode, and memory, as ``sprig bench`` measures them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.fit.bench import bench, usual_way
from agent.models.file import read_model
from agent.models.tuned import recall_tuned
from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.tasks.score import mean

PROMPT, GENERATE, REPEAT = 256, 64, 3


@dataclass(frozen=True, slots=True)
class FileSpeed:
    """What was measured of a file.

    Attributes:
        model: name of the file.
        threads: that wrote tokens.
        prefill, decode: tokens a second, with the standard error over the runs.
        load_seconds: until the first token could be computed; the file may have been in the system's cache.
        peak_memory: bytes that the process held at most.
    """

    model: str
    threads: int
    prefill: Estimate
    decode: Estimate
    load_seconds: float
    peak_memory: int


def measure_speed(
    model: Path, *, threads: int | None = None, prompt: int = PROMPT, generate: int = GENERATE, repeat: int = REPEAT
) -> FileSpeed:
    """Measure a file in a child process, computed as the agent would compute it here.

    Args:
        threads: of the computation; by default the agent's choice.
        prompt, generate: tokens that a run reads and writes, at least 1.
        repeat: runs.

    Raises:
        SprigError: the file does not fit the memory, or llama.cpp refuses it.
    """
    file = read_model(model.absolute())
    way = usual_way(file, threads=threads, tuned=recall_tuned(file.identity))
    found = bench(file, way, prompt=prompt, generate=generate, repeat=repeat)
    return FileSpeed(model.name, way.threads.decode, mean(found.prefill), mean(found.decode), found.load, found.peak)
