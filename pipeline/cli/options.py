"""Options that several commands have: of reading a model, of a run that takes long, and the name of a recipe."""

from __future__ import annotations

from typing import Annotated

import typer

from agent.errors import RecipeError
from pipeline.recipes.names import RECIPES, find_recipe

Revision = Annotated[str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")]
Token = Annotated[
    str | None,
    typer.Option("--token", metavar="TOKEN", help="Hub token for gated models; by default HF_TOKEN or the saved login."),
]
Base = Annotated[str | None, typer.Option(metavar="MODEL", help="Of an adapter (LoRA): the model to merge it into.")]
Offline = Annotated[bool, typer.Option("--offline", help="Use only what is in the Hub cache already.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on where a killed run was.")]
EveryCore = Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads; by default every core.")]


def recipe_names(incomplete: str) -> list[str]:
    """What a shell may offer for a recipe."""
    return [name for name in RECIPES if name.startswith(incomplete.upper())]


def known_recipe(name: str | None) -> str | None:
    """The name as it was said, when there is such a recipe: the plan notes what it was taken as."""
    try:
        if name is not None:
            find_recipe(name)
    except RecipeError as e:
        raise typer.BadParameter(str(e)) from None
    return name
