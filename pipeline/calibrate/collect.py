"""Windows of text through a model, and the sums of what its weights see: into a folder, within bounds of memory and disk.

The sums lie in files of one input and one fold, each of which says how many windows are in it; so a run that was killed goes
on from any mixture of them. If the sums of a fold do not fit the memory, the text is read once for each group of inputs, and each
time only as far into the model as the group lies.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.device.machine import available_memory
from agent.errors import OutputError, SprigError
from agent.files import atomic_write, exclusive, free_disk, human_size
from agent.gguf.reader import read_header
from pipeline.calibrate.inputs import Input
from pipeline.calibrate.statistics import (
    FOLDS,
    HESSIANS,
    IMATRIX,
    STATISTICS,
    Facts,
    Statistics,
    finish,
    model_identity,
    moments_file,
    windows_hash,
)
from pipeline.forward.process import ForwardProcess

log = logging.getLogger(__name__)

OnWindow = Callable[[int, int], None]  # windows read, of how many

_CHILD = "pipeline.calibrate.child"
_PLAN, _LOCK = "plan.json", "lock"
_SCOUT = 32  # tokens that show which inputs there are
_KEEP = 8  # windows after which the sums are written down
_SHARE = 0.7  # of the available memory
_BESIDE = 300_000_000  # bytes for the computation itself


def collect(
    gguf: Path,
    windows: Sequence[Sequence[int]],
    folder: Path,
    *,
    hessians: bool,
    threads: int | None = None,
    memory: int | None = None,
    on_progress: OnWindow = lambda done, total: None,
    resume: bool = False,
    datasets: Sequence[str] = (),
) -> Statistics:
    """Measure the inputs of all weights over a text.

    Args:
        gguf: the model.
        windows: token ids; each window is read by itself. Those at even places make fold A, the others fold B.
        folder: to be written; statistics that lie in it are replaced.
        hessians: keep second moments too, not only the squares.
        memory: bytes to use; by default 70 % of what is available.
        resume: go on with what a killed run has left.
        datasets: what the text is, for the imatrix file.

    Raises:
        SprigError: the text is too short, the model cannot be computed with, memory or disk is too small, or the folder holds
            something else or the rest of another run.
    """
    windows = [list(ids) for ids in windows if len(ids)]
    if len(windows) < 2:
        raise SprigError(f"the text gives {len(windows)} windows and calibration needs two at least: take a longer one")
    chunk = max(map(len, windows))
    text, model = windows_hash(windows), model_identity(gguf)
    plan = {"model": model, "size": gguf.stat().st_size, "text": text, "hessians": hessians}
    _make(folder)
    with (
        exclusive(folder / _LOCK),
        ForwardProcess(gguf, _CHILD, n_ctx=chunk, threads=threads, writes=[folder / HESSIANS], repack=False) as process,
    ):
        _begin(folder, plan, resume)
        told = process.ask("scout", ids=windows[0][:_SCOUT])
        inputs = tuple(Input.from_dict(one) for one in told["inputs"])
        if not inputs:
            raise SprigError(f"no weight of {gguf} is multiplied with anything that can be read; it is no language model")
        room = _room(gguf, process.n_vocab * min(chunk, 512) * 4, memory)
        wanted, notes = _wanted(inputs, room) if hessians else (frozenset(), ())
        groups = _groups(inputs, wanted, room)
        _check_disk(folder, inputs, wanted)
        work = _Work(process, folder, inputs, wanted, windows, on_progress)
        log.info("%d inputs in %d groups, %d windows", len(inputs), len(groups), len(windows))
        for i, group in enumerate(groups):
            work.measure(group, i, len(groups))
        named, tokens = tuple(datasets) or (f"sha256:{text}",), sum(map(len, windows))
        facts = Facts(model, gguf.name, text, named, len(windows), tokens, chunk, inputs, wanted, notes)
        statistics = finish(folder, facts)
    for rest in (_PLAN, _LOCK):
        (folder / rest).unlink(missing_ok=True)
    return statistics


@dataclass(frozen=True, slots=True)
class _Work:
    """A model that is running, and what it is to read."""

    process: ForwardProcess
    folder: Path
    inputs: tuple[Input, ...]
    wanted: frozenset[str]
    windows: Sequence[Sequence[int]]
    report: OnWindow

    def measure(self, group: Sequence[int], number: int, groups: int) -> None:
        """Add a group of inputs up over both folds."""
        done, total = number * len(self.windows), groups * len(self.windows)
        for f, fold in enumerate(FOLDS):
            own = self.windows[f::2]
            ready = int(self.process.ask(
                "begin", inputs=[self.inputs[i].to_dict() for i in group],
                products=sorted(self.wanted & {self.inputs[i].name for i in group}),
                files=[str(moments_file(self.folder, i, fold).absolute()) for i in group],
            )["windows"])  # fmt: skip
            done += ready
            for w in range(ready, len(own)):
                self.report(done, total)
                self.process.ask("window", ids=own[w], number=w)
                done += 1
                if (w + 1) % _KEEP == 0 or w + 1 == len(own):
                    self.process.ask("keep")
        self.report(done, total)


def _make(folder: Path) -> None:
    """Raises OutputError if something else lies there."""
    known = {_PLAN, _LOCK, HESSIANS, STATISTICS, IMATRIX}
    try:
        (folder / HESSIANS).mkdir(parents=True, exist_ok=True)
        others = sorted(p.name for p in folder.iterdir() if p.name not in known and not p.name.startswith((".", "text.")))
    except OSError as e:
        raise OutputError(f"cannot make the folder {folder}: {e.strerror}") from None
    if others:
        raise OutputError(f"{folder} holds {others[0]}, which is no statistics: name another folder")


def _begin(folder: Path, plan: dict[str, object], resume: bool) -> None:
    """Make room for a new run, or see that what lies there is the beginning of this one."""
    path = folder / _PLAN
    if resume and path.exists():
        try:
            before = json.loads(path.read_bytes())
        except (OSError, ValueError):
            before = None
        if before != plan:
            raise SprigError(f"{folder} holds the beginning of a run with another model, text or wish: leave --resume out")
        return
    (folder / STATISTICS).unlink(missing_ok=True)
    for rest in (folder / HESSIANS).iterdir():  # the folder stays: it is this one that the child may write
        rest.unlink()
    atomic_write(path, json.dumps(plan))


def _room(gguf: Path, logits: int, memory: int | None) -> int:
    """Bytes for sums: what the model and its computation leave of the memory."""
    budget = memory if memory is not None else int(_SHARE * available_memory())
    return budget - read_header(gguf).file_size - logits - _BESIDE


def _wanted(inputs: Sequence[Input], room: int) -> tuple[frozenset[str], tuple[str, ...]]:
    """The inputs whose second moments are kept. Experts have one each: only if those of all layers fit the memory together."""
    experts = [one for one in inputs if one.routed]
    size = sum(4 * one.packed for one in experts)
    if size <= room:
        return frozenset(one.name for one in inputs), ()
    note = f"the second moments of {len(experts)} inputs of experts are left out: they take {human_size(size)}"
    return frozenset(one.name for one in inputs if not one.routed), (note,)


def _groups(inputs: Sequence[Input], wanted: frozenset[str], room: int) -> list[list[int]]:
    """Places of inputs that are measured together, in the order of the computation. Raises SprigError if one does not fit."""
    groups: list[list[int]] = [[]]
    used = 0
    for i, one in enumerate(inputs):
        size = 4 * one.packed if one.name in wanted else 0
        if size > max(room, 0) and size:
            raise SprigError(
                f"the second moment of {one.name} takes {human_size(size)}, {human_size(max(room, 0))} of memory are left: "
                "give more, or leave --statistics out"
            )
        if size and used + size > room and groups[-1]:
            groups.append([])
            used = 0
        groups[-1].append(i)
        used += size
    return groups


def _check_disk(folder: Path, inputs: Sequence[Input], wanted: frozenset[str]) -> None:
    size = sum(len(FOLDS) * (8 * one.matrices * one.columns + 4 * one.packed * (one.name in wanted)) for one in inputs)
    size -= sum(_sizes(folder))
    if size > (free := free_disk(folder)):
        raise OutputError(f"{folder} needs {human_size(size)}, {human_size(free)} are free: make room or name another place")


def _sizes(folder: Path) -> Iterator[int]:
    return (p.stat().st_size for p in (folder / HESSIANS).iterdir())
