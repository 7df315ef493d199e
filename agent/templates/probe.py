"""Probing: what a chat template can do is found by rendering small conversations with it and looking at what comes out."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from agent.dialects import families
from agent.dialects.base import Dialect, Thinking
from agent.dialects.probe import by_fingerprint, difference, from_calls
from agent.dialects.seen import FIRST, SECOND, ProbeCall
from agent.messages import ToolSpec
from agent.templates.marks import NEAR, RoleMarks, role_marks
from agent.templates.process import Rendered, RenderJob, TemplateProcess
from agent.templates.profile import Arguments, Profile, Where

_AGAIN, _LAST = "Zfqagain", "Zfqlast"
_CHECK_SECONDS = 1  # of processor time for check_template
PROBE_SECONDS = 5  # of processor time for each of the three rounds: a board is ten times slower than a workstation
_WORD, _SYSTEM, _USER, _RESULT, _THOUGHT = "Zfqword", "Zfqsystem", "Zfquser", "Zfqresult", "Zfqthought"
TOOL_NAME = "zfqx_tool"
_PLACE = {"place": {"type": "string", "description": "Where."}}
_PARAMETERS = {"type": "object", "properties": _PLACE, "required": ["place"]}
TOOL = ToolSpec(TOOL_NAME, "The weather at a place.", _PARAMETERS).as_openai()
CHAT = [
    {"role": "user", "content": "Hello, who are you?"},
    {"role": "assistant", "content": "A small model."},
    {"role": "user", "content": "What is the weather?"},
]
_NOW = datetime(2031, 3, 5)
_NONE: Mapping[str, Any] = {}  # options
_THINKING_KEYS = ("reasoning_content", "thinking", "reasoning", "blocks")

Chat = list[dict[str, Any]]


def user(text: str = _USER) -> dict[str, Any]:
    return {"role": "user", "content": text}


def assistant(text: str | None = _WORD, **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": text, **more}


def call(made: ProbeCall, arguments: Arguments) -> dict[str, Any]:
    """A call in the form that templates take."""
    given = made.arguments if arguments == "object" else json.dumps(made.arguments)
    return {"id": made.id, "type": "function", "function": {"name": made.name, "arguments": given}}


class _Round:
    """Renderings that go to the child together: named when ordered, looked up when they are there."""

    def __init__(self, empty_tools: bool = False) -> None:
        self._jobs: dict[str, RenderJob] = {}
        self._done: dict[str, Rendered] = {}
        self._no_tools: list[Any] | None = [] if empty_tools else None

    def add(
        self, name: str, chat: Chat, *, tools: list[Any] | None = None, prompt: bool = False, options: Mapping[str, Any] = _NONE
    ) -> None:
        self._jobs[name] = RenderJob(chat, tools or self._no_tools, prompt, options, _NOW)

    def go(self, process: TemplateProcess) -> None:
        done = process.render(list(self._jobs.values()), cpu_seconds=PROBE_SECONDS)
        self._done = dict(zip(self._jobs, done, strict=True))

    def __getitem__(self, name: str) -> str:
        return self._done[name].text

    def error(self, name: str) -> str | None:
        return self._done[name].error

    def shows(self, name: str, word: str) -> bool:
        return word in self[name]


def probe(process: TemplateProcess, source: str) -> Profile:
    """What the template of this process can do.

    Raises:
        TemplateError: it must not be used at all.
    """
    basic = _Round()
    basic.add("none", [user()], prompt=True)
    basic.go(process)
    empty_tools, seen = False, basic
    if basic.error("none") is not None:
        other = _Round(empty_tools=True)
        other.add("none", [user()], prompt=True)
        other.go(process)
        empty_tools = other.error("none") is None
        if not empty_tools:
            return Profile(error=basic.error("none"), dialect=by_fingerprint(source, False))
        seen = other
    if not seen.shows("none", _USER):
        return Profile(error="it does not show what a user says", dialect=by_fingerprint(source, False))
    first = _first_round(process, empty_tools)
    tools = _tools(first)
    calls = _Calls(first)
    second = _second_round(process, empty_tools, calls)
    thinking, thinking_key = _thinking(first, second, source)
    on, off, options = _switches(second, process.names, thinking)
    roles = _roles(first, second, calls.dialect)
    if calls.written and calls.dialect is None:
        # It has a format that no dialect can express: its own words about tools would only mislead.
        tools = ""
    return Profile(
        system=first.shows("system", _SYSTEM) and first.shows("system", _USER),
        tools=tools,
        empty_tools=empty_tools,
        calls=calls.dialect is not None and not calls.twice,
        # A template that does not know of tools writes any role that it is given; its model has never seen this one.
        results=second.shows("results", _RESULT) and "tool" in source,
        arguments=calls.arguments,
        parallel=calls.parallel,
        null_content=calls.dialect is not None and calls.content is None,
        alternates=first.error("two users") is not None or not first.shows("two users", _AGAIN),
        user_first=first.error("assistant first") is not None,
        thinking=thinking,
        thinking_key=thinking_key,
        thinking_on=on,
        thinking_off=off,
        options=options,
        dialect=calls.dialect or (families.GENERIC if calls.written else by_fingerprint(source, bool(tools))),
        prefix=difference(first["plain"], first["prompt"])[0],
        marks=roles.texts,
        unprotected=roles.unprotected,
        note="" if calls.dialect is not None or not calls.written else (
            f"the chat template writes tool calls in a way that cannot be read back ({calls.unread}); "
            "the model is taught another one, and may call tools less well"
        ),
    )  # fmt: skip


def inside(thinking: Thinking, text: str) -> bool:
    """Whether a text ends inside a thought."""
    return text.rfind(thinking.open.rstrip()) > text.rfind(thinking.close.strip())


def _first_round(process: TemplateProcess, empty_tools: bool) -> _Round:
    made = _Round(empty_tools)
    system = {"role": "system", "content": _SYSTEM}
    made.add("plain", [user()])
    made.add("prompt", [user()], prompt=True)
    made.add("system", [system, user()])
    made.add("two users", [user(), user(_AGAIN)])
    made.add("assistant first", [assistant(), user()])
    made.add("word", [user(), assistant()])
    made.add("tools", [user()], tools=[TOOL])
    made.add("tools system", [system, user()], tools=[TOOL])
    made.add("tools xml", [user()], options={"xml_tools": [TOOL["function"]]})
    made.add("tools key", [{**system, "tools": json.dumps([TOOL["function"]])}, user()])
    for kind in _CALL_KINDS:
        arguments, content = kind
        one, two = call(FIRST, arguments), call(SECOND, arguments)
        made.add(f"one {kind}", [user(), assistant(content, tool_calls=[one])])
        made.add(f"two {kind}", [user(), assistant(content, tool_calls=[one, two])])
    for key in _THINKING_KEYS:
        made.add(key, [user(), _thought(key)])
    made.go(process)
    return made


# How calls may have to be given, the usual way first: arguments, and the content beside them.
_CALL_KINDS: tuple[tuple[Arguments, str | None], ...] = (("object", ""), ("string", ""), ("object", None), ("string", None))


def _tools(first: _Round) -> Where:
    if first.shows("tools", TOOL_NAME) or first.shows("tools system", TOOL_NAME):
        return "argument"
    if first.shows("tools xml", TOOL_NAME):
        return "xml_tools"
    return "system" if first.shows("tools key", TOOL_NAME) else ""


class _Calls:
    """How calls have to be given so that they are written, and how they are written then."""

    def __init__(self, first: _Round) -> None:
        self.arguments: Arguments = "object"
        self.content: str | None = ""
        self.parallel = False
        self.dialect: Dialect | None = None
        self.unread = ""  # why the calls as they are written cannot be read
        self.written = self.twice = False
        for kind in _CALL_KINDS:
            one, two = first[f"one {kind}"], first[f"two {kind}"]
            if FIRST.name not in one or FIRST.value not in one:
                continue
            both = FIRST.name in two and SECOND.name in two
            shown, opened = difference(first["word"], one)
            self.dialect, self.unread = from_calls(shown, difference(first["word"], two)[0] if both else None, opened)
            self.written, self.twice = True, one.count(FIRST.value) > 1
            if self.dialect is not None:
                self.arguments, self.content = kind
                self.parallel = both
                return

    def message(self) -> dict[str, Any]:
        """An assistant's message with a call, or with words where calls are not written."""
        if self.dialect is None or self.twice:
            return assistant()
        return assistant(self.content, tool_calls=[call(FIRST, self.arguments)])


def _thought(key: str, **more: Any) -> dict[str, Any]:
    if key == "blocks":
        blocks = [{"type": "thinking", "thinking": _THOUGHT}, {"type": "text", "text": _WORD}]
        return {"role": "assistant", "content": blocks, **more}
    return assistant(**{key: _THOUGHT}, **more)


def _second_round(process: TemplateProcess, empty_tools: bool, calls: _Calls) -> _Round:
    made = _Round(empty_tools)
    result = {"role": "tool", "content": _RESULT, "tool_call_id": FIRST.id, "name": FIRST.name}
    made.add("results", [user(), calls.message(), result], prompt=True)
    for key in _THINKING_KEYS[:-1]:
        made.add(f"{key} call", [user(), {**calls.message(), key: _THOUGHT}])
    made.add("no thought call", [user(), calls.message()])
    made.add("base", [user()], prompt=True)
    made.add("base tools", [user()], tools=[TOOL], prompt=True)
    past = [user(), assistant(reasoning_content=_THOUGHT, reasoning=_THOUGHT, thinking=_THOUGHT), user()]
    for name in _candidates(process.names):
        for value in (True, False):
            made.add(f"{name}={value}", [user()], prompt=True, options={name: value})
            made.add(f"{name}={value} history", past, options={name: value})
    made.add("history", past)
    made.add("roles", [user(), assistant(), user(_AGAIN), assistant(_LAST)])
    made.go(process)
    return made


def _roles(first: _Round, second: _Round, dialect: Dialect | None) -> RoleMarks:
    """The marks of the roles, from conversations whose texts are known."""
    before, _, behind = first["system"].partition(_SYSTEM)
    called, _, told = second["results"].partition(_RESULT)
    answered = called.rpartition(FIRST.value)[2]
    for end in (dialect.parameter_close, dialect.call_close, dialect.section_close) if dialect is not None else ():
        answered = answered.partition(end.strip())[2] if end.strip() else answered  # what ends a call is no role's
    others = [before[-NEAR:], behind.partition(_USER)[0][:NEAR], first["prompt"].partition(_USER)[2], answered, told]
    if second.error("roles") is None:
        return role_marks(second["roles"], (_USER, _WORD, _AGAIN, _LAST), others)
    return role_marks(first["word"], (_USER, _WORD), others)


_ORDINARY = frozenset({"messages", "tools", "documents", "bos_token", "eos_token", "add_generation_prompt"})
_FUNCTIONS = frozenset({"raise_exception", "strftime_now", "namespace", "range", "dict", "lipsum", "cycler", "joiner"})


def _candidates(names: Iterable[str]) -> list[str]:
    """Variables that may be switches: those that speak of thinking first, and not too many."""
    names = [name for name in names if name not in _ORDINARY | _FUNCTIONS and name.isidentifier()]
    return sorted(names, key=lambda name: not ("think" in name or "reason" in name))[:16]


def _thinking(first: _Round, second: _Round, source: str) -> tuple[Thinking | None, str]:
    """The marks of thoughts, and where the template takes past thoughts from."""
    for key in _THINKING_KEYS:
        for rendered, without in ((first[key], first["word"]), (second[f"{key} call"] if key != "blocks" else "", "")):
            # Where a list is simply printed, its keys stand beside the thought.
            if _THOUGHT in rendered and (key != "blocks" or "type" not in rendered[: rendered.find(_THOUGHT)][-40:]):
                found = _marks(rendered, without or second["no thought call"])
                if found is not None:
                    return found, key
    for known in families.THOUGHTS:
        opening = known.open.replace("\n", "\\n")
        if known.close in source and (opening in source or known is families.THINK):
            return known, ""
    return None, ""


def _marks(rendered: str, without: str) -> Thinking | None:
    before, _, after = rendered.partition(_THOUGHT)
    for known in families.THOUGHTS:
        if before.rstrip().endswith(known.open.rstrip()) and after.lstrip().startswith(known.close):
            return known
    opened = difference(without, before)[0]
    closed = after[: after.find(_WORD)] if _WORD in after else ""
    # Without marks of its own on both sides, a thought could not be told from the answer.
    return Thinking(opened, closed.rstrip()) if opened.strip() and closed.strip() and len(opened) + len(closed) < 200 else None


def _switches(
    second: _Round, names: Sequence[str], thinking: Thinking | None
) -> tuple[dict[str, Any], dict[str, Any], tuple[str, ...]]:
    """Options that switch thinking on and off, and all that change something."""
    effective: list[str] = []
    on: dict[str, Any] = {}
    off: dict[str, Any] = {}
    for name in _candidates(names):
        texts = {value: second[f"{name}={value}"] for value in (True, False)}
        usable = {value: text for value, text in texts.items() if _USER in text}
        histories = [f"{name}={value} history" for value in usable]
        past = any(second.error(h) is None and second[h] != second["history"] for h in histories)
        if past or any(text != second["base"] for text in usable.values()):
            effective.append(name)
        if thinking is None or len(usable) < 2 or texts[True] == texts[False] or ("think" not in name and "reason" not in name):
            continue
        if not on:
            on, off = {name: True}, {name: False}
    return on, off, tuple(effective)


@dataclass(frozen=True, slots=True)
class TemplateReport:
    """What a template can do.

    Attributes:
        renders: a conversation of user, assistant and user.
        supports_system: a system message's text is in what it renders.
        supports_tools: a tool's name is in what it renders.
        error: why it does not render that conversation, in one line; None when it does.
    """

    renders: bool
    supports_system: bool
    supports_tools: bool
    error: str | None


def check_template(template: str, *, bos: str = "", eos: str = "", timeout: float = 5.0) -> TemplateReport:
    """Render small conversations with a chat template, and say what it supports.

    Args:
        template: its text.
        bos, eos: texts of the tokens that begin and end a sequence.
        timeout: seconds for everything; the processor time has a limit of its own.

    Raises:
        TemplateError: the template is too large, does not parse, does not end, takes too much memory, writes without end, or
            tries to leave the sandbox.
    """
    with closing(TemplateProcess(template, bos, eos, cpu_seconds=_CHECK_SECONDS, seconds=timeout)) as process:
        with_system = [{"role": "system", "content": _SYSTEM}, *CHAT]
        plain, system, tools = process.render([RenderJob(CHAT), RenderJob(with_system), RenderJob(CHAT, [TOOL])])
    return TemplateReport(plain.error is None, _SYSTEM in system.text, TOOL_NAME in tools.text, plain.error)
