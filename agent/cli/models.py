"""`sprig models`: the models of the store. List, show and remove them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import home
from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose, leave_to
from agent.errors import SprigError
from agent.files import human_size
from agent.models import store
from agent.text import display

if TYPE_CHECKING:
    from agent.models.memory import MemoryBudget

models_app = typer.Typer(**SETTINGS, invoke_without_command=True, help="List, show and remove the models in the store.")


@models_app.callback()
def models(ctx: typer.Context, json: Json = False, verbose: Verbose = False) -> None:
    """List, show and remove the models in the store (SPRIG_HOME/models)."""
    if not leave_to(ctx, json, verbose):
        models_list(json, verbose)


@models_app.command("list")
def models_list(json: Json = False, verbose: Verbose = False) -> None:
    """List the models: size, recipe, architecture, context, whether one fits this machine's memory, source."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.models.memory import MemoryBudget

        budget = MemoryBudget.of(None)
        rows = [_facts(model, budget) for model in store.stored_models()]
        out.result({"folder": str(home.models()), "models": rows}, _table(rows))


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="As `sprig models` lists it.")],
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show one model: its files, and what `sprig inspect` tells of it."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.cli.inspect_text import report
        from agent.gguf.inspection import inspect_gguf
        from agent.models.memory import MemoryBudget

        model = store.stored_model(name)
        data = {**_facts(model, MemoryBudget.of(None)), "files": [str(path) for path in model.files]}
        text = f"{display(model.name)} is not finished: `sprig quantize … --resume` goes on with it"
        if model.finished:
            found = inspect_gguf(model.path)
            data["inspection"], text = found.to_dict(), report(found)
        out.result(data, "\n".join([text, "", "files", *(f"  {display(path)}" for path in data["files"])]))


@models_app.command("remove")
def models_remove(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="As `sprig models` lists them.")],
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Do not ask.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove models, each with its card and leftovers."""
    with console.command(json=json, verbose=verbose) as out:
        found = list({model.name: model for model in map(store.stored_model, names)}.values())
        if not yes:
            if json or not sys.stdin.isatty():
                raise SprigError("nothing was removed: say --yes where nobody can be asked")
            for model in found:
                files = ", ".join(display(path.name) for path in model.files)
                out.say(f"{display(model.name)}, {human_size(model.size)}: {files}")
            if not typer.confirm(f"Remove {'it' if len(found) == 1 else f'these {len(found)}'}?", err=True):
                raise SprigError("nothing was removed")
        freed = sum(store.remove_model(model) for model in found)
        data = {"removed": [model.name for model in found], "freed": freed}
        out.result(data, f"removed {', '.join(display(model.name) for model in found)}; {human_size(freed)} are free again")


def _facts(model: store.StoredModel, budget: MemoryBudget) -> dict[str, Any]:
    """What the list says of a model. ``problem`` is None when all is well; ``needs`` and ``fits`` are None for what is no
    model to chat with."""
    from agent.models.choices import look_at

    try:
        choice = look_at(model.path if model.finished else model.part, budget)
        file, why, needs, fits = choice.file, choice.why, choice.need or None, choice.fits if choice.need else None
    except OSError:  # removed meanwhile, or a journal without its output
        file, why, needs, fits = None, "not finished: its output is gone; remove it", None, None
    return {
        "name": model.name,
        "path": str(model.path),
        "size": model.size,
        "finished": model.finished,
        "recipe": (file and file.recipe) or None,
        "architecture": file and file.architecture,
        "context": file and file.n_ctx_train,
        "source": (file and file.source) or None,
        "commit": (file and file.commit) or None,
        "problem": None if file else why,
        "needs": needs,
        "fits": fits,
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a model; what cannot be read or is not finished says so."""
    from agent.cli.inspect_text import fit

    if not rows:
        return f"no models in {home.models()}; `sprig quantize MODEL` makes one"
    names = max(4, min(40, max(len(str(row["name"])) for row in rows)))
    lines = [f"{'name':<{names}}  {'size':>8}  {'recipe':<7} {'arch':<10} {'context':>8}  {'fits':<4}  source"]
    for row in rows:
        head = f"{fit(row['name'], names):<{names}}  {human_size(row['size']):>8}"
        if row["problem"]:
            lines.append(f"{head}  {fit(row['problem'], 60)}")
            continue
        facts = f"{fit(row['recipe'] or '-', 7):<7} {fit(row['architecture'], 10):<10} {row['context']:>8,}"
        fits = {True: "yes", False: "no"}.get(row["fits"], "-")
        lines.append(f"{head}  {facts}  {fits:<4}  {fit(row['source'] or '-', 60)}")
    return "\n".join(lines)
