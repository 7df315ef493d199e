"""Runs stages one after another; what is done is not done again, and what one candidate cannot do holds up no other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import OutputError, SprigError
from agent.files import exclusive, free_disk, human_size, write_error
from pipeline.compress.stage import OnLine, StageAnswer, StageRunner, answered, run_stage, size_of
from pipeline.compress.stages import Job, PlannedStage

OnStage = Callable[[PlannedStage, StageAnswer | None, int, int], None]  # None: it begins; how many are done, of how many


@contextmanager
def at_work(work: Path) -> Iterator[None]:
    """The work folder, held against every other run.

    Raises:
        OutputError: it cannot be made, or another run is at work in it.
        KeyboardInterrupt: with words that say what is kept.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(e, work) from None
    with exclusive(work / ".lock"):
        try:
            yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt("what is finished is kept; the same command goes on from there") from None


def run_job(
    job: Job, work: Path, runner: StageRunner, *, on_stage: OnStage, on_line: Callable[[str, str], None]
) -> dict[str, StageAnswer]:
    """Run what is not done yet.

    Args:
        work: the folder, held by ``at_work``.
        on_line: called with the name of a stage and a line of its progress.

    Returns:
        stage -> how it ended; a stage that failed, or needs one that did, has an error.
    """
    ended: dict[str, StageAnswer] = {}
    for done, stage in enumerate(job.stages.values(), 1):
        if (kept := answered(stage, work)) is not None:
            ended[stage.name] = kept
        elif failed := next((need for need in stage.needs if ended[need].error), None):
            ended[stage.name] = StageAnswer(stage.name, {}, error=f"{failed} failed, which it needs")
            continue  # it was said of the stage that failed
        else:
            on_stage(stage, None, done, len(job.stages))
            ended[stage.name] = _tried(stage, work, runner, lambda line, name=stage.name: on_line(name, line))  # type: ignore[misc]
        on_stage(stage, ended[stage.name], done, len(job.stages))
    return ended


def _tried(stage: PlannedStage, work: Path, runner: StageRunner, on_line: OnLine) -> StageAnswer:
    try:
        return run_stage(stage, work, runner, on_line)
    except SprigError as e:
        return StageAnswer(stage.name, {}, error=" ".join(str(e).split()))


def left_to_do(job: Job, work: Path) -> list[PlannedStage]:
    """The stages that a run would run."""
    return [stage for stage in job.stages.values() if answered(stage, work) is None]


def disk_needed(job: Job, work: Path) -> int:
    """Bytes that the stages which are left need beside what is there: what stays of each, and the most that one needs besides."""
    needed = most = 0
    for stage in left_to_do(job, work):
        needed += max(0, stage.forecast.kept - _held(work / stage.name))
        most = max(most, stage.forecast.scratch)
    return needed + most


def _held(home: Path) -> int:
    try:
        return size_of(home)
    except OSError:
        return 0


def refuse_full_disk(job: Job, work: Path) -> None:
    """Raise OutputError if the disk of the work folder has too little room."""
    needed, free = disk_needed(job, work), free_disk(work)
    if needed > free:
        raise OutputError(
            f"the work folder {work} needs about {human_size(needed)} more, and {human_size(free)} are free: make room, or name "
            "another place with --work"
        )
