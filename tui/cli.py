"""`sprig chat`: options in, the application, the plain chat or the server."""

from __future__ import annotations

import contextlib
import gc
import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import console, logs
from agent.cli.options import SETTINGS, AgentOptions, Verbose, find_session, with_agent_options
from agent.errors import SprigError

if TYPE_CHECKING:
    from tui.settings.values import ChatSettings
    from tui.talk.setup import Setup

chat_app = typer.Typer(**SETTINGS)


@chat_app.command()
@with_agent_options
def chat(
    options: AgentOptions,
    message: Annotated[str | None, typer.Argument(metavar="[MESSAGE]", help="Said first.")] = None,
    theme: Annotated[
        str | None, typer.Option(metavar="NAME", help="Colours: sprig, sprig-light, sprig-contrast, sprig-16, ...")
    ] = None,
    plain: Annotated[bool, typer.Option("--plain", help="Lines only: for a dumb terminal or a screen reader.")] = False,
    inline: Annotated[bool, typer.Option("--inline", help="Below the prompt of the shell, not on the whole screen.")] = False,
    serve: Annotated[bool, typer.Option("--serve", help="Open it in a browser instead: prints the address.")] = False,
    host: Annotated[str, typer.Option(metavar="HOST", help="With --serve: where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, metavar="N", help="With --serve; 0 takes a free one.")] = 8420,
    no_token: Annotated[
        bool, typer.Option("--no-token", help="With --serve, on this machine only: let in whoever is on it.")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Chat with a model that can use tools: on the whole screen, in plain lines, or in a browser."""
    with console.command(json=False, verbose=verbose) as out:
        if serve:
            _serve(host, port, no_token, out)
            return
        from agent.settings.file import place
        from tui.settings.values import chat_settings

        file = chat_settings(place(options.settings))
        found = file.load()
        setup = _setup(options.over(found))
        if theme is not None:
            found = replace(found, screen=replace(found.screen, theme=_theme(theme)))
        session = _session(options.session)
        if plain:
            from tui.plain import chat_plainly

            logs.to_file("chat")
            chat_plainly(setup, session=session, message=message or "", keep_rule=file.add_rule)
            return
        kept = _run(found, file.path, setup, session, message or "", inline, verbose)
        if kept:
            model = f" -m {shlex.quote(options.model)}" if options.model else ""
            out.say(f"The conversation is kept. To go on with it: sprig chat --session {kept}{model}")


def _run(
    settings: ChatSettings, path: Path, setup: Setup, session: str | None, message: str, inline: bool, verbose: bool
) -> str:  # fmt: skip
    """The app, from its first frame to its end. Returns the id of the conversation that it ended with; "" in a browser."""
    # Textual paints on the original standard error; all three must be the terminal.
    terminal = all(stream is not None and stream.isatty() for stream in (sys.__stdin__, sys.__stdout__, sys.__stderr__))
    browser = "TEXTUAL_DRIVER" in os.environ
    if not terminal and not browser:
        raise SprigError("this is no terminal: sprig chat --plain reads lines, sprig ask takes one question")
    if os.environ.get("TERM", "") in ("dumb", "unknown") and not browser:
        raise SprigError("this terminal can only show lines (TERM=dumb): sprig chat --plain")
    if settings.screen.line_mode:  # read by Textual when it is imported
        os.environ.setdefault("TEXTUAL_FPS", "8")
        os.environ.setdefault("TEXTUAL_SMOOTH_SCROLL", "0")
    from tui.terminal.first_paint import first_paint
    from tui.terminal.typed_ahead import typed_ahead

    gc.disable()  # until the first paint, after which the application switches it on again
    with typed_ahead() as typed:
        with contextlib.nullcontext() if inline or browser else first_paint():
            logs.to_file("chat", screen=True)
            from tui.app import SprigApp

            app = SprigApp(settings, setup, session=session, message=message, settings_path=path, verbose=verbose, typed=typed)
        app.run(inline=inline, inline_no_clear=True, mouse=settings.screen.mouse)
    if app.fault is not None:
        raise app.fault
    if app.return_code:  # a signal has ended it
        raise SystemExit(app.return_code)
    return "" if browser else app.kept


def _setup(settings: ChatSettings) -> Setup:
    from agent.settings.use import root_of
    from tui.talk.setup import Setup

    setup = Setup.of(settings, root_of(settings))
    if setup.model:
        from agent.models.find import find_model

        setup = replace(setup, model=str(find_model(setup.model)))
    return setup


def _theme(name: str) -> str:
    from tui.themes import names

    if name not in names():
        raise SprigError(f"there is no theme {name!r}: {', '.join(names())}")
    return name


def _session(wanted: str | None) -> str | None:
    """The whole id of a session; None for a new one."""
    if wanted is None:
        return None
    from agent.sessions.store import Store

    with Store.or_unkept(lambda why: None) as store:  # the chat says why
        found = find_session(store, wanted)
        return found.id if found is not None else None


def _serve(host: str, port: int, no_token: bool, out: console.Console) -> None:
    """The same command once more, for each browser that comes; what is for the server alone is left out."""
    from tui.serve.server import serve

    kept: list[str] = []
    words = iter(sys.argv[1:])
    for word in words:
        if word in ("--host", "--port"):
            next(words, None)  # its value
        elif word.split("=", 1)[0] not in ("--host", "--port", "--serve", "--no-token"):
            kept.append(word)
    # -P: a file sprig.py in the current folder is not the program.
    serve([sys.executable, "-P", "-m", "sprig", *kept], host=host, port=port, token=None if no_token else "", say=out.say)
