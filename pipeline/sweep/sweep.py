"""Runs a plan: every step as soon as what it needs is done, on any executor; what an earlier run finished is not done again."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, wait
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from agent.files import exclusive, write_error
from pipeline.sweep.plan import SweepPlan
from pipeline.sweep.step import RESULTS, StepResult, SweepStep, finished, run_step, take_away
from pipeline.sweep.steps import MODELS, REFERENCES, steps_of

OnStep = Callable[[StepResult, int, int], None]


def sweep(
    plan: SweepPlan, folder: Path, executor: Executor, *, threads: int | None = None, on_step: OnStep = lambda *_: None
) -> dict[str, StepResult]:
    """Run what is not finished yet.

    Args:
        folder: where models, results and references go; every worker must see it at this path.
        executor: runs ``run_step``; it is not shut down.
        threads: of one step, where the plan says nothing.
        on_step: called with each step that ends, how many have ended by now (those of earlier runs too), and how many there are.

    Returns:
        step -> how it ended. A step that failed is tried again by the next run.

    Raises:
        OutputError: the folder cannot be written, or another run is at work in it.
        KeyboardInterrupt: what is running is ended; what is finished is kept.
    """
    folder = folder.absolute()
    steps = steps_of(plan, folder)
    with _at_work(folder) as work:
        ended = {name: done for name, step in steps.items() if (done := finished(step, folder)) is not None}
        waiting = {name: replace(step, threads=threads) for name, step in steps.items() if name not in ended}
        running: dict[Future[StepResult], str] = {}
        while waiting or running:
            for step in _ready(waiting, ended):
                del waiting[step.name]
                if failed := next((need for need in step.needs if ended[need].error), None):
                    ended[step.name] = StepResult(step.name, None, 0.0, f"{failed} failed, which it needs")
                    on_step(ended[step.name], len(ended), len(steps))
                else:
                    running[executor.submit(run_step, step, folder, work)] = step.name
            if running:
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    name = running.pop(future)
                    ended[name] = _result(name, future)
                    on_step(ended[name], len(ended), len(steps))
    return ended


def _ready(waiting: Mapping[str, SweepStep], ended: Mapping[str, StepResult]) -> list[SweepStep]:
    return [step for step in waiting.values() if all(need in ended for need in step.needs)]


def _result(name: str, future: Future[StepResult]) -> StepResult:
    try:
        return future.result()
    except CancelledError:
        return StepResult(
            name, None, 0.0, "it was called off: the scheduler of the cluster is gone, or somebody stopped it there"
        )
    except Exception as e:  # the executor's own: every worker that took it died, it cannot be sent, ...
        said = " ".join(str(e).split())
        return StepResult(name, None, 0.0, f"no worker could run it: {type(e).__name__}{f': {said}' if said else ''}")


@contextmanager
def _at_work(folder: Path) -> Iterator[Path]:
    """The folder of one run, held against every other run; a step ends when it is gone."""
    try:
        for place in (MODELS, REFERENCES, RESULTS):
            (folder / place).mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(e, folder) from None
    with exclusive(folder / ".lock"):
        for left in folder.glob(".work-*"):
            take_away(left)
        work = folder / f".work-{secrets.token_hex(4)}"
        try:
            work.mkdir()
            yield work
        except KeyboardInterrupt:
            raise KeyboardInterrupt("what is finished is kept; the same command goes on from there") from None
        finally:
            take_away(work)
