"""`sprig calibrate`, thin: arguments in, a call, the result for a person or a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import MODEL_ANYWHERE, SETTINGS, Json, Memory, Threads, Verbose
from agent.text import display
from pipeline.cli.options import Base, Offline, Resume, Revision, Token
from pipeline.sources.extra import need_pipeline_extra

calibrate_app = typer.Typer(**SETTINGS)

SAYS = {"write": "the model writes its text", "measure": "activations are measured"}


@calibrate_app.command()
def calibrate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", autocompletion=model_names, help=f"{MODEL_ANYWHERE} Left out, --merge only merges."),
    ] = None,
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="Importance matrix to write (GGUF).")] = Path(
        "imatrix.gguf"
    ),
    text: Annotated[
        list[Path] | None,
        typer.Option("--text", metavar="FILE", help="Text in UTF-8; may be repeated. By default the model writes it itself."),
    ] = None,
    tokens: Annotated[int, typer.Option(min=128, metavar="N", help="Tokens of text at most.")] = 8192,
    statistics: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep second moments too, for better rounding and for budgets.")
    ] = None,
    head: Annotated[bool, typer.Option("--head", help="Put the input of the output head into the file too.")] = False,
    merge: Annotated[
        list[Path] | None, typer.Option("--merge", metavar="FILE", help="Imatrix whose sums are added; may be repeated.")
    ] = None,
    resume: Resume = False,
    memory: Memory = None,
    threads: Threads = None,
    base: Base = None,
    revision: Revision = None,
    token: Token = None,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure what a model's weights are multiplied with: llama.cpp's imatrix, and second moments for better rounding."""
    if model is None and len(merge or []) < 2:
        raise typer.BadParameter("name a model, or two files to merge", param_hint="MODEL")
    with console.command(json=json, verbose=verbose) as out_of:
        need_pipeline_extra()
        from agent.cli.progress import Bars
        from pipeline.calibrate.calibrate import calibrate as run
        from pipeline.calibrate.calibrate import words

        with Bars(SAYS) as bars:
            found = run(
                model, out, texts=text or [], tokens=tokens, statistics=statistics, head=head, merge=merge or [], resume=resume,
                threads=threads, memory=memory, on_step=bars.show,
                base=base, revision=revision, token=token, offline=offline,
            )  # fmt: skip
        rows = [*words(found), *(("note", note) for note in found.notes)]
        out_of.result(found.to_dict(), "\n".join(f"{label:<14}{display(value)}" for label, value in rows))
