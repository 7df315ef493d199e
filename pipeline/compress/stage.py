"""One stage, in a folder of its own that says what it is of: done when its answer is there, else begun or gone on with."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from agent.errors import SprigError
from agent.files import atomic_write, write_error
from pipeline.calibrate.calibrate import TEXT
from pipeline.compress.stages import BITS, IMATRIX, STATISTICS, PlannedStage
from pipeline.steps.command import CommandAnswer, run_command

_KEY, _ANSWER, _SAID = "key", "answer.json", "said"
_END_SECONDS = 20.0  # that a command gets after Ctrl-C to keep what it has

OnLine = Callable[[str], None]


class StageRunner(Protocol):
    """Carries out a stage in its folder, which may hold what a killed run left there.

    Raises:
        SprigError: it could not be done.
    """

    def __call__(self, stage: PlannedStage, home: Path, on_line: OnLine) -> CommandAnswer: ...


@dataclass(frozen=True, slots=True)
class StageAnswer:
    """How a stage ended.

    Attributes:
        result: the command's own --json.
        seconds: of its last run; ``processor`` of them summed over cores, 0 where that was not measured.
        memory: bytes at the peak; 0 where that was not measured.
        size: bytes of what it made.
        kept: whether an earlier run had done it.
        error: why it failed, in one line; empty otherwise.
    """

    name: str
    result: Mapping[str, Any]
    seconds: float = 0.0
    processor: float = 0.0
    memory: int = 0
    size: int = 0
    kept: bool = False
    error: str = ""


def answered(stage: PlannedStage, work: Path) -> StageAnswer | None:
    """What an earlier run found, when it is of this very stage and what it made is still there."""
    try:
        told = json.loads((work / stage.name / _ANSWER).read_text("utf-8"))
        if told["key"] != stage.key or (stage.makes and size_of(stage.place(work)) != told["size"]):
            return None
        used = float(told["seconds"]), float(told["processor"]), int(told["memory"]), int(told["size"])
        return StageAnswer(stage.name, told["result"], *used, kept=True)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_stage(stage: PlannedStage, work: Path, runner: StageRunner, on_line: OnLine) -> StageAnswer:
    """Run a stage that is not done.

    Raises:
        SprigError: it could not be done; what it left is gone on with by the next run.
    """
    home, began = work / stage.name, time.monotonic()
    _begin(home, stage.key)
    if stage.whole and stage.place(work).exists():  # it was killed between the last rename and its answer
        answer = CommandAnswer({"path": str(stage.place(work))})
    else:
        try:
            answer = runner(stage, home, on_line)
        except OSError as e:
            raise SprigError(f"{stage.name} could not be started: {e.strerror or e}") from None
    seconds, size = round(time.monotonic() - began, 3), size_of(stage.place(work)) if stage.makes else 0
    used = {"seconds": seconds, "processor": answer.processor, "memory": answer.memory, "size": size}
    kept = {"key": stage.key, "command": stage.command, "arguments": stage.arguments, **used, "result": answer.result}
    atomic_write(home / _ANSWER, json.dumps(kept, indent=1) + "\n")
    return StageAnswer(stage.name, answer.result, seconds, answer.processor, answer.memory, size)


def _begin(home: Path, key: str) -> None:
    """Make the folder; what another stage of this name has left in it is removed."""
    try:
        if (home / _KEY).read_text("utf-8") == key:
            (home / _ANSWER).unlink(missing_ok=True)
            return
    except (OSError, UnicodeDecodeError):
        pass
    try:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(parents=True)
    except OSError as e:
        raise write_error(e, home) from None
    atomic_write(home / _KEY, key)


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder. OSError when there is none."""
    if path.is_dir():
        return sum(one.stat().st_size for one in path.rglob("*") if one.is_file())
    return path.stat().st_size


def run_here(stage: PlannedStage, home: Path, on_line: OnLine) -> CommandAnswer:
    """A stage as `sprig` carries it out: a command in a process of its own."""
    if stage.command == BITS:
        from pipeline.compress.bits import bits_command

        return CommandAnswer(bits_command(stage.arguments))
    scratch = home / _SAID
    scratch.mkdir(exist_ok=True)
    where = [f"--out={home / stage.makes}"] if stage.makes else []
    if stage.command == "calibrate":
        where = [f"--out={home / IMATRIX}", f"--statistics={home / STATISTICS}"]
        _lend_text(stage, home)
    again = ["--resume"] if stage.resumes else []
    try:
        return run_command(stage.command, [*stage.arguments, *again, *where], scratch, on_line=on_line, end_seconds=_END_SECONDS)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _lend_text(stage: PlannedStage, home: Path) -> None:
    """Let a calibration read what an earlier one had its model write: a model that lost neurons does not write well."""
    text = home.parent / stage.lender / STATISTICS / TEXT if stage.lender else None
    own = home / STATISTICS / TEXT
    if text is not None and text.exists() and not own.exists():
        own.parent.mkdir(exist_ok=True)
        atomic_write(own, text.read_bytes())
