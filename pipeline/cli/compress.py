"""`sprig compress`, thin: a model and a size, or a plan, in; the best file of that size, and a report, out."""

from __future__ import annotations

from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.completion import device_names
from agent.cli.options import MODEL_ANYWHERE, SETTINGS, Json, Verbose
from agent.errors import SprigError
from agent.files import atomic_write
from agent.text import display
from agent.text.duration import told_time
from pipeline.cli.options import Base, Revision
from pipeline.sources.extra import need_pipeline_extra

if TYPE_CHECKING:
    from pipeline.compress.plan import CompressPlan
    from pipeline.compress.report import Foreseen
    from pipeline.compress.stage import StageAnswer
    from pipeline.compress.stages import PlannedStage

_SECONDS_BETWEEN_LINES = 10.0

compress_app = typer.Typer(**SETTINGS)
_ON = "What it must run on, as pi5; see sprig fit --devices."
_Device = Annotated[str | None, typer.Option("-d", "--device", metavar="NAME", autocompletion=device_names, help=_ON)]


@compress_app.command()
def compress(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL|PLAN.toml", help=f"{MODEL_ANYWHERE} Or a plan: docs/compression.md."),
    ],
    size: Annotated[str | None, typer.Option(metavar="SIZE", help="Of the file at most, as 300MB.")] = None,
    bpw: Annotated[float | None, typer.Option(metavar="BITS", help="The same, in bits for each weight of the model.")] = None,
    device: _Device = None,
    data: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Text, or conversations (JSONL), like what it will read; may be repeated."),
    ] = None,
    time: Annotated[
        str | None, typer.Option(metavar="TIME", help="That all of it may take, as 2h: what is left teaches what was cut.")
    ] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="File or folder; by default the store.")] = None,
    work: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where everything else goes; by default a folder beside the file.")
    ] = None,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page with tables and plots there.")] = None,
    save_plan: Annotated[
        Path | None, typer.Option(metavar="PLAN.toml", help="Write the plan there, to be edited and run.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the plan and stop.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Threads of every stage; by default every core.")
    ] = None,
    revision: Revision = None,
    base: Base = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make the best file of a size: prune, let it learn, calibrate, allocate, round, compare. Run it again to go on."""
    budgets = {"--size": size, "--bpw": bpw, "--device": device}
    said: dict[str, Any] = {**budgets, "--data": data, "--time": time, "--revision": revision, "--base": base}
    is_plan = model.lower().endswith(".toml")
    _check_usage(budgets, {**said, "--threads": threads}, is_plan)
    with console.command(json=json, verbose=verbose) as out_of:
        need_pipeline_extra()
        from pipeline.compress.compress import compress as run
        from pipeline.compress.compress import foresee
        from pipeline.compress.plan import plan_text

        plan = _read(model) if is_plan else _wanted(model, said, threads)
        if dry_run or save_plan is not None:
            foreseen = foresee(plan, out=out, work=work)
            if save_plan is not None:
                notes = (foreseen.why, *foreseen.notes)
                atomic_write(save_plan, plan_text(foreseen.plan, notes, save_plan.absolute().parent))
                out_of.say(display(f"plan: {save_plan}"))
            out_of.result(foreseen.to_dict(), "\n".join(foreseen.lines()))
            return
        lines = _Progress(out_of)
        done = run(plan, out=out, work=work, report=report, on_plan=lines.plan, on_stage=lines.stage, on_line=lines.line)
        out_of.result(done.to_dict(), "\n".join(done.lines()))


def _check_usage(budgets: dict[str, Any], said: dict[str, Any], is_plan: bool) -> None:
    given = [name for name, value in budgets.items() if value is not None]
    if is_plan and (other := next((name for name, value in said.items() if value), None)):
        raise typer.BadParameter(f"{other} stands in the plan; edit that, or name the model instead of the plan")
    if not is_plan and len(given) != 1:
        raise typer.BadParameter("give one of --size, --bpw and --device" if not given else f"give one of {', '.join(given)}")


def _read(path: str) -> CompressPlan:
    from pipeline.compress.plan import COMMANDS, read_compress_plan
    from pipeline.steps.commands import command_options

    return read_compress_plan(Path(path), {name: command_options(name) for name in COMMANDS})


def _wanted(model: str, said: dict[str, Any], threads: int | None) -> CompressPlan:
    """The plan of a command line. Raises SprigError."""
    from agent.files import parse_size
    from pipeline.compress.plan import CompressPlan, read_time

    size, bits, time = said["--size"], said["--bpw"], said["--time"]
    try:
        nbytes = None if size is None else parse_size(size)
    except ValueError:
        raise SprigError(f"--size: {display(size)!r} is no size such as 300MB or 1.5GB") from None
    if bits is not None and not 0 < bits <= 32:
        raise SprigError(f"--bpw: {bits:g} bits for each weight cannot be; it is a number such as 4.5")
    return CompressPlan(
        model, nbytes, bits, said["--device"], said["--base"], said["--revision"],
        tuple(path.absolute() for path in said["--data"] or ()), None if time is None else read_time(time), threads,
    )  # fmt: skip


class _Progress:
    """The plan, a line when a stage begins and ends, and what it says meanwhile, on standard error."""

    def __init__(self, out_of: console.Console) -> None:
        self._out, self._last = out_of, 0.0

    def plan(self, foreseen: Foreseen) -> None:
        for line in foreseen.lines():
            self._out.say(line)

    def stage(self, stage: PlannedStage, answer: StageAnswer | None, done: int, total: int) -> None:
        if answer is None:
            how = f"begins, about {told_time(stage.forecast.seconds)}"
        elif answer.error:
            how = f"failed: {answer.error}"
        else:
            how = "was done before" if answer.kept else f"took {told_time(answer.seconds)}"
        self._out.say(display(f"{done}/{total} {stage.name} {how}"))

    def line(self, stage: str, line: str) -> None:
        """What a stage says, now and then: it runs for minutes or hours."""
        now = monotonic()
        if now - self._last >= _SECONDS_BETWEEN_LINES:
            self._last = now
            self._out.say(display(f"    {stage}: {line}"))
