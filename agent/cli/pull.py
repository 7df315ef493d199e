"""`sprig pull`: a ready GGUF from the Hub into the store."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose
from agent.errors import SprigError
from agent.files import human_size
from agent.models.reference import hub_reference
from agent.text import display

if TYPE_CHECKING:
    from agent.models.pull import Pulled
    from agent.models.remote import Offer, RemoteModel, Repository

pull_app = typer.Typer(**SETTINGS)
_MODEL = "Model of the Hub (org/name-GGUF, or its address); with :Q4_K_M or :FILE behind it, one of its files."


@pull_app.command()
def pull(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=_MODEL)],
    revision: Annotated[str | None, typer.Option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.")] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="In the store; by default that of the file.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Bring a ready GGUF from the Hub into the store. A cut download goes on where it was."""
    with console.command(json=json, verbose=verbose) as out:
        from dataclasses import replace

        from agent.cli.progress import Bars
        from agent.models.pull import pull as run
        from agent.models.remote import open_repository

        reference = hub_reference(model)
        if reference is None:
            raise SprigError(f"{model!r} names no model on the Hub; org/name-GGUF and org/name-GGUF:Q4_K_M do")
        repository = open_repository(replace(reference, revision=revision) if revision else reference)
        meant = repository.meant(reference.selector)
        chosen = meant[0] if len(meant) == 1 else _choose(out, repository, meant, named=reference.selector)
        if chosen is None:
            return
        _warn(out, repository, chosen)
        try:
            with Bars() as bars:
                done = run(repository, chosen, name=name, on_progress=bars.show)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the same command goes on where it was") from None
        out.result(done.to_dict(), _summary(done))


def _choose(
    out: console.Console, repository: Repository, models: Sequence[RemoteModel], *, named: str | None
) -> RemoteModel | None:
    """Ask a person which; a script is told what there is."""
    offers = repository.offers(models)
    if out.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        out.result(
            {"repo": repository.hub.repo_id, "commit": repository.commit, "files": [_fact(offer) for offer in offers]},
            _table(repository, offers),
        )
        what = f"{named!r} means {len(models)} files" if named else "nothing was pulled"
        out.say(display(f"{what}: name one, as in sprig pull {_named(repository, offers)}"))
        return None
    out.say(_table(repository, offers, numbered=True))
    try:
        answer = typer.prompt("Which one? Its number, or Enter to leave", default="", show_default=False, err=True).strip()
    except typer.Abort:
        answer = ""
    if not answer:
        raise SprigError("nothing was pulled")
    if not answer.isdecimal() or not 1 <= int(answer) <= len(models):
        raise SprigError(f"{answer!r} is no number from 1 to {len(models)}; nothing was pulled")
    return models[int(answer) - 1]


def _named(repository: Repository, offers: Sequence[Offer]) -> str:
    """What pulls the largest that fits, or else the smallest."""
    fitting = [offer.model for offer in offers if offer.fits]
    model = fitting[-1] if fitting else offers[0].model
    short = model.type if model.type and repository.meant(model.type) == [model] else model.selector
    return shlex.quote(f"{repository.hub.repo_id}:{short}")


def _warn(out: console.Console, repository: Repository, model: RemoteModel) -> None:
    (offer,) = repository.offers([model])
    if offer.why:
        out.say(display(f"{model.name} will not work on this machine: {offer.why}; it is pulled all the same"))


def _fact(offer: Offer) -> dict[str, Any]:
    """What a script is told of a file. ``fits`` is None where nothing is known."""
    model = offer.model
    return {
        "file": model.selector, "parts": len(model.files), "quantization": model.type or None, "size": model.size,
        "fits": offer.fits, "needs": offer.need or None, "context": offer.context or None, "why": offer.why or None,
    }  # fmt: skip


def _table(repository: Repository, offers: Sequence[Offer], *, numbered: bool = False) -> str:
    from agent.cli.inspect_text import fit

    repo = display(repository.hub.repo_id)
    lines = [f"{len(offers)} GGUFs in {repo} at {repository.commit[:8]}"]
    names = max(4, min(60, max(len(offer.model.selector) for offer in offers)))
    for i, offer in enumerate(offers, 1):
        number = f"{i:>3}  " if numbered else "  "
        verdict = {
            True: f"fits with a context of {offer.context:,}, {human_size(offer.need)} of memory", False: offer.why, None: "",
        }[offer.fits]  # fmt: skip
        kind = offer.model.type or "-"
        row = f"{number}{fit(kind, 12):<12} {human_size(offer.model.size):>8}  {fit(offer.model.selector, names):<{names}}"
        lines.append(f"{row}  {fit(verdict, 60)}".rstrip())
    return "\n".join(lines)


def _summary(done: Pulled) -> str:
    origin = done.origin
    rows = [
        ("model", display(done.name) if done.new else f"{display(done.name)}, which was there already"),
        ("file", f"{display(str(done.path))}, {human_size(done.size)}"),
        ("from", display(f"{origin.repo_id}:{origin.files[0]} at {origin.commit[:8]}, proved by its SHA-256")),
        ("chat", display(f"sprig chat -m {shlex.quote(done.name)}")),
    ]
    return "\n".join(f"{label:<7}{value}" for label, value in rows)
