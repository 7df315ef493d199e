"""`sprig sweep`: many models, recipes, budgets and evaluations by one plan, here or on a cluster."""

from __future__ import annotations

import json as json_text
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose
from agent.text import display
from pipeline.sources.extra import need_pipeline_extra

if TYPE_CHECKING:
    from pipeline.sweep.options import CommandOptions
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
        from pipeline.sweep.cluster import cluster_executor
        from pipeline.sweep.plan import read_plan
        from pipeline.sweep.report import write_reports
        from pipeline.sweep.sweep import sweep as run
        from pipeline.sweep.table import first_files, rows_of, table_text

        wanted = read_plan(plan, _options("quantize"), _options("evaluate"))
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


def _options(command: str) -> CommandOptions:
    """What a command of the pipeline takes, as a plan may say it."""
    from pipeline.sweep.options import CommandOption

    found: Any = typer.main.get_command(getattr(import_module(f"pipeline.cli.{command}"), f"{command}_app"))
    return {
        one.name: CommandOption(
            max(one.opts, key=len),
            "nothing" if one.is_flag else "values" if one.multiple else "value",
            path="path" in type(one.type).__name__.lower(),
        )
        for one in found.params
        if one.param_type_name == "option"
    }
