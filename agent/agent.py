"""An agent: a model, some tools and a conversation. ``run`` answers, ``stream`` shows how."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.approval.policy import Approver, Gate, Policy
from agent.engine.handle import Engine
from agent.engine.sampling import Sampling
from agent.errors import SprigError, TemplateError
from agent.events import Done, Event, Loading, Problem, Result
from agent.home import home
from agent.limits import Limits
from agent.messages import Message
from agent.models.adapter import Lora
from agent.sessions.session import Session
from agent.sessions.store import Store
from agent.templates.chat_template import CHATML_FALLBACK, ChatTemplate
from agent.tools.define import Tool, as_tool
from agent.turn.output import Output
from agent.turn.parts import Parts
from agent.turn.run import Run, logged
from agent.turn.transcript import Transcript

if TYPE_CHECKING:
    from agent.settings.values import Settings


class Agent(AbstractContextManager["Agent"]):
    """A conversation with a model that can call tools.

    Args:
        model: a GGUF, the name of one in the store, or an Engine that other agents use too.
        tools: functions (``@tool`` or plain), Tool objects, names of built-in tools, or MCP servers' tools.
        system: the system prompt; without one, the model's own default.
        approve: answers for what must be asked; without it, ask means deny.
        policy: rules of what may run unasked.
        root: the folder that built-in file tools and commands are kept to; by default the current one.
        session: where every message is kept: a Session, or the id of one in the default store. Its messages are taken up.
        thinking: switch a model's thinking on or off, where it can be switched; None leaves it as the model has it.
        max_thinking: tokens after which a thought is ended.
        template_options: further variables for the chat template.
        constrain: hold calls to their tools' schemas while they are written.
        limits: see agent.limits.Limits; what a run may use.
        lora: LoRA adapters (GGUF) that the model is loaded with: files, "FILE=SCALE", or (file, scale).
        sampling: temperature, top_k, top_p, min_p, repeat_penalty, seed; what is not given is the model's own.
        engine: context, cache, threads, ... for the Engine that is made of ``model``.

    Raises:
        SprigError: no such model, it does not fit the memory, a tool cannot be described.
    """

    def __init__(
        self,
        model: str | Path | Engine,
        *,
        tools: Iterable[Any] = (),
        system: str = "",
        approve: Approver | None = None,
        policy: Policy | None = None,
        root: str | Path | None = None,
        session: Session | str | None = None,
        thinking: bool | None = None,
        max_thinking: int | None = None,
        template_options: Mapping[str, Any] | None = None,
        constrain: bool = True,
        limits: Limits | None = None,
        lora: Sequence[Lora] = (),
        sampling: Mapping[str, Any] | None = None,
        engine: Mapping[str, Any] | None = None,
    ) -> None:
        if lora and isinstance(model, Engine):
            raise SprigError("this engine is loaded already; give the adapters to it: Engine(model, lora=[...])")
        self.tools = _tools(tools, Path(root) if root is not None else Path.cwd())
        self.system = system
        self.gate = Gate(policy if policy is not None else Policy(), approve)
        self.limits = limits if limits is not None else Limits()
        self.constrain = constrain
        self.max_thinking = max_thinking
        self._thinking, self._template_options = thinking, dict(template_options or {})
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        self._closed = False
        self._transcript: Transcript | None = None
        self.notes: list[str] = []
        with ExitStack() as opened:
            self.session = opened.enter_context(Store()).open(session) if isinstance(session, str) else session
            self.engine = model if isinstance(model, Engine) else opened.enter_context(_engine(model, lora, engine))
            self.conversation = self.engine.conversation()
            if self.engine is model:
                opened.callback(lambda: self.engine.forget(self.conversation))
            self.sampling = Sampling.for_model(self.engine.file.sampling, **dict(sampling or {}))
            self.template = opened.enter_context(closing(self._open_template()))
            self._opened = opened.pop_all()  # what is closed with the agent, the last first

    @classmethod
    def from_settings(cls, settings: Settings | str | Path | None = None, **overrides: Any) -> Agent:
        """The agent of the settings: model, system prompt, tools, MCP servers, rules, limits, sampling and engine.

        Args:
            settings: a settings file, or what was read of one; by default ``settings.toml`` in SPRIG_HOME, which need not be
                there.
            overrides: arguments of Agent, in the place of what the settings say. With ``tools``, the tools of MCP servers come
                after them; ``mcp`` (ServerConfigs) stands in the place of the servers.

        Raises:
            SprigError: the file has an error, no model is named and the store has not just one; or as Agent.
        """
        from agent.settings.use import agent_arguments, load, model_of

        found = load(settings)
        with ExitStack() as stack:
            arguments = {"model": overrides.get("model") or model_of(found), **agent_arguments(found), **overrides}
            configs, notes = arguments.pop("mcp"), []
            if configs:
                from agent.tools.mcp.servers import MCPServers

                servers = stack.enter_context(MCPServers(configs))
                notes = [f"MCP server {name}: {why}" for name, why in servers.errors.items()]
                arguments["tools"] = [*arguments["tools"], *servers.tools()]
            agent = cls(**arguments)
            agent.notes += notes
            stack.push(agent._opened)
            agent._opened = stack.pop_all()
        return agent

    # What a script calls.

    def run(self, text: str, *, schema: Any = None, tool_choice: str = "auto", limits: Limits | None = None) -> Result:
        """Answer a message, calling tools as needed.

        Args:
            text: of the user.
            schema: a pydantic model, dataclass, TypedDict or JSON Schema that the answer must be an object of; it comes back as
                ``result.value``.
            tool_choice: "auto", "required" (the first answer must call one), "none", or a tool's name.
            limits: for this run, instead of the agent's.

        Raises:
            SprigError: nothing could be started (a second run at the same time, a prompt beyond the context, a bad schema). What
                goes wrong later is in ``result.reason`` and ``result.error``.
        """
        result = None
        for event in self.stream(text, schema=schema, tool_choice=tool_choice, limits=limits):
            if isinstance(event, Done):
                result = event.result
        assert result is not None
        return result

    def stream(
        self, text: str | None, *, schema: Any = None, tool_choice: str = "auto", limits: Limits | None = None
    ) -> Iterator[Event]:
        """The same as ``run``, as it happens; the last event is Done. Leaving the loop early cancels the run.

        With None instead of a text the model answers what is there: the last message of the user, when it has no answer, because
        that was broken off or because ``branch`` went back to it.
        """
        known = {t.name for t in self.tools}
        if tool_choice not in ("auto", "required", "none") and tool_choice not in known:
            names = ", ".join(sorted(known)) or "no tools"
            raise SprigError(f"tool_choice is {tool_choice!r}; use auto, required, none or one of {names}")
        if tool_choice not in ("auto", "none") and not self.tools:
            raise SprigError(f"tool_choice is {tool_choice!r} and this agent has no tools")
        output = Output.of(schema) if schema is not None else None
        return self._stream(text, output, tool_choice, limits or self.limits)

    def _stream(self, text: str | None, output: Output | None, tool_choice: str, limits: Limits) -> Iterator[Event]:
        if self._closed:
            raise SprigError("this agent is closed")
        with self._idle():
            self._cancelled.clear()
            started = time.monotonic()
            for part in self.engine.loading():
                yield Loading(part)
            for note in self.notes:
                yield Problem(note)
            self.notes.clear()
            parts = Parts(
                engine=self.engine, template=self.template, transcript=self.transcript(), conversation=self.conversation,
                session=self.session, tools=self.tools, gate=self.gate, sampling=self.sampling, limits=limits,
                constrain=self.constrain, max_thinking=self.max_thinking, output=output, choice=tool_choice,
                cancelled=self._cancelled, started=started,
            )  # fmt: skip
            yield from logged(Run(parts).events(text))

    @contextmanager
    def _idle(self) -> Iterator[None]:
        """Nobody else uses the conversation meanwhile."""
        if not self._lock.acquire(blocking=False):
            raise SprigError("this agent is answering already; wait for it, cancel it, or make another agent on the same engine")
        try:
            yield
        finally:
            self._lock.release()

    def cancel(self) -> None:
        """End the current run; from any thread. It takes effect within one step of the model, or at once in a tool."""
        self._cancelled.set()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        return (*self._transcript.messages, *self._transcript.held) if self._transcript is not None else ()

    @property
    def tokens(self) -> int:
        """How much of the context the conversation takes, as far as it was computed."""
        return len(self._transcript.tokens) if self._transcript is not None else 0

    def reset(self) -> None:
        """Begin a new conversation. A session's messages stay where they are kept."""
        self.resume(None)

    def resume(self, session: Session | None) -> None:
        """Go on with another session instead, from its current leaf; with None, with a conversation that is not kept."""
        with self._idle():
            self._transcript = None
            self.session = session
            self.engine.forget(self.conversation)
            self.conversation = self.engine.conversation()

    def branch(self, at: int | None) -> None:
        """Go back to a message of the session (its id), or before the first one, and go on from there."""
        if self.session is None:
            raise SprigError("only a conversation that is kept in a session has branches: Agent(session=...)")
        with self._idle():
            self.session.branch(at)
            self._transcript = None

    def close(self) -> None:
        """End the child processes. An engine that was handed in stays open."""
        self._closed = True
        self._cancelled.set()
        self._opened.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def transcript(self) -> Transcript:
        """The conversation's tokens; made, or taken up from the session, at first use."""
        if self._transcript is None:
            self._transcript = Transcript(self.engine, self.template, tuple(tool.spec for tool in self.tools), self._options())
            self._take_up(self._transcript)
        return self._transcript

    def _options(self) -> dict[str, Any]:
        """The variables for the template that switch thinking, and those of the script."""
        profile = self.template.profile
        switch = {None: {}, True: profile.thinking_on, False: profile.thinking_off}[self._thinking]
        return {**switch, **self._template_options}

    def tool(self, name: str) -> Tool | None:
        """The tool of this name."""
        return next((tool for tool in self.tools if tool.name == name), None)

    def _take_up(self, transcript: Transcript) -> None:
        """The messages of the session; their tokens too, where this very model generated them."""
        start = [Message("system", self.system)] if self.system else []
        stored = [s for s in self.session.messages() if s.message.role != "system"] if self.session is not None else []
        fingerprint = self.engine.file.identity
        messages = [*start, *_answered(s.message for s in stored)]
        same = len(messages) == len(start) + len(stored)
        said = max((i + 1 for i, m in enumerate(messages) if m.role == "assistant"), default=len(start))
        # What nobody answered to goes before the next question; the model is not asked for it now.
        messages, unanswered = messages[:said], messages[said:]
        turns = {
            len(start) + i: list(s.tokens)
            for i, s in enumerate(stored)
            if same and s.message.role == "assistant" and s.tokens and s.fingerprint == fingerprint
        }
        if len(messages) > len(start):
            transcript.rebuild(messages, turns)
        else:
            transcript.messages = start
        transcript.held = unanswered

    def _open_template(self) -> ChatTemplate:
        file = self.engine.file
        cache = home() / "cache" / "templates"
        note = "the model has no chat template; ChatML stands in for it, and the answers may be poor"
        if file.template:
            try:
                template = ChatTemplate(file.template, bos=file.bos, eos=file.eos, cache=cache)
                if template.profile.error is None:
                    if self.tools and template.profile.note:
                        self.notes.append(template.profile.note)
                    return template
                template.close()
                why = template.profile.error
            except TemplateError as e:
                why = str(e)
            note = f"the model's chat template cannot be used ({why}); ChatML stands in for it"
        self.notes.append(note)
        return ChatTemplate(CHATML_FALLBACK, bos=file.bos, eos=file.eos, cache=cache)


def _engine(model: str | Path, lora: Sequence[Lora], options: Mapping[str, Any] | None) -> Engine:
    return Engine(model, **{**(options or {}), **({"lora": lora} if lora else {})})


def _tools(wanted: Iterable[Any], root: Path) -> tuple[Tool, ...]:
    """Tools in the order given, which the model sees and the cache depends on."""
    from agent.tools.builtin.catalogue import builtin

    made: list[Tool] = []
    for thing in [wanted] if isinstance(wanted, str) else wanted:
        made += builtin([thing], root=root) if isinstance(thing, str) else [as_tool(thing)]
    names = [tool.name for tool in made]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise SprigError(f"there are two tools called {twice!r}; give one another name: @tool(name=...)")
    return tuple(made)


def _answered(messages: Iterable[Message]) -> list[Message]:
    """A stored conversation in which every call has a result: a process that was killed may have left one open."""
    out: list[Message] = []
    waiting: dict[str, str] = {}

    def close() -> None:
        for call, name in waiting.items():
            out.append(Message("tool", "interrupted: there is no result", call_id=call, name=name))
        waiting.clear()

    for message in messages:
        if message.role == "tool":
            waiting.pop(message.call_id, None)
        elif waiting:
            close()
        out.append(message)
        if message.role == "assistant":
            waiting.update({call.id: call.name for call in message.calls})
    close()
    return out
