"""`sprig evaluate`, thin: arguments in, a call, the figures for a person or a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import MODEL_ANYWHERE, MODEL_HERE, SETTINGS, Json, Verbose
from agent.text import display
from pipeline.cli.options import EveryCore
from pipeline.evaluate.figures import Style
from pipeline.sources.extra import need_pipeline_extra

evaluate_app = typer.Typer(**SETTINGS)


def _windows(text: str | None) -> tuple[int | None, Style]:
    """How many at most, and whose."""
    if text is None:
        return None, "sprig"
    if text == "llama-perplexity":
        return None, "llama-perplexity"
    if not text.isdecimal() or int(text) < 1:
        raise typer.BadParameter(f"{text!r} is neither a number of windows nor llama-perplexity", param_hint="--windows")
    return int(text), "sprig"


@evaluate_app.command()
def evaluate(
    candidates: Annotated[list[str], typer.Argument(metavar="CANDIDATE...", autocompletion=model_names, help=MODEL_HERE)],
    reference: Annotated[
        str | None, typer.Option("-r", "--reference", metavar="MODEL", help=f"What they were made of. {MODEL_ANYWHERE}")
    ] = None,
    text: Annotated[
        list[Path] | None, typer.Option("--text", metavar="FILE", help="Text to read, a domain by its name; may be repeated.")
    ] = None,
    windows: Annotated[
        str | None,
        typer.Option(
            metavar="N|llama-perplexity", help="So many windows at most, or exactly those of llama-perplexity; by default all."
        ),
    ] = None,
    context: Annotated[int, typer.Option("-c", "--context", min=8, metavar="N", help="Tokens of a window.")] = 512,
    tasks: Annotated[
        list[Path] | None, typer.Option("--tasks", metavar="FILE", help="Questions (JSONL, as of ARC or GSM8K); may be repeated.")
    ] = None,
    calls: Annotated[bool, typer.Option("--calls", help="Count right tool calls, with the constraint and without.")] = False,
    speed: Annotated[bool, typer.Option("--speed", help="Measure how fast each reads and writes, and its memory.")] = False,
    report: Annotated[Path | None, typer.Option(metavar="DIR", help="Write a page with tables and plots there.")] = None,
    threads: EveryCore = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Say what files lost: perplexity, bits per byte, and how far they are from their reference, with errors."""
    count, style = _windows(windows)
    with console.command(json=json, verbose=verbose) as out:
        need_pipeline_extra()
        from agent.cli.progress import Bars
        from agent.models.find import find_model
        from agent.progress import Progress
        from pipeline.evaluate.beside import measure_beside
        from pipeline.evaluate.compare import evaluate as compare
        from pipeline.evaluate.lines import lines
        from pipeline.evaluate.report.write import check_folder, write_report
        from pipeline.evaluate.tasks.questions import read_exam
        from pipeline.evaluate.windows import read_texts

        paths = [find_model(one) for one in candidates]
        exams = [read_exam(file) for file in tasks or ()]
        if report is not None:
            check_folder(report)
        with Bars() as bars:
            found = compare(
                paths, reference=reference, texts=read_texts(text, style) if text else None, n_ctx=context, windows=count,
                style=style, threads=threads,
                on_progress=lambda done, total: bars.show(Progress("evaluate", done, total, "windows")),
            )  # fmt: skip
            beside = measure_beside(paths, exams=exams, calls=calls, speed=speed, threads=threads, on_progress=bars.show)
        told = [*lines(found), *beside.lines()]
        data = {**found.to_dict(), **beside.to_dict()}
        if report is not None:
            page = write_report(found, report, tasks=beside.tasks, calls=beside.calls, speeds=beside.speeds)
            told.append(f"report: {display(str(page))}")
            data["report"] = str(page)
        out.result(data, "\n".join(told))
