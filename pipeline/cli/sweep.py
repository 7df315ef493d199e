"""`sprig sweep`: many models, recipes, budgets and evaluations by one plan, here or on a cluster."""

from __future__ import annotations

import json as json_text
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose
from agent.text import display
from pipeline.sources.extra import need_pipeline_extra

if TYPE_CHECKING:
    from pipeline.sweep.step import StepResult

sweep_app = typer.Typer(**SETTINGS)


@sweep_app.command()
def sweep(
    plan: Annotated[Path, typer.Argument(metavar="PLAN.toml", help="What to make and measure; see docs/fidelity.md.")],
    out: Annotated[
        Path | None, typer.Option("-o", "--out", metavar="DIR", help="Where it goes; by default a folder beside the plan.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Dask scheduler whose workers do it, as tcp://10.0.0.5:8786.")
    ] = None,
    jobs: Annotated[int, typer.Option("-j", "--jobs", min=1, metavar="N", help="Processes at once on this machine.")] = 1,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make and measure many files by a plan. Run it again to go on: what is finished is not done twice."""
    with console.command(json=json, verbose=verbose) as out_of:
        need_pipeline_extra()
        from agent.device.processor import cores
        from agent.files import atomic_write
        from pipeline.steps.commands import command_options
        from pipeline.sweep.cluster import cluster_executor
        from pipeline.sweep.plan import read_plan
        from pipeline.sweep.report import write_reports
        from pipeline.sweep.sweep import sweep as run
        from pipeline.sweep.table import first_files, rows_of, table_text

        wanted = read_plan(plan, command_options("quantize"), command_options("evaluate"))
        folder = (out or plan.with_suffix("")).absolute()

        def told(step: StepResult, done: int, steps: int) -> None:
            how = f"failed: {step.error}" if step.error else f"{step.seconds:.1f} s"
            out_of.say(display(f"{done}/{steps} {step.name} {how}"))

        threads = max(1, cores() // jobs) if jobs > 1 and scheduler is None else None
        with cluster_executor(scheduler) if scheduler else ThreadPoolExecutor(jobs) as executor:
            ended = run(wanted, folder, executor, threads=threads, on_step=told)
        rows = rows_of(wanted.files, ended)
        failed = sum(bool(row.error) for row in rows)
        pages = write_reports(rows, first_files(wanted.files), folder)
        table = {
            "plan": str(plan),
            "folder": str(folder),
            "failed": failed,
            "files": [row.to_dict() for row in rows],
            "reports": {model: str(page) for model, page in pages.items()},
        }
        atomic_write(folder / "table.json", json_text.dumps(table, indent=1, default=str) + "\n")
        out_of.result(table, "\n".join([table_text(rows), *(display(f"report: {page}") for page in pages.values())]))
        if failed:
            out_of.say(f"sprig: {failed} of {len(rows)} failed; run the same command again to try them once more")
            raise SystemExit(console.FAILED)
