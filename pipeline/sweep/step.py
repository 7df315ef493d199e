"""One command of a sweep, run in a process of its own: on this machine or on a worker of a cluster, which shares the folder.

A worker may die at any moment, and a step may run twice at once when a scheduler takes a worker for dead. So everything is made
in a folder of that run's own and renamed into place.
"""

from __future__ import annotations

import json
import logging
import platform
import secrets
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from agent.errors import OutputError, SprigError
from agent.files import atomic_write
from pipeline.steps.command import KilledError, run_command

log = logging.getLogger(__name__)

RESULTS = "results"
_TRIES = 2  # of a process that a signal ends, such as that of the kernel when memory is short
Made = Literal["quantize", "evaluate"]


@dataclass(frozen=True, slots=True)
class SweepStep:
    """A command to run.

    Attributes:
        name: its result is results/NAME.json.
        command: of `sprig`.
        arguments: those that say what is done; where things go is added.
        key: hash of all that the result depends on.
        makes: the GGUF, below the sweep's folder; empty when it makes none.
        needs: names of the steps that must be done before.
        threads: for the computation, where the plan names none; None leaves it to the command.
    """

    name: str
    command: Made
    arguments: tuple[str, ...]
    key: str
    makes: str = ""
    needs: tuple[str, ...] = ()
    threads: int | None = None


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended.

    Attributes:
        result: the command's own --json; None when it failed.
        seconds: that it took.
        error: why it failed, in one line; empty otherwise.
    """

    name: str
    result: Mapping[str, Any] | None
    seconds: float
    error: str = ""


def finished(step: SweepStep, folder: Path) -> StepResult | None:
    """What an earlier run found, when it is of this very step and the file that it made is still there."""
    try:
        kept = json.loads((folder / RESULTS / f"{step.name}.json").read_text("utf-8"))
        if kept["key"] != step.key or (step.makes and (folder / step.makes).stat().st_size != kept["size"]):
            return None
        return StepResult(step.name, kept["result"], float(kept["seconds"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def run_step(step: SweepStep, folder: Path, work: Path) -> StepResult:
    """Run a step and keep its result in the sweep's folder. Never raises for what the command itself could not do.

    Args:
        folder: of the sweep, the same place for every worker.
        work: a folder in it that is there as long as anybody waits; when it is gone, the step ends.
    """
    if (done := finished(step, folder)) is not None:  # a worker that was taken for dead has done it
        return done
    began = time.monotonic()
    own = work / f"{step.name[:100]}.{secrets.token_hex(4)}"
    try:
        own.mkdir()
        result = _try(step, own, work)
        size = _publish(own, folder / step.makes, result) if step.makes else 0
        seconds = round(time.monotonic() - began, 3)
        kept = {"key": step.key, "command": step.command, "arguments": step.arguments, "size": size, "seconds": seconds}
        atomic_write(folder / RESULTS / f"{step.name}.json", json.dumps({**kept, "result": result}, indent=1) + "\n")
        return StepResult(step.name, result, seconds)
    except (SprigError, OSError) as e:
        if not folder.is_dir():
            error = f"{platform.node()} does not see {folder}; all workers must share it, at the same path"
        else:
            error = " ".join(str(e).split()) if work.is_dir() else "nobody waits for it any longer"
        return StepResult(step.name, None, round(time.monotonic() - began, 3), error)
    finally:
        shutil.rmtree(own, ignore_errors=True)


def take_away(work: Path) -> None:
    """Take a work folder away: at once for the steps that look whether it is there."""
    gone = work.with_name(f"{work.name}.gone")
    with suppress(OSError):
        work.rename(gone)
    shutil.rmtree(gone, ignore_errors=True)


def _try(step: SweepStep, own: Path, work: Path) -> dict[str, Any]:
    def alive() -> None:
        if not work.is_dir():
            raise OutputError(f"{work} is gone")

    where = [f"--out={own / Path(step.makes).name}"] if step.makes else []
    threads = [f"--threads={step.threads}"] if step.threads else []  # in front: what the plan says itself comes later and wins
    for left in reversed(range(_TRIES)):
        try:
            return run_command(step.command, [*threads, *step.arguments, *where], own, alive=alive).result
        except KilledError as e:
            if not left:
                raise
            log.warning("%s: %s; once more", step.name, e)
    raise AssertionError


def _publish(own: Path, final: Path, result: dict[str, Any]) -> int:
    """Move the file and its card into place, and say so in the result. The size of the file in bytes."""
    for field, place in (("path", final), ("card", final.with_suffix(".md"))):
        made = Path(str(result.get(field, "")))
        if made.parent == own and made.is_file():
            made.replace(place)
            result[field] = str(place)
    result["out"] = str(final)
    return final.stat().st_size
