"""A rounded file is rounded once more, for the inputs that its own rounded layers give.

The first rounding takes each tensor as if all before it were exact. Here the layers are gone through in groups, from the first
on: the original and the file as it has become read the calibration text side by side, and the tensors of the group are rounded so
that they answer the file's inputs as the original answers its own (``pipeline.refine.target``).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from threadpoolctl import threadpool_limits

from agent.device.machine import available_memory
from agent.errors import OutputError
from agent.files import exclusive, human_size, publish, reserve, scratch_folder, write_error
from agent.gguf.check import check
from agent.gguf.reader import TensorEntry, read_header
from pipeline.calibrate.inputs import Input
from pipeline.format import ggml
from pipeline.format.ggml import Floats
from pipeline.forward.process import ForwardProcess
from pipeline.refine.sums import SumsOfBoth
from pipeline.refine.target import Corrections
from pipeline.rounding.blocks import FORMATS
from pipeline.rounding.gptq import GptqEncoder
from pipeline.rounding.on_grid import looks_on_grid

_CHILD = "pipeline.refine.child"
_GROUPS = 4
_TOKENS = 4096  # of text that is read for each group; more of a longer text is passed over, evenly
_LOOK = 8  # rows that tell whether a tensor lies on a grid
_SHARE = 0.5  # of the available memory, for the sums of a group
_SCOUT = 32  # tokens that show which inputs there are

OnPart = Callable[[int, int], None]  # parts of the work done, of how many


@dataclass(frozen=True, slots=True)
class Refined:
    """What was rounded once more.

    Attributes:
        changed: GGUF names of the tensors.
        tensors: how many were looked at.
        tokens: of text that was read for each group.
        groups: of layers.
    """

    changed: tuple[str, ...]
    tensors: int
    tokens: int
    groups: int

    @property
    def note(self) -> str:
        """One line for a person."""
        return f"{len(self.changed)} of {self.tensors} tensors were rounded again, for what the rounded layers before them give"


def refine(
    gguf: Path, original: Path, windows: Sequence[Sequence[int]], *, groups: int = _GROUPS, threads: int | None = None,
    on_progress: OnPart = lambda done, total: None,
) -> Refined:  # fmt: skip
    """Round a finished file once more, in its place. The types stay, and so does every tensor for which it does not pay.

    Args:
        gguf: the file; it is replaced in one step, or stays as it is.
        original: the same model in F32 or F16.
        windows: token ids of the calibration text. Those at even places and the others judge each other.
        groups: of layers; each is measured when those before it have been rounded once more.

    Raises:
        SprigError: a file does not run, or there is no room.
    """
    windows = windows[:: max(1, round(sum(map(len, windows)) / _TOKENS))]
    part = gguf.with_name(f"{gguf.name}.refined")
    with exclusive(part) as fd, scratch_folder(part.absolute().with_name(f".{part.name[:60]}.sums")) as folder:
        try:
            _copy(gguf, fd, part)
            work = _Work(part, original, folder, windows, threads)
            changed, looked = work.run(fd, groups, on_progress)
            if changed:
                check(part)
                publish(part, gguf)
        finally:
            part.unlink(missing_ok=True)
    return Refined(tuple(changed), looked, sum(map(len, windows)), groups)


def _copy(gguf: Path, fd: int, part: Path) -> None:
    try:
        with gguf.open("rb") as source, os.fdopen(os.dup(fd), "wb") as copy:
            reserve(fd, gguf.stat().st_size, part)
            shutil.copyfileobj(source, copy, 1 << 20)
    except OSError as e:
        raise write_error(e, part) from None


class _Work:
    """A copy of the file that is rounded once more, group by group."""

    def __init__(self, part: Path, original: Path, folder: Path, windows: Sequence[Sequence[int]], threads: int | None) -> None:
        self.part, self.original, self.folder, self.threads = part, original, folder, threads
        self.windows = [list(ids) for ids in windows]
        self.tensors = read_header(part).tensors
        self.originals = read_header(original).tensors
        self.weights = np.memmap(original, np.uint8, "r")

    def run(self, fd: int, groups: int, report: OnPart) -> tuple[list[str], int]:
        """Round all groups; the names of the tensors that changed, and how many were looked at."""
        with self._process() as process:
            inputs = self._wanted(process)
        parts = _parts(inputs, groups, int(_SHARE * available_memory()))
        total, changed = len(parts) * (len(self.windows) + 1), list[str]()
        for i, own in enumerate(parts):
            at = i * (len(self.windows) + 1)
            self._measure(own, lambda done, at=at: report(at + done, total))  # type: ignore[misc]
            for number, one in enumerate(own):
                changed += self._round(fd, one, number)
            report(at + len(self.windows) + 1, total)
        return changed, sum(len(self._rounded(one)) for one in inputs)

    def _process(self) -> ForwardProcess:
        n_ctx = max(map(len, self.windows))
        return ForwardProcess(
            self.part, _CHILD, n_ctx=n_ctx, threads=self.threads, repack=False, original=str(self.original.absolute())
        )

    def _wanted(self, process: ForwardProcess) -> list[Input]:
        """The inputs of tensors in blocks that may be rounded, in the order of the computation. Experts have none in common."""
        told = process.ask("scout", ids=self.windows[0][:_SCOUT])["inputs"]
        found = [Input.from_dict(one) for one in told]
        return [one for one in found if one.name.startswith("blk.") and one.matrices == 1 and self._rounded(one)]

    def _rounded(self, one: Input) -> list[TensorEntry]:
        """The tensors of an input that are in blocks of a format, and whose weights do not lie on its grid already."""
        known = [self.tensors[name] for name in one.weights if name in self.originals and self.tensors[name].type.name in FORMATS]
        return [t for t in known if not looks_on_grid(self._original(t.name, _LOOK), FORMATS[t.type.name])]

    def _original(self, name: str, rows: int | None = None) -> Floats:
        """Rows of the original's weight, float32 [rows, columns]; by default all."""
        entry = self.originals[name]
        size = entry.type.row_size(entry.shape[-1])
        stop = entry.nbytes if rows is None else min(entry.nbytes, rows * size)
        raw = np.asarray(self.weights[entry.offset : entry.offset + stop]).reshape(-1, size)
        return ggml.to_float(np.ascontiguousarray(raw), entry.type, entry.shape[-1])

    def _file(self, number: int, fold: int) -> Path:
        return self.folder / f"{number:04}.{fold}.npz"

    def _measure(self, inputs: Sequence[Input], report: Callable[[int], None]) -> None:
        """Let the original and the file, as it has become, read the text; the sums of each half lie in files."""
        done = 0
        with self._process() as process:
            process.ask("scout", ids=self.windows[0][:_SCOUT])
            for fold in (0, 1):
                files = [str(self._file(i, fold).absolute()) for i in range(len(inputs))]
                process.ask("begin", inputs=[one.to_dict() for one in inputs], files=files)
                for ids in self.windows[fold::2]:
                    process.ask("window", ids=ids)
                    report(done := done + 1)
                process.ask("keep")

    def _round(self, fd: int, one: Input, number: int) -> list[str]:
        """Round the tensors of an input; those that changed."""
        folds = [SumsOfBoth.load(self._file(number, fold), one.columns) for fold in (0, 1)]
        with threadpool_limits(1, "blas"):
            corrections, rounder = Corrections(folds), GptqEncoder(_RoundedInputs(one, folds), self.threads)
            changed = []
            for entry in self._rounded(one):
                found = corrections.of(self._original(entry.name))
                rows = rounder.encode(entry.name, found.weights, entry.type) if found.length else None
                if rows is not None:
                    os.pwrite(fd, rows.data, entry.offset)
                    changed.append(entry.name)
        return changed


@dataclass(frozen=True, slots=True)
class _RoundedInputs:
    """One input of the rounded file, as an encoder asks for it."""

    one: Input
    folds: Sequence[SumsOfBoth]

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """It is of the file that is rounded."""

    def input_of(self, name: str) -> Input | None:
        return self.one

    def hessian(self, name: str, fold: Literal["A", "B"] | None = None, matrix: int = 0) -> tuple[Floats, int] | None:
        found = self.folds[0] + self.folds[1] if fold is None else self.folds["AB".index(fold)]
        return found.hessian, found.tokens

    def squares(self, name: str) -> Floats | None:
        both = self.folds[0] + self.folds[1]
        return (np.diagonal(both.hessian)[None] / both.tokens).astype(np.float32)


def _parts(inputs: Sequence[Input], groups: int, room: int) -> list[list[Input]]:
    """The inputs by groups of layers: so many, or more where the sums of a group take more memory than there is.

    Raises OutputError if those of one layer do.
    """
    blocks = sorted({_block(one) for one in inputs})
    for count in range(min(groups, len(blocks)), len(blocks) + 1):
        spans = [set(span.tolist()) for span in np.array_split(np.array(blocks, int), count)] if count else []
        parts = [[one for one in inputs if _block(one) in span] for span in spans]
        most = max((sum(6 * one.columns**2 for one in part) for part in parts), default=0)  # a triangle and a square of float32
        if most <= room:
            return parts
    raise OutputError(f"the sums of one layer take {human_size(most)} of memory, and {human_size(room)} are left for them")


def _block(one: Input) -> int:
    return int(one.name.split(".")[1])
