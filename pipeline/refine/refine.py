"""A rounded file is rounded once more, for the inputs that its own rounded layers give.

The first rounding takes each tensor as if all before it were exact. Here the original and the file compute the calibration text
in step, and each tensor, when its turn comes, is rounded so that it answers the file's inputs as the original answers its own
(``pipeline.refine.target``). All before it are final then, so one computation of the text does for the whole model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.files import publish
from agent.gguf.check import check
from agent.gguf.reader import read_header
from pipeline.format.private_copy import private_copy
from pipeline.forward.process import ForwardProcess
from pipeline.rounding.compiled_folder import copy_of_compiled

_CHILD = "pipeline.refine.child"
_TOKENS = 4096  # of text that is read; more of a longer text is passed over, evenly


@dataclass(frozen=True, slots=True)
class Refined:
    """What was rounded once more.

    Attributes:
        changed: GGUF names of the tensors.
        tensors: how many were looked at.
        tokens: of text that was read.
    """

    changed: tuple[str, ...]
    tensors: int
    tokens: int

    @property
    def note(self) -> str:
        """One line for a person."""
        return f"{len(self.changed)} of {self.tensors} tensors were rounded again, for what the rounded layers before them give"


def refine(gguf: Path, original: Path, windows: Sequence[Sequence[int]], *, threads: int | None = None) -> Refined:
    """Round a finished file once more, in its place. The types stay, and so does every tensor for which it does not pay.

    Args:
        gguf: the file; it is replaced in one step, or stays as it is.
        original: the same model in F32 or F16.
        windows: token ids of the calibration text. Those at even places and the others judge each other.

    Raises:
        SprigError: the text is too short, a file does not run, its inputs cannot be read, or there is no room.
    """
    if len(windows) < 2:
        raise SprigError(f"the text gives {len(windows)} windows and two are needed at least: take a longer one")
    windows = windows[:: max(1, round(sum(map(len, windows)) / _TOKENS))]
    part = gguf.with_name(f"{gguf.name}.refined")
    with private_copy(gguf, part):
        found = _again(part, original, [list(ids) for ids in (*windows[0::2], *windows[1::2])], threads)
        if found.changed:
            check(part)
            publish(part, gguf)
    return found


def _again(part: Path, original: Path, windows: list[list[int]], threads: int | None) -> Refined:
    names = [name for name, t in read_header(part).tensors.items() if name.startswith("blk.") and len(t.shape) == 2]
    with (
        copy_of_compiled() as compiled,
        ForwardProcess(
            part, _CHILD, n_ctx=sum(map(len, windows)), threads=threads, reads=[original], writes=[part, compiled], repack=False,
            original=str(original.absolute()), windows=windows, weights=names, compiled=str(compiled),
        ) as process,
    ):  # fmt: skip
        told = process.ask("again")
    return Refined(tuple(map(str, told["changed"])), int(told["tensors"]), sum(map(len, windows)))
