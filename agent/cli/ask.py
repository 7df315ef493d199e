"""`sprig ask`: arguments in, an agent, the answer for a person or a script."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.options import SETTINGS, AgentOptions, Json, Verbose, find_session, with_agent_options
from agent.errors import SprigError
from agent.text import display

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.approval.policy import Answer, ApprovalRequest
    from agent.events import Result
    from agent.sessions.store import Session
    from agent.settings.file import SettingsFile
    from agent.settings.values import Settings

ask_app = typer.Typer(**SETTINGS)
_MOST_INPUT = 2_000_000  # characters of standard input


@ask_app.command()
@with_agent_options
def ask(
    options: AgentOptions,
    question: Annotated[
        str | None, typer.Argument(metavar="QUESTION", help="What to ask; what is piped in is added to it.")
    ] = None,
    schema: Annotated[Path | None, typer.Option(metavar="FILE", help="JSON Schema that the answer must fit.")] = None,
    stop: Annotated[
        list[str] | None,
        typer.Option("--stop", metavar="TEXT", help="Text that ends the answer; may be repeated."),
    ] = None,
    stats: Annotated[bool, typer.Option("--stats", help="Show tokens, speed and memory at the end.")] = False,
    json_: Json = False,
    verbose: Verbose = False,
) -> None:
    """Ask a model, with tools if you like; the answer comes as it is written."""
    with console.command(json=json_, verbose=verbose) as out, ExitStack() as stack:
        from agent.cli.lines import unfinished
        from agent.settings.file import agent_settings, place

        text, form = _question(question), _schema(schema)
        file = agent_settings(place(options.settings))
        settings = options.over(file.load())
        session = _session(options.session, stack, out)
        if session is not None and options.system is None and session.info.system:
            settings = replace(settings, system=session.info.system)
        agent = _agent(settings, session, file, out, stack)
        result = _run(agent, text, form, stop, out)
        if json_:
            data = {**result.to_dict(), "model": agent.engine.file.path, "session": session.id if session is not None else None}
            out.result(data | ({"value": result.value} if result.value is not None else {}), "")
        if stats:
            out.say(_stats(result, agent))
        if session is not None and session.kept and options.session == "new":
            out.say(f"session {session.id}")
        if why := unfinished(result):
            if json_:
                out.say(f"sprig: {display(why)}")
                raise SystemExit(console.FAILED)
            raise SprigError(why)


def _agent(
    settings: Settings, session: Session | None, file: SettingsFile[Settings], out: console.Console, stack: ExitStack
) -> Agent:
    from agent.agent import Agent

    agent = stack.enter_context(Agent.from_settings(settings, session=session))
    agent.gate.approver = lambda request: _approve(request, agent, file, out)
    notes, agent.notes = agent.notes, []  # said once, and not again with the answer
    for note in notes:
        out.say(f"sprig: {display(note)}")
    if session is not None:
        session.configure(
            model=agent.engine.file.name, system=settings.system or None, tools=[t.name for t in agent.tools] or None
        )
    return agent


def _run(agent: Agent, text: str, schema: Any, stop: list[str] | None, out: console.Console) -> Result:
    """The answer on standard output as it comes, all else on standard error."""
    from agent.cli.lines import EventLines
    from agent.events import Done

    lines = EventLines(None if out.json else partial(print, end="", flush=True), out.say, screen=sys.stdout.isatty())
    result = None
    try:
        for event in agent.stream(text, schema=schema, stop=stop):
            lines.show(event)
            if isinstance(event, Done):
                result = event.result
    except KeyboardInterrupt:
        lines.end_line()
        raise
    assert result is not None
    lines.end_line()
    return result


def _approve(request: ApprovalRequest, agent: Agent, file: SettingsFile[Settings], out: console.Console) -> Answer:
    """Ask on the terminal, whatever standard input and output are; without one, what must be asked is denied."""
    from agent.approval.policy import Answer
    from agent.cli.lines import ask_in_lines, forget_typed

    terminal = Path("/dev/tty")  # itself: standard input may be a file that was piped in
    try:
        with (  # two streams: one for both would have to be able to seek
            terminal.open(encoding="utf-8", errors="replace") as keyboard,
            terminal.open("w", encoding="utf-8", errors="replace") as screen,
        ):
            say = partial(print, file=screen, flush=True)

            def read(prompt: str) -> str | None:
                say(prompt, end="")
                try:
                    line = keyboard.readline()
                except KeyboardInterrupt:
                    say()
                    raise
                if not line:  # Ctrl+D
                    say()
                return line or None

            forget_typed(keyboard)  # before the question is there, nothing can answer it
            answer, rule = ask_in_lines(request, say, read) or (Answer.no(), None)
            if rule is not None:
                agent.gate.policy = replace(agent.gate.policy, rules=(*agent.gate.policy.rules, rule))
                try:
                    file.add_rule(rule)
                except SprigError as e:
                    say(f"This holds for this run, but was not written: {display(str(e))}")
            return answer
    except OSError:
        name, usual = display(request.tool.name), request.decision.usual
        beforehand = f", or allow the tool beforehand (--allow {name}, or a rule in settings.toml)" if usual else ""
        reason = "" if usual else f" ({display(request.decision.reason)})"
        out.say(f"sprig: {name} must be asked for{reason}, and there is no terminal to ask on: run it on one{beforehand}")
        return Answer.no(f"nobody is there to ask{reason}")


def _stats(result: Result, agent: Agent) -> str:
    from agent.files import human_size

    u = result.usage
    return (
        f"{display(f'{agent.engine.file.name} {agent.engine.file.type}')} · prompt {u.prompt_tokens} tokens, {u.cached_tokens} "
        f"of them cached, {u.prefill_speed:.0f} t/s · answer {u.generated_tokens} tokens, {u.forced_tokens} of them forced, "
        f"{u.decode_speed:.1f} t/s · "
        f"first token {u.first_token_seconds:.2f} s · all {u.seconds:.2f} s · memory {human_size(u.memory)}"
    )


def _question(question: str | None) -> str:
    piped = ""
    if sys.stdin is not None and not sys.stdin.isatty():
        try:
            piped = sys.stdin.read(_MOST_INPUT + 1)
            piped.encode()  # in a C locale Python lets bytes that are no text through, as halves of characters
        except UnicodeError:
            raise SprigError("standard input is no text; what is piped in is added to the question") from None
        except OSError as e:
            raise SprigError(f"standard input could not be read: {e.strerror}") from None
        if len(piped) > _MOST_INPUT:
            raise SprigError(f"standard input holds more than {_MOST_INPUT} characters; no model reads so much at once")
    parts = [part for part in (question, piped.strip()) if part]
    if not parts:
        raise SprigError("there is no question: sprig ask 'What ...?', or pipe it in")
    return "\n\n".join(parts)


def _schema(path: Path | None) -> Any:
    if path is None:
        return None
    try:
        found = json.loads(path.read_bytes())
    except OSError as e:
        raise SprigError(f"cannot read {path}: {e.strerror}") from None
    except UnicodeDecodeError:
        raise SprigError(f"{path} is not JSON, and not even text") from None
    except ValueError as e:
        raise SprigError(f"{path} is not JSON: {e}") from None
    if not isinstance(found, dict):
        raise SprigError(f"{path} holds no JSON Schema: it must be an object")
    return found


def _session(wanted: str | None, stack: ExitStack, out: console.Console) -> Session | None:
    if wanted is None:
        return None
    from agent.sessions.store import Store

    store = stack.enter_context(Store.or_unkept(lambda why: out.say(f"sprig: {why}")))
    return find_session(store, wanted) or store.create()
