"""`sprig sessions`: the conversations that were kept. List, search, show, export, rename, delete and repair them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli import console
from agent.cli.completion import session_ids
from agent.cli.options import SETTINGS, Json, Verbose, Yes, confirm, leave_to
from agent.errors import SprigError
from agent.files import atomic_write
from agent.home import home
from agent.sessions.records import day_of
from agent.sessions.store import Store
from agent.text import display, json_text

Id = Annotated[str, typer.Argument(metavar="ID", autocompletion=session_ids, help="A session's id, or the beginning of it.")]

sessions_app = typer.Typer(
    **SETTINGS,
    invoke_without_command=True,
    help="List, search, export, remove and repair the conversations that were kept (sprig ask --session).",
)


@contextmanager
def _store(json: bool, verbose: bool) -> Iterator[tuple[console.Console, Store]]:
    with console.command(json=json, verbose=verbose) as out, Store() as store:
        yield out, store


@sessions_app.callback()
def sessions(
    ctx: typer.Context,
    search: Annotated[str | None, typer.Option("-s", "--search", metavar="TEXT", help="Find words in all conversations.")] = None,
    meaning: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Find what means something alike; takes the setting embedding_model.")
    ] = None,
    limit: Annotated[int, typer.Option("-n", "--limit", min=1, metavar="N", help="How many to show.")] = 20,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """List the sessions, the newest first."""
    if leave_to(ctx, json, verbose):
        return
    if search is not None and meaning is not None:
        raise typer.BadParameter("finds by words, --meaning by what they mean: give one of the two", param_hint="--search")
    with _store(json, verbose) as (out, store):
        if meaning is not None:
            _by_meaning(out, store, meaning, limit)
            return
        if search is not None:
            hits = store.search(search, limit)
            lines = [f"{h.session}  {h.role:<9}  {display(h.snippet)}" for h in hits] or [f"nothing holds {display(search)!r}"]
            out.result({"hits": [asdict(h) for h in hits]}, "\n".join(lines))
            return
        found = store.sessions(limit)
        lines = [f"{s.id}  {day_of(s.updated)}  {s.messages:>4}  {display(s.title or '-')}" for s in found]
        none = "no sessions yet; sprig ask --session new begins one"
        out.result({"sessions": [asdict(s) for s in found]}, "\n".join(lines) or none)


def _by_meaning(out: console.Console, store: Store, query: str, limit: int) -> None:
    from agent.cli.embed import beginning, embedding_model, telling
    from agent.embedding.conversations import search_conversations
    from agent.embedding.embedder import Embedder
    from agent.embedding.vectors import VectorStore

    with Embedder(embedding_model()) as embedder, VectorStore() as vectors:
        found, _ = search_conversations(store, vectors, embedder, query, most=limit, on_document=telling(out))
    lines = [f"{s.session}  {s.role:<9}  {s.score:.3f}  {beginning(s.text)}" for s in found]
    out.result({"hits": [asdict(s) for s in found]}, "\n".join(lines) or "nothing was said yet")


@sessions_app.command()
def show(id: Id, json: Json = False, verbose: Verbose = False) -> None:
    """Print a conversation as Markdown, or whole with --json."""
    with _store(json, verbose) as (out, store), store.open(id) as session:
        data: dict[str, Any] = session.export_json() if json else {}
        out.result(data, "" if json else session.export_markdown().rstrip("\n"))


@sessions_app.command()
def export(
    id: Id,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where to; .json holds every branch, anything else is Markdown.")],
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a conversation to a file."""
    with _store(json, verbose) as (out, store), store.open(id) as session:
        whole = file.suffix == ".json"
        text = json_text(session.export_json(), indent=1) if whole else session.export_markdown()
        if not file.absolute().parent.is_dir():
            raise SprigError(f"there is no folder {file.absolute().parent} to write {file.name} to")
        atomic_write(file, text)
        out.result({"session": session.id, "path": str(file)}, f"{session.id} is in {display(str(file))}")


@sessions_app.command()
def rename(id: Id, title: str, json: Json = False, verbose: Verbose = False) -> None:
    """Give a session another title."""
    with _store(json, verbose) as (out, store), store.open(id) as session:
        store.rename(session.id, title)
        out.result({"session": session.id, "title": title}, f"{session.id} is called {display(title)}")


@sessions_app.command()
def delete(
    id: Id,
    yes: Yes = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Delete a session with all its branches; what was said in it is gone."""
    with _store(json, verbose) as (out, store), store.open(id) as session:
        if not yes:
            info = session.info
            line = f"{info.id}, {day_of(info.updated)}, {info.title or 'without a title'}: {_counted(info.messages)}"
            confirm(out, [line], "Delete it?", "nothing was deleted")
        store.delete(session.id)
        out.result({"deleted": session.id}, f"{session.id} is deleted")


@sessions_app.command()
def repair(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="By default sessions.db in SPRIG_HOME.")] = None,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Check the store of the sessions; if it is damaged, keep it under another name and save what can be read of it."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.sessions.salvage import repair as run

        path = file or home() / "sessions.db"
        saved = run(path)
        if saved is None:
            out.result({"path": str(path), "damaged": False}, f"{display(str(path))} is sound; nothing was changed")
            return
        counts = f"{saved.sessions} sessions and {saved.messages} messages are saved, {saved.lost} rows could not be read"
        if not saved.sessions + saved.messages + saved.lost:
            counts = "nothing in it could be read as a session"
        text = f"{counts}; the damaged file is kept as {saved.set_aside}"
        out.result({"path": str(path), "damaged": True, **asdict(saved)}, display(text))


def _counted(messages: int) -> str:
    return "1 message" if messages == 1 else f"{messages} messages, over all branches"
