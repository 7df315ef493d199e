"""`sprig inspect`, thin: arguments in, a call, the result for a person or a script."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import MODEL_ANYWHERE, SETTINGS, Json, Verbose
from agent.errors import SprigError
from agent.text import display
from pipeline.cli.options import Offline, Revision, Token

inspect_app = typer.Typer(**SETTINGS)


@inspect_app.command()
def inspect(
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=model_names, help=MODEL_ANYWHERE)],
    tensors: Annotated[bool, typer.Option("--tensors", help="List every tensor.")] = False,
    template: Annotated[bool, typer.Option("--template", help="Print the chat template whole, and nothing else.")] = False,
    revision: Revision = None,
    token: Token = None,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show what is in a GGUF or a model: keys, tensors, types, sizes, vocabulary, template. No weight is read."""
    with console.command(json=json, verbose=verbose) as out_of:
        from agent.cli.inspect_text import report
        from agent.templates.chat_template import forgeable
        from pipeline.inspect_model import inspect_model

        found = inspect_model(model, revision=revision, token=token, offline=offline)
        if not template:
            found = replace(found, notes=(*found.notes, *forgeable(found.templates)))
            out_of.result(found.to_dict(), report(found, tensors=tensors))
            return
        if not found.templates:
            raise SprigError(f"{model} has no chat template")
        named = len(found.templates) > 1
        text = "\n\n".join(f"{{# {name} #}}\n{source}" if named else source for name, source in found.templates.items())
        out_of.result({"templates": dict(found.templates)}, display(text, lines=True))
