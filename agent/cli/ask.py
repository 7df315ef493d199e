"""The commands of the device, thin: arguments in, an agent, the answer for a person or a script."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent import home
from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose
from agent.errors import SprigError
from agent.text import display

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.events import Event, Result

ask_app = typer.Typer(**SETTINGS)
_MOST_INPUT = 2_000_000  # characters of standard input
_UNFINISHED = {
    "length": "the answer was cut off at its limit of tokens (--max-tokens)",
    "rounds": "the model was still calling tools when its rounds were used up (--rounds)",
    "time": "the time was up (--seconds)",
    "context": "the context is full",
    "loop": "the model repeated itself without end",
    "cancelled": "cancelled",
    "repeated call": "the model made the same call again and again",
}


@ask_app.command()
def ask(
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="What to ask; what is piped in is added to it.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="GGUF file, name in the store, or demo; by default SPRIG_MODEL."),
    ] = None,
    system: Annotated[str, typer.Option("-s", "--system", metavar="TEXT", help="System prompt.")] = "",
    tool: Annotated[
        list[str] | None,
        typer.Option("--tool", metavar="NAME", help="Built-in tool, or a .py file with @tool functions; repeat it."),
    ] = None,
    mcp: Annotated[
        list[str] | None, typer.Option("--mcp", metavar="SERVER", help="NAME=COMMAND, an https URL or a JSON file; repeat it.")
    ] = None,
    allow: Annotated[
        list[str] | None, typer.Option("--allow", metavar="TOOL", help="Let a tool run unasked (a name or pattern); repeat it.")
    ] = None,
    root: Annotated[Path, typer.Option(metavar="DIR", help="Folder that file tools and commands are kept to.")] = Path(),
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON Schema that the answer must fit.")] = None,
    session: Annotated[
        str | None, typer.Option(metavar="ID", help="Go on with a session: its id, 'last', or 'new' to begin one.")
    ] = None,
    context: Annotated[int | None, typer.Option("-c", "--context", min=256, metavar="N", help="Tokens of context.")] = None,
    cache: Annotated[str, typer.Option(metavar="TYPE", help="K/V cache: f16, or q8_0 in half the memory.")] = "f16",
    threads: Annotated[int | None, typer.Option(min=1, metavar="N", help="Threads; by default every core.")] = None,
    temperature: Annotated[
        float | None, typer.Option(metavar="T", help="0 for the likeliest words; by default the model's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of the random draws.")] = None,
    think: Annotated[bool | None, typer.Option("--think/--no-think", help="Switch thinking, where the model can.")] = None,
    max_tokens: Annotated[int, typer.Option(min=1, metavar="N", help="Tokens of one answer.")] = 2048,
    rounds: Annotated[int, typer.Option(min=1, metavar="N", help="Answers, tool calls between them.")] = 20,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Time for everything.")] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens, speed and memory at the end.")] = False,
    json_: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask a model, with tools if you like; the answer comes as it is written."""
    with console.command(json=json_, verbose=verbose) as out, ExitStack() as stack:
        from agent.agent import Agent
        from agent.limits import Limits

        text = _question(question)
        form = _schema(schema)
        kept = _session(session, stack)
        agent = Agent(
            _model(model),
            tools=_tools(tool or [], mcp or [], root, stack),
            system=system or (kept.info.system if kept is not None else ""),
            approve=_approver(allow or []),
            root=root,
            session=kept,
            thinking=think,
            limits=Limits(rounds=rounds, tokens=max_tokens, seconds=seconds),
            sampling={"temperature": temperature, "seed": seed},
            engine={"context": context, "cache": cache, "threads": threads},
        )
        stack.callback(agent.close)
        if kept is not None:
            kept.configure(model=agent.engine.file.name, system=system or None, tools=[t.name for t in agent.tools] or None)
        show = Show(out)
        result = show.all(agent.stream(text, schema=form))
        data = {**result.to_dict(), "model": agent.engine.file.path, "session": kept.id if kept is not None else None}
        if result.value is not None:
            data["value"] = result.value
        if json_:
            out.result(data, "")
        else:
            show.end(result)
        if stats:
            out.say(_stats(result, agent))
        if kept is not None and session == "new":
            out.say(f"session {kept.id}")
        if result.reason != "done":
            why = result.error or _UNFINISHED.get(result.reason, result.reason)
            if json_:
                out.say(f"sprig: {display(why)}")
                raise SystemExit(console.FAILED)
            raise SprigError(why)


class Show:
    """The events of a run as a person reads them: the answer on standard output, all else on standard error."""

    def __init__(self, out: console.Console) -> None:
        self.out = out
        self._open = False  # whether the last line of the answer is not ended

    def all(self, events: Iterator[Event]) -> Result:
        from agent.events import Done

        result = None
        try:
            for event in events:
                if isinstance(event, Done):
                    result = event.result
                else:
                    self._one(event)
        except KeyboardInterrupt:
            self._line()
            raise
        assert result is not None
        return result

    def _one(self, event: Event) -> None:
        from agent import events as e

        match event:
            case e.Text(text) if not self.out.json:
                sys.stdout.write(display(text, lines=True))
                sys.stdout.flush()
                self._open = not text.endswith("\n")
            case e.CallReady(call):
                arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
                self._say(f"> {call.name} {arguments}")
            case e.CallRefused(call, why):
                self._say(f"> {call.name}: {why}")
            case e.ToolProgress(call, text):
                self._say(f"  {call.name}: {text}")
            case e.ToolDone(call, ok, text, _, seconds, _):
                first, *rest = text.splitlines() or [""]
                more = f" (+{len(rest)} lines)" if rest else ""
                self._say(f"< {'' if ok else 'failed: '}{first[:200]}{more}  {seconds:.1f} s")
            case e.Compacted(what, before, after):
                self._say(f"the context was full: {what} ({before} tokens to {after})")
            case e.Problem(text):
                self._say(f"sprig: {text}")
            case _:
                pass

    def _say(self, text: str) -> None:
        self._line()
        self.out.say(display(text))

    def _line(self) -> None:
        if self._open:
            sys.stdout.write("\n")
            sys.stdout.flush()
            self._open = False

    def end(self, result: Result) -> None:
        """The answer's last line is a line."""
        self._line()


def _stats(result: Result, agent: Agent) -> str:
    from agent.files import human_size

    u = result.usage
    return (
        f"{agent.engine.file.name} {agent.engine.file.type} · prompt {u.prompt_tokens} tokens, {u.cached_tokens} of them cached, "
        f"{u.prefill_speed:.0f} t/s · answer {u.generated_tokens} tokens, {u.forced_tokens} of them forced, "
        f"{u.decode_speed:.1f} t/s · "
        f"first token {u.first_token_seconds:.2f} s · all {u.seconds:.2f} s · memory {human_size(u.memory)}"
    )


def _question(question: str | None) -> str:
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            piped = sys.stdin.read(_MOST_INPUT + 1)
        except (OSError, UnicodeDecodeError) as e:
            raise SprigError(f"standard input could not be read as text: {e}") from None
        if len(piped) > _MOST_INPUT:
            raise SprigError(f"standard input holds more than {_MOST_INPUT} characters; no model reads so much at once")
    parts = [part for part in (question, piped.strip()) if part]
    if not parts:
        raise SprigError("there is no question: sprig ask 'What ...?', or pipe it in")
    return "\n\n".join(parts)


def _model(name: str | None) -> str:
    chosen = name or os.environ.get("SPRIG_MODEL")
    if chosen:
        return chosen
    found = sorted(home.models().glob("*.gguf")) if home.models().is_dir() else []
    if len(found) == 1:
        return str(found[0])
    if not found:
        from agent.models.demo import demo_model

        demo = ", or try the demo model with -m demo" if demo_model() is not None else ""
        raise SprigError(f"no model is named and none is in the store: -m FILE, make one with `sprig quantize`{demo}")
    names = ", ".join(f.stem for f in found[:6]) + (", ..." if len(found) > 6 else "")
    raise SprigError(f"no model is named, and the store has {len(found)}: -m NAME or SPRIG_MODEL, one of {names}")


def _schema(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        found = json.loads(path.read_bytes())
    except OSError as e:
        raise SprigError(f"cannot read {path}: {e.strerror}") from None
    except ValueError as e:
        raise SprigError(f"{path} is not JSON: {e}") from None
    if not isinstance(found, dict):
        raise SprigError(f"{path} holds no JSON Schema: it must be an object")
    return found


def _session(wanted: str | None, stack: ExitStack) -> Any:
    if wanted is None:
        return None
    from agent.sessions.store import Store

    store = Store()
    stack.callback(store.close)
    if wanted == "new":
        return store.create()
    if wanted == "last":
        found = store.latest()
        if found is None:
            raise SprigError("there is no session yet: --session new begins one")
        return found
    return store.open(wanted)


def _tools(names: Sequence[str], servers: Sequence[str], root: Path, stack: ExitStack) -> list[Any]:
    tools: list[Any] = []
    for name in names:
        tools += from_file(Path(name)) if name.endswith(".py") else [name]
    if servers:
        from agent.tools.mcp.servers import MCPServers, ServerConfig

        connected = stack.enter_context(MCPServers([config for text in servers for config in ServerConfig.parse(text)]))
        tools += connected.tools()
    return tools


def from_file(path: Path) -> list[Any]:
    """The tools that a Python file defines with @tool. The file is run: it is the user's own."""
    import runpy

    from agent.tools.define import Tool

    if not path.is_file():
        raise SprigError(f"there is no file {path} with tools")
    try:
        found = [value for value in runpy.run_path(str(path)).values() if isinstance(value, Tool)]
    except SprigError:
        raise
    except Exception as e:
        raise SprigError(f"{path} could not be run: {type(e).__name__}: {' '.join(str(e).split())}") from None
    if not found:
        raise SprigError(f"{path} defines no tool; put @tool on a function in it (from agent import tool)")
    return list({id(t): t for t in found}.values())


def _approver(allowed: Sequence[str]) -> Any:
    """Asks on the terminal, whatever standard input and output are; without one, what must be asked is denied."""
    from fnmatch import fnmatchcase

    from agent.approval.policy import Answer

    def approve(request: Any) -> Any:
        # Where nothing confines a tool, or it is not what it was, a pattern is no answer.
        if not request.tool.unconfined and any(fnmatchcase(request.tool.name, pattern) for pattern in allowed):
            return Answer.yes()
        try:
            # The terminal itself: standard input may be a file that was piped in.
            with open("/dev/tty", "r+", buffering=1, encoding="utf-8", errors="replace") as tty:  # noqa: PTH123
                tty.write(f"{request.decision.summary}\nAllow it? [y]es, [a]lways in this run, [N]o: ")
                reply = tty.readline().strip().lower()
        except OSError:
            return Answer.no("nobody is there to ask")
        if reply in ("a", "always"):
            return Answer.always_yes()
        return Answer.yes() if reply in ("y", "yes") else Answer.no()

    return approve
