"""`sprig chat`: options in, the application, the plain chat or the server."""

from __future__ import annotations

import contextlib
import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console, logs
from agent.cli.options import SETTINGS, Verbose
from agent.errors import SprigError

if TYPE_CHECKING:
    from tui.settings.values import Settings
    from tui.talk.setup import Setup

chat_app = typer.Typer(**SETTINGS)


@chat_app.command()
def chat(
    message: Annotated[str | None, typer.Argument(metavar="[MESSAGE]", help="Said first.")] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="GGUF file, name in the store, or demo; without it you choose."),
    ] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a conversation: its id, or 'last'; see sprig sessions.")
    ] = None,
    system: Annotated[str | None, typer.Option("-s", "--system", metavar="TEXT", help="System prompt.")] = None,
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="NAME", help="Built-in tool, 'none', or a .py file with @tool functions; repeat it."),
    ] = None,
    mcp: Annotated[
        list[str] | None, typer.Option("--mcp", metavar="SERVER", help="NAME=COMMAND, an https URL or a JSON file; repeat it.")
    ] = None,
    root: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder that file tools and commands are kept to.")] = None,
    context: Annotated[int | None, typer.Option("-c", "--context", min=256, metavar="N", help="Tokens of context.")] = None,
    cache: Annotated[str | None, typer.Option(metavar="TYPE", help="K/V cache: f16, or q8_0 in half the memory.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads of the model.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="T", help="0 for the likeliest words.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the random draws.")] = None,
    think: Annotated[bool | None, typer.Option("--think/--no-think", help="Switch thinking, where the model can.")] = None,
    theme: Annotated[
        str | None, typer.Option(metavar="NAME", help="Colours: sprig, sprig-light, sprig-contrast, sprig-16, ...")
    ] = None,
    settings: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Settings; by default settings.toml in SPRIG_HOME.")
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
        found, path = _settings(settings)
        setup = _setup(found, model, system, tool, mcp, root, context, cache, threads, temperature, seed, think)
        if theme is not None:
            from dataclasses import replace

            found = replace(found, screen=replace(found.screen, theme=_theme(theme)))
        kept = _session(session)
        if plain:
            from tui.plain import chat_plainly

            logs.to_file("chat")
            chat_plainly(setup, session=kept, message=message or "")
            return
        _run(found, path, setup, kept, message or "", inline, verbose)


def _run(
    settings: Settings, path: Path, setup: Setup, session: str | None, message: str, inline: bool, verbose: bool
) -> None:  # fmt: skip
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

    gc.disable()  # until the first paint, after which the application switches it on again
    with contextlib.nullcontext() if inline or browser else first_paint():
        logs.to_file("chat", screen=True)
        from tui.app import SprigApp

        app = SprigApp(settings, setup, session=session, message=message, settings_path=path, verbose=verbose)
    app.run(inline=inline, inline_no_clear=True, mouse=settings.screen.mouse)
    if app.fault is not None:
        raise app.fault
    if app.return_code:  # a signal has ended it
        raise SystemExit(app.return_code)


def _settings(path: Path | None) -> tuple[Settings, Path]:
    from agent.home import home
    from tui.settings.file import load

    if path is not None and not path.is_file():
        raise SprigError(f"there is no settings file {path}; without --settings, {home() / 'settings.toml'} is read")
    path = path or home() / "settings.toml"
    return load(path), path


def _setup(
    settings: Settings, model: str | None, system: str | None, tool: list[str] | None, mcp: list[str] | None,
    root: Path | None, context: int | None, cache: str | None, threads: int | None, temperature: float | None, seed: int | None,
    think: bool | None,
) -> Setup:  # fmt: skip
    """What the options say, and where they are silent, the settings."""
    from tui.talk.setup import Setup

    engine = settings.engine
    where = (root or Path(settings.root or ".")).expanduser().absolute()
    if not where.is_dir():
        raise SprigError(f"the folder {where} for file tools is not there: --root or root in the settings names another")
    chosen = model or os.environ.get("SPRIG_MODEL") or settings.model
    if chosen:
        from agent.models.store import find_model

        chosen = str(find_model(chosen))
    drawn = {"temperature": temperature, "seed": seed}
    return Setup(
        model=chosen,
        tools=_tools(tool, settings),
        mcp=(*settings.mcp, *_servers(mcp)),
        system=settings.system if system is None else system,
        thinking=settings.think if think is None else think,
        sampling={**settings.sampling.chosen(), **{k: v for k, v in drawn.items() if v is not None}},
        max_tokens=settings.sampling.max_tokens,
        rounds=settings.limits.rounds,
        seconds=settings.limits.seconds,
        context=context or engine.context,
        cache=cache or engine.cache,
        threads=threads or engine.threads,
        root=where,
        rules=settings.rules,
        unconfined=settings.unconfined,
    )


def _tools(named: list[str] | None, settings: Settings) -> tuple[Any, ...]:
    if named is None:
        return settings.tools
    if named == ["none"]:
        return ()
    tools: list[Any] = []
    for name in named:
        if name.endswith(".py"):
            from agent.cli.ask import from_file

            tools += from_file(Path(name))
        else:
            tools.append(name)
    return tuple(tools)


def _servers(named: list[str] | None) -> tuple[Any, ...]:
    if not named:
        return ()
    from agent.tools.mcp.config import ServerConfig

    return tuple(config for text in named for config in ServerConfig.parse(text))


def _theme(name: str) -> str:
    from tui.themes import names

    if name not in names():
        raise SprigError(f"there is no theme {name!r}: {', '.join(names())}")
    return name


def _session(wanted: str | None) -> str | None:
    """The whole id of a session."""
    if wanted is None:
        return None
    from agent.sessions.store import Store

    with Store() as store:
        if wanted != "last":
            return store.open(wanted).id
        latest = store.latest()
        if latest is None:
            raise SprigError("there is no conversation yet: leave --session out to begin one")
        return latest.id


def _serve(host: str, port: int, no_token: bool, out: console.Console) -> None:
    """The same command once more, for each browser that comes; what is for the server alone is left out."""
    from tui.serve.server import serve

    alone = {"--serve", "--no-token"}
    valued = {"--host", "--port"}
    words = sys.argv[1:]
    kept: list[str] = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in alone or word.split("=", 1)[0] in valued:
            skip = word in valued
        else:
            kept.append(word)
    # -P: a file sprig.py in the current folder is not the program.
    serve([sys.executable, "-P", "-m", "sprig", *kept], host=host, port=port, token=None if no_token else "", say=out.say)
