"""`sprig models`: the models of the store. List, show and remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import home
from agent.cli import console
from agent.cli.completion import stored_names
from agent.cli.options import SETTINGS, Json, Verbose, Yes, confirm, leave_to
from agent.files import human_size
from agent.models import store
from agent.models.origin import how_to_finish, read_origin
from agent.text import display

if TYPE_CHECKING:
    from pathlib import Path

    from agent.models.elsewhere import ForeignModel
    from agent.models.memory import MemoryBudget

models_app = typer.Typer(**SETTINGS, invoke_without_command=True, help="List, show and remove the models in the store.")


_Everywhere = Annotated[
    bool, typer.Option("--everywhere", help="List the GGUFs of the Hub's cache, Ollama and LM Studio on this machine too.")
]


@models_app.callback()
def models(ctx: typer.Context, everywhere: _Everywhere = False, json: Json = False, verbose: Verbose = False) -> None:
    """List, show and remove the models in the store (SPRIG_HOME/models)."""
    if not leave_to(ctx, json or everywhere, verbose):
        models_list(everywhere, json, verbose)


@models_app.command("list")
def models_list(everywhere: _Everywhere = False, json: Json = False, verbose: Verbose = False) -> None:
    """List the models, and whether each fits this machine."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.models.memory import MemoryBudget

        budget = MemoryBudget.of(None)
        rows = [_facts(model, budget) for model in store.stored_models()]
        data, text = {"folder": str(home.models()), "models": rows}, _table(rows)
        if everywhere:
            from agent.models.elsewhere import foreign_models

            others = [_foreign_facts(model, budget) for model in foreign_models()]
            data |= {"elsewhere": others}
            more = _table(others, widest=100) if others else "no GGUF in the Hub's cache, of Ollama or of LM Studio"
            text = f"{text}\n\n{more}"
        out.result(data, text)


@models_app.command("show")
def models_show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=stored_names, help="As `sprig models` lists it.")],
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Show one model: its files, and what `sprig inspect` tells of it."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.cli.inspect_text import report
        from agent.gguf.inspection import inspect_gguf
        from agent.models.memory import MemoryBudget
        from agent.templates.chat_template import forgeable

        model = store.stored_model(name)
        data = {**_facts(model, MemoryBudget.of(None)), "files": [str(path) for path in model.files]}
        text = display(f"{model.name} is not finished: {how_to_finish(model.part)}")
        if model.finished:
            found = inspect_gguf(model.path)
            found = replace(found, notes=(*found.notes, *forgeable(found.templates)))
            data["inspection"], text = found.to_dict(), report(found)
            if origin := read_origin(model.path):
                files = ", ".join(origin.files)
                text += display(f"\n\npulled from {origin.repo_id} at {origin.commit}: {files}", lines=True)
        out.result(data, "\n".join([text, "", "files", *(f"  {display(path)}" for path in data["files"])]))


@models_app.command("remove")
def models_remove(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME...", autocompletion=stored_names, help="As `sprig models` lists them.")
    ],
    yes: Yes = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Remove models, each with its card and leftovers."""
    with console.command(json=json, verbose=verbose) as out:
        found = list({model.name: model for model in map(store.stored_model, names)}.values())
        if not yes:
            lines = (f"{m.name}, {human_size(m.size)}: {', '.join(path.name for path in m.files)}" for m in found)
            confirm(out, lines, f"Remove {'it' if len(found) == 1 else f'these {len(found)}'}?", "nothing was removed")
        freed = sum(store.remove_model(model) for model in found)
        data = {"removed": [model.name for model in found], "freed": freed}
        out.result(data, f"removed {', '.join(display(model.name) for model in found)}; {human_size(freed)} are free again")


def _facts(model: store.StoredModel, budget: MemoryBudget) -> dict[str, Any]:
    """What the list says of a model of the store."""
    origin = read_origin(model.path)
    try:
        facts = _file_facts(model.path if model.finished else model.part, budget)
    except OSError:  # removed meanwhile, or a journal without its output
        facts = _file_facts(None, budget)
    if origin is not None:  # what was pulled as it is may name a source of its own: what it was made of
        facts |= {"source": facts["source"] or origin.repo_id, "commit": facts["commit"] or origin.commit}
    return {
        "name": model.name,
        "path": str(model.path),
        "size": model.size,
        "finished": model.finished,
        "origin": asdict(origin) if origin else None,
        **facts,
    }


def _foreign_facts(model: ForeignModel, budget: MemoryBudget) -> dict[str, Any]:
    """What the list says of a model of another program."""
    try:
        facts, size = _file_facts(model.path, budget), model.path.stat().st_size
    except OSError:
        facts, size = _file_facts(None, budget), 0
    return {"name": model.name, "path": str(model.path), "size": size, **facts, "source": model.place}


def _file_facts(path: Path | None, budget: MemoryBudget) -> dict[str, Any]:
    """What a file tells. ``problem`` is None when all is well; ``needs`` and ``fits`` are None for what is no model to chat
    with. OSError when it is not there; None stands for one that is gone."""
    from agent.models.choices import look_at

    choice = look_at(path, budget) if path is not None else None
    file = choice.file if choice else None
    return {
        "recipe": (file and file.recipe) or None,
        "type": file and file.type,
        "architecture": file and file.architecture,
        "context": file and file.n_ctx_train,
        "source": (file and file.source) or None,
        "commit": (file and file.commit) or None,
        "problem": None if file else choice.why if choice else "not finished: its output is gone; remove it",
        "needs": (choice and choice.need) or None,
        "fits": choice.fits if choice and choice.need else None,
    }


def _table(rows: Sequence[Mapping[str, Any]], widest: int = 40) -> str:
    """A line a model; what cannot be read or is not finished says so."""
    from agent.cli.inspect_text import fit

    if not rows:
        return f"no models in {home.models()}; `sprig pull org/name-GGUF` brings one, `sprig quantize org/name` makes one"
    names = max(4, min(widest, max(len(str(row["name"])) for row in rows)))
    lines = [f"{'name':<{names}}  {'size':>8}  {'recipe':<7} {'arch':<10} {'context':>8}  {'fits':<4}  source"]
    for row in rows:
        head = f"{fit(row['name'], names):<{names}}  {human_size(row['size']):>8}"
        if row["problem"]:
            lines.append(f"{head}  {fit(row['problem'], 60)}")
            continue
        facts = f"{fit(row['type'], 7):<7} {fit(row['architecture'], 10):<10} {row['context']:>8,}"
        fits = {True: "yes", False: "no"}.get(row["fits"], "-")
        lines.append(f"{head}  {facts}  {fits:<4}  {fit(row['source'] or '-', 60)}")
    return "\n".join(lines)
