"""What a pruning must know of a model, measured in llama.cpp: activations, the influence of layers, the distance afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.progress import OnProgress, Progress
from pipeline.calibrate.calibrate import calibrate
from pipeline.calibrate.collect import collect
from pipeline.calibrate.statistics import Statistics
from pipeline.calibrate.text import CalibrationText, cut, read_files
from pipeline.evaluate.compare import divergences
from pipeline.evaluate.windows import cut_windows
from pipeline.forward.measures import standard_error
from pipeline.forward.process import ForwardProcess
from pipeline.text.calibration import own_text
from pipeline.text.held_out import domains

_N_CTX, _WINDOWS = 256, 8  # of the check
_READ, _READ_WINDOWS = 256, 8  # of the influence of layers
_TOKENS = 8192


@dataclass(frozen=True, slots=True)
class Distance:
    """Mean KL divergence from the original, in nats, over windows."""

    kld: float
    error: float
    windows: int


def measure(
    gguf: Path, folder: Path, texts: Sequence[Path], threads: int | None, report: OnProgress, *, writes_text: bool
) -> Statistics:  # fmt: skip
    """Second moments of all inputs into ``folder``, on these texts; without any, on what the model writes itself.

    Raises:
        SprigError: the text is too short, or the model cannot be computed with.
    """
    if writes_text:
        matrix = folder.with_name(f"{folder.name}.imatrix.gguf")
        calibrate(str(gguf), matrix, texts=texts, statistics=folder, threads=threads, on_step=report)
        return Statistics.open(folder)
    windows = read(gguf, texts, _READ, _TOKENS)
    return collect(
        gguf, windows, folder, hessians=True, threads=threads,
        on_progress=lambda done, total: report(Progress("measure", done, total, "windows")),
    )  # fmt: skip


def read(gguf: Path, texts: Sequence[Path], size: int = _READ, tokens: int = _READ * _READ_WINDOWS) -> list[tuple[int, ...]]:
    """Windows of token ids of these texts, by default of the project's own. Raises SprigError if they are too short."""
    with ForwardProcess(gguf, n_ctx=64, threads=1, repack=False) as process:
        if texts:
            found: CalibrationText = read_files(process, texts, size, tokens)
            return list(found.windows)
        ids = process.tokenize(own_text())
        windows = cut(ids, min(size, len(ids) // 4), process.bos if process.add_bos else None)
    if not windows:
        raise SprigError("the text is too short to measure the model on; name a longer one with --text")
    return windows[: tokens // size]


def distance(original: Path, pruned: Path, threads: int | None) -> Distance:
    """How far a GGUF is from another of the same vocabulary, on the project's held-out text. Raises SprigError."""
    with ForwardProcess(original, n_ctx=64, threads=1, repack=False) as process:
        bos = process.bos if process.add_bos else None
        windows = cut_windows(domains(), process.tokenize, bos=bos, n_ctx=_N_CTX, windows=_WINDOWS)
    found = divergences(original, pruned, windows, threads=threads)
    return Distance(float(found.mean()), standard_error(found), len(found))
