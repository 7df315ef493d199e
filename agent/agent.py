"""An agent: a model, some tools and a conversation. ``run`` answers, ``stream`` shows how."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from agent.approval.policy import Approver, Gate, Policy
from agent.engine.handle import Engine
from agent.engine.sampling import Sampling
from agent.engine.until import FOREVER, Until
from agent.errors import SprigError, Unanswered
from agent.events import Compacted, Done, Event, Loading, Prefill, Problem, Result, Usage
from agent.limits import Limits
from agent.messages import Message, ToolCall
from agent.models.adapter import Lora
from agent.models.template import open_template
from agent.sessions.records import IMPORTED, StoredMessage
from agent.sessions.session import Session
from agent.sessions.store import Store
from agent.templates.chat_template import ChatTemplate
from agent.templates.marks import plain_marks
from agent.tools.result import ToolResult
from agent.turn.adjustable import Adjustable
from agent.turn.ahead import InUse, read
from agent.turn.answered import taken_up
from agent.turn.compaction import compact
from agent.turn.given import Given, Said, read_messages, read_said
from agent.turn.hooks import HookError, Hooks, settled
from agent.turn.options import CheckedOptions, RunOptions, checked, read_choice
from agent.turn.parts import Parts
from agent.turn.run import Run, logged
from agent.turn.spans import Spans
from agent.turn.transcript import Transcript

if TYPE_CHECKING:
    import asyncio

    from agent.settings.values import Settings
    from agent.tools.builtin.undo import UndoneFile


class Agent(Adjustable, AbstractContextManager["Agent"]):
    """A conversation with a model that can call tools.

    Args:
        model: a GGUF, the name of one in the store, or an Engine that other agents use too.
        tools: functions (``@tool`` or plain), Tool objects, names of built-in tools, MCPServers, whose tools are those that they
            have when a run begins, or dictionaries of the OpenAI form (see agent.tools.define.as_tool).
        system: the system prompt; without one, the model's own default.
        messages: a conversation to go on with: (role, text) pairs, dictionaries of the OpenAI form, or Message. A system message
            at its beginning stands in the place of ``system``. They go into the session, which must be empty.
        approve: answers for what must be asked; without it, ask means deny.
        policy: rules of what may run unasked.
        root: the folder that built-in file tools and commands are kept to; by default the current one.
        session: where every message is kept: a Session, or the id of one in the default store. Its messages are taken up.
        thinking: switch a model's thinking on or off, where it can be switched; None leaves it as the model has it.
        max_thinking: tokens after which a thought is ended.
        template_options: further variables for the chat template.
        constrain: hold calls to their tools' schemas while they are written.
        limits: see agent.limits.Limits; what a run may use.
        stop: texts that end an answer where they come up in its words; they are no part of it.
        lora: LoRA adapters (GGUF) that the model is loaded with: files, "FILE=SCALE", or (file, scale).
        sampling: temperature, top_k, top_p, min_p, repeat_penalty, seed; what is not given is the model's own.
        engine: context, cache, threads, ... for the Engine that is made of ``model``.
        embedding_model: what the built-in tool ``search_meaning`` compares with.
        on_event, before_tool, after_tool: see agent.turn.hooks.Hooks; called with every event, and around every tool that runs.

    What is an attribute too (see Adjustable) may be changed between runs.

    Raises:
        SprigError: no such model, it does not fit the memory, a tool cannot be described.
    """

    notes: list[str]
    hooks: Hooks
    loop: asyncio.AbstractEventLoop | None  # where coroutines are awaited; None, in loops of their own

    def __init__(
        self,
        model: str | Path | Engine,
        *,
        tools: Iterable[Any] = (),
        system: str = "",
        messages: Sequence[Message | Mapping[str, Any] | tuple[str, str]] = (),
        approve: Approver | None = None,
        policy: Policy | None = None,
        root: str | Path | None = None,
        session: Session | str | None = None,
        thinking: bool | None = None,
        max_thinking: int | None = None,
        template_options: Mapping[str, Any] | None = None,
        constrain: bool = True,
        limits: Limits | None = None,
        stop: str | Sequence[str] | None = None,
        lora: Sequence[Lora] = (),
        sampling: Mapping[str, Any] | Sampling | None = None,
        engine: Mapping[str, Any] | None = None,
        embedding_model: str | Path = "",
        on_event: Callable[[Event], Any] | None = None,
        before_tool: Callable[[ToolCall], Any] | None = None,
        after_tool: Callable[[ToolCall, ToolResult], Any] | None = None,
    ) -> None:
        if lora and isinstance(model, Engine):
            raise SprigError("this engine is loaded already; give the adapters to it: Engine(model, lora=[...])")
        self._root, self._gate = Path(root) if root is not None else Path.cwd(), Gate(Policy(), None)
        self._embedding_model = embedding_model
        self.tools, self.system, self.limits, self.stop = tools, system, limits, stop
        self.approve, self.policy, self.constrain = approve, policy, constrain
        self.thinking, self.max_thinking, self.template_options = thinking, max_thinking, template_options
        self.hooks = Hooks(on_event, before_tool, after_tool, lambda value: settled(value, self.loop, self._cancelled))
        self.loop = None
        given = read_messages(messages) if messages else None
        if given is not None:
            given.following(())  # refuses a result of no call
            if given.system is not None and system:
                raise SprigError("there are two system prompts: system=, and the first one of messages")
            self.system = given.system or system
        self._process = os.getpid()
        self._in_use = InUse()
        self._cancelled = threading.Event()
        self._closed = False
        self._transcript: Transcript | None = None
        self._marks: tuple[str, ...] | None = None
        with ExitStack() as opened:
            self._session = opened.enter_context(Store()).open(session) if isinstance(session, str) else session
            self._engine = model if isinstance(model, Engine) else opened.enter_context(_engine(model, lora, engine))
            self._conversation = self._engine.conversation()
            if self._engine is model:
                opened.callback(lambda: self._engine.forget(self._conversation))
            self._advised = Sampling.for_model(self._engine.file.sampling)
            self.sampling = sampling
            template, self.notes = open_template(self._engine.file, with_tools=bool(self.tools))
            self._template = opened.enter_context(closing(template))
            self._seed = given.messages if given is not None else ()
            self._keep_seed()
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
                notes = list(servers.errors.values())
                arguments["tools"] = [*arguments["tools"], servers]
            agent = cls(**arguments)
            agent.notes += notes
            stack.push(agent._opened)
            agent._opened = stack.pop_all()
        return agent

    # What a script calls.

    def run(self, said: Said | None, **options: Unpack[RunOptions]) -> Result:
        """Answer a message, calling tools as needed.

        Args:
            said: a text of the user; or messages as for ``Agent(messages=...)``, which are added to the conversation, the last
                one a user's or the result of a call. A system message at their beginning is the system prompt from now on. With
                None the model answers what is there: a last message of the user or a tool that has no answer, because that was
                broken off before its first word or because ``branch`` went back to it.
            options: see RunOptions: schema, tool_choice, limits, sampling, stop, logprobs.

        Raises:
            SprigError: nothing could be started (a second run at the same time, a prompt beyond the context, a bad schema), and
                the conversation is as it was. What goes wrong later is in ``result.reason`` and ``result.error``.
        """
        result = None
        for event in self.stream(said, **options):
            if isinstance(event, Done):
                result = event.result
        assert result is not None
        return result

    def stream(self, said: Said | None, **options: Unpack[RunOptions]) -> Iterator[Event]:
        """The same as ``run``, as it happens; the last event is Done. Leaving the loop early cancels the run."""
        given = read_said(said) if said is not None else None
        names = {tool.name for tool in self.tools}
        chosen = checked(options, tools=names, limits=self.limits, sampling=self.sampling, stop=self.stop)
        return self.hooks.watched(self._stream(given, chosen))

    def _stream(self, given: Given | None, options: CheckedOptions) -> Generator[Event]:
        self._check_usable()
        with self._in_use.run():
            self._cancelled.clear()
            started = time.monotonic()
            seconds = options.limits.seconds
            until = Until(self._cancelled, None if seconds is None else started + seconds)
            system = self.system
            try:
                for part in self.engine.loading(until):
                    yield Loading(part)
                yield from map(Problem, self.notes)
                self.notes.clear()
                if (news := self.renew_tools(self._cancelled.is_set)) is not None:
                    yield news
                    read_choice(options.choice, [tool.name for tool in self.tools])  # it may be gone
                if given is not None and given.system is not None:
                    self.system = given.system
                if given is None and self.transcript(until).take_back() and self.session is not None:
                    kept = self.session.messages()[:-1]
                    self.session.branch(kept[-1].id if kept else None)
                parts = self._parts(options, started, until)
                yield from parts.spans.run(logged(parts, Run(parts).events(given)))
            except HookError:
                raise
            except Unanswered as e:  # nothing was asked yet
                self.system = system
                yield Done(Result("", e.reason, usage=Usage(seconds=time.monotonic() - started)))
            except SprigError:  # it could not begin
                self.system = system
                raise

    def prepare(
        self, on_event: Callable[[Loading | Prefill], object] = lambda event: None, *, cancelled: threading.Event | None = None
    ) -> bool:
        """Read ahead what the next answer needs whatever is asked: system prompt and tools, and the conversation so far.

        This is work of that answer, done before anybody waits for it; call it from a thread of its own while a person writes.
        What is in the cache or on disk (``keep_prefix`` of the engine) is not computed again. A run that begins meanwhile goes
        ahead and takes over what was read.

        Args:
            on_event: told how far it is, from this thread.
            cancelled: set from any thread, it ends the reading; ``cancel`` and ``close`` end it as well.

        Returns:
            Whether all of it is read: False when a run came first, it was cancelled, or it is too long for the context.

        Raises:
            SprigError: the model cannot be loaded, or the template refuses.
        """
        self._check_usable()
        with suppress(Unanswered), self._in_use.reading(cancelled or threading.Event()) as stop:
            for part in self.engine.loading(Until(stop)):
                on_event(Loading(part))
            with self._in_use.moment() as free:
                if not free:
                    return False
                tokens, prefix = self.transcript(Until(stop)).ahead()
                if len(tokens) + self.limits.room(self.engine.context) > self.engine.context:
                    return False  # the next run makes it shorter
                steps = self.engine.generate(
                    self._conversation, tokens, sampling=self.sampling, max_tokens=0, prefix=prefix, cancelled=stop
                )
            return not tokens or read(steps, on_event)
        return False

    def _parts(self, options: CheckedOptions, started: float, until: Until) -> Parts:
        """What a run may touch."""
        session = self.session.id if self.session else ""
        return Parts(
            engine=self.engine, template=self.template, transcript=self.transcript(until), conversation=self._conversation,
            session=self.session, tools=self.tools, gate=self.gate, constrain=self.constrain, max_thinking=self.max_thinking,
            cancelled=self._cancelled, started=started, options=options, hooks=self.hooks, loop=self.loop,
            spans=Spans(self.engine.file.name, session, options.sampling, options.limits.tokens, options.stop),
        )  # fmt: skip

    def _check_usable(self) -> None:
        if self._closed:
            raise SprigError("this agent is closed")
        if os.getpid() != self._process:
            raise SprigError(f"this agent belongs to the process that made it ({self._process}); a forked process makes its own")

    def cancel(self) -> None:
        """End the current run, and ``prepare``; from any thread. A tool ends at once, the model after the step that it is at."""
        self._cancelled.set()
        self._in_use.stop_reading()

    @property
    def engine(self) -> Engine:
        """The model; fixed, as its adapters are."""
        return self._engine

    @property
    def template(self) -> ChatTemplate:
        """The model's chat template."""
        return self._template

    @property
    def session(self) -> Session | None:
        """Where the conversation is kept. It can be set until the conversation begins; ``resume`` goes on with another one."""
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        if session is not self._session and any(m.role != "system" for m in self.messages if m not in self._seed):
            raise SprigError(
                "the conversation has begun and its session is fixed; agent.resume(session) goes on with another one"
            )
        self._session, self._transcript = session, None
        self._keep_seed()

    @property
    def messages(self) -> tuple[Message, ...]:
        """The conversation so far."""
        if self._transcript is not None:
            return (*self._transcript.messages, *self._transcript.held)
        kept = [stored.message for stored in self._stored()] or self._seed
        return (*self._start(), *kept) if kept else ()

    @property
    def tokens(self) -> int:
        """How much of the context the conversation takes, as far as it was computed."""
        return len(self._transcript.tokens) if self._transcript is not None else 0

    def reset(self) -> None:
        """Begin a new conversation. A session's messages stay where they are kept."""
        self.resume(None)

    def resume(self, session: Session | None) -> None:
        """Go on with another session instead, from its current leaf; with None, with a conversation that is not kept."""
        with self._in_use.run():
            self._transcript, self._seed = None, ()
            self._session = session
            self.gate.session.clear()  # what was allowed "in this session" was allowed in that one
            self.engine.forget(self._conversation)
            self._conversation = self.engine.conversation()

    def branch(self, at: int | None) -> None:
        """Go back to a message of the session (its id), or before the first one, and go on from there."""
        if self.session is None:
            raise SprigError("only a conversation that is kept in a session has branches: Agent(session=...)")
        with self._in_use.run():
            self.session.branch(at)
            self._transcript = None

    def compact(self) -> Compacted | None:
        """Shorten what was said before the last question, as it is done when the context is full; None when nothing is gained.

        The session keeps everything: whoever takes it up again, also with another model, begins with all of it.
        """
        with self._in_use.run():
            transcript = self.transcript()
            before = len(transcript.tokens)
            what = compact(transcript)
            return Compacted(what, before, len(transcript.tokens)) if what is not None else None

    def undo(self) -> tuple[UndoneFile, ...]:
        """Put back the files that ``write_file`` and ``edit_file`` changed in the last run that did, as far as they still are
        what was written; again, those of the run before. Only with a session: it keeps what the files held.
        """
        from agent.tools.builtin.undo import undo

        if self.session is None:
            raise SprigError("only a conversation that is kept in a session can be undone: Agent(session=...)")
        with self._in_use.run():
            return undo(self.session.id)

    def close(self) -> None:
        """End the child processes. An engine that was handed in stays open."""
        if os.getpid() != self._process:  # a fork: they are its parent's
            return
        self._closed = True
        self.cancel()
        self._opened.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def transcript(self, until: Until = FOREVER) -> Transcript:
        """The conversation's tokens: made, or taken up from the session, at first use; made anew when system or tools changed.

        Raises Unanswered, see Engine.tokenize.
        """
        specs, options = tuple(tool.spec for tool in self.tools), self._options()
        now = self._transcript
        if now is None:
            now = Transcript(self.engine, self.template, specs, options, marks=self._plain_marks(until), until=until)
            self._take_up(now)
        now.until = until
        if (now.system, now.tools, now.options) != (self.system, specs, options):
            now = now.changed(self.system, specs, options)
            if self.session is not None:
                self.session.configure(system=self.system, tools=[tool.name for tool in self.tools])
        self._transcript = now
        return now

    def _plain_marks(self, until: Until) -> tuple[str, ...]:
        """The marks of roles that are plain text in this model's vocabulary."""
        if self._marks is None:
            self._marks = plain_marks(self.template.profile.marks, lambda s: self.engine.tokenize([s], after=0, until=until))
        return self._marks

    def _options(self) -> dict[str, Any]:
        """The variables for the template that switch thinking, and those of the script."""
        profile = self.template.profile
        switch = {None: {}, True: profile.thinking_on, False: profile.thinking_off}[self._thinking]
        return {**switch, **self.template_options}

    def _start(self) -> list[Message]:
        return [Message("system", self.system)] if self.system else []

    def _stored(self) -> list[StoredMessage]:
        if self.session is None or self._closed:
            return []
        return [s for s in self.session.messages() if s.message.role != "system"]

    def _keep_seed(self) -> None:
        """Write the messages that the agent was made with into its session. SprigError when that has others."""
        if self._seed and self.session is not None:
            if self._stored():
                raise SprigError("messages= begins a conversation, and this session has one already; leave either out")
            for message in self._seed:
                self.session.append(message)
            self._seed = ()

    def _take_up(self, transcript: Transcript) -> None:
        """The messages of the session; their tokens too, where this very model generated them."""
        stored, start = self._stored(), self._start()
        imported = self.session is not None and bool(self.session.info.settings.get(IMPORTED))
        messages = taken_up(stored, self._seed, self.tools, imported=imported)
        turns = {
            len(start) + i: list(s.tokens)
            for i, s in enumerate(stored)
            if len(messages) == len(stored) and s.message.role == "assistant" and s.tokens
            and s.fingerprint == self.engine.file.identity
        }  # fmt: skip
        transcript.take_up([*start, *messages], turns)


def _engine(model: str | Path, lora: Sequence[Lora], options: Mapping[str, Any] | None) -> Engine:
    return Engine(model, **{**(options or {}), **({"lora": lora} if lora else {})})
