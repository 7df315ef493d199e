"""A conversation with an agent, led by a person. What may take long happens in one thread; what comes of it is told as notes."""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from agent.errors import ContextFull, SprigError
from agent.events import Prefill, ToolsChanged
from agent.sessions.records import title_of
from tui.prompt.along import MessageSize
from tui.prompt.attach import split
from tui.talk.entries import entries
from tui.talk.facts import StoppedWaiting, facts_of, name_of, tokens_when_empty, tools_of
from tui.talk.notes import (
    Began,
    Failed,
    NotAsked,
    Opened,
    OpenFailed,
    Opening,
    Question,
    QuestionWithdrawn,
    ReadAhead,
    ReadingAhead,
    Settled,
    Shown,
    ToolsNow,
)
from tui.talk.setup import Setup

if TYPE_CHECKING:
    from agent.agent import Agent
    from agent.approval.policy import Answer, ApprovalRequest, Rule
    from agent.engine.handle import Engine
    from agent.sessions.store import Session, Store
    from agent.settings.values import EngineSettings
    from agent.tools.mcp.servers import MCPEvent, MCPTool

_STOPPED = "the question was taken back"
_WEIGHING = 5.0  # seconds that a person waits for a number


class Talk:
    """Leads a conversation. Its methods return at once, may be called from any one thread, and run one after another."""

    def __init__(
        self, tell: Callable[[Any], None], store: Callable[[], Store], make_engine: Callable[[Setup], Engine] | None = None
    ) -> None:
        """
        Args:
            tell: gets every note and event, from the talk's threads.
            store: gives the store of the sessions; called in the talk's thread.
            make_engine: loads a model; by default as the setup says.
        """
        self._tell, self._store = tell, store
        self._make_engine = make_engine or _engine
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._numbers = itertools.count(1)
        self._answers: dict[int, queue.SimpleQueue[Answer]] = {}
        self._stopping = threading.Event()
        self._closing = False
        self._agent: Agent | None = None
        self._engine: Engine | None = None
        self._engine_of: tuple[str, EngineSettings] | None = None
        self._servers: Any = None
        self._servers_of: tuple[Any, ...] = ()
        self._renewed = False  # since the last message: a server that says so without end is not followed
        self._waited_for = threading.Event()  # a person wants something: no server is waited for
        self._session: Session | None = None
        self._allowed: list[Rule] = []  # "yes, this session"; whatever model answers
        self._setup = Setup()
        self._empty: int | None = None  # tokens of a conversation in which an empty message is asked; None while nobody knows
        self._thread = threading.Thread(target=self._work, name="talk", daemon=True)
        self._thread.start()

    # What a person does.

    def open(self, setup: Setup) -> None:
        """Make the agent ready, or change it; the conversation stays. Loads the model only when it is another one."""
        self._jobs.put(lambda: self._open(setup))

    def load(self, session: str | None, at: int | None = None) -> None:
        """Go on with a session, looking at message ``at``; None begins a new one, which is kept from its first message on."""
        self._jobs.put(lambda: self._load(session, at))

    def ask(self, text: str) -> None:
        self._jobs.put(lambda: self._run(text))
        self._waited_for.set()

    def again(self, question: int) -> None:
        """Answer a person's message once more, beside the answers that it has."""
        self._jobs.put(lambda: self._again(question))

    def edit(self, parent: int | None, text: str) -> None:
        """Ask something else after message ``parent`` (None: at the very beginning), on a branch of its own."""
        self._jobs.put(lambda: self._edit(parent, text))

    def go(self, message: int) -> None:
        """To the branch of a message."""
        self._jobs.put(lambda: self._go(message))

    def difference(self, tool: str) -> str:
        """How a server's tool is now, against how a person knows it, as a unified diff; untrusted. Any thread may ask."""
        found = self._server_tool(tool)
        return found.difference() if found is not None else ""

    def accept(self, tool: str, version: str) -> None:
        """A person has seen how a server's tool is now: rules cover it again."""
        self._jobs.put(lambda: self._accept(tool, version))

    def compact(self) -> None:
        """Shorten what the model keeps of the conversation; the session keeps all of it."""
        self._jobs.put(self._compact)

    def stop(self) -> None:
        """End the run, in prefill too; an open question is answered with no."""
        self._stopping.set()
        self._waited_for.set()
        agent = self._agent
        if agent is not None:
            agent.cancel()
        self._refuse_all()

    def answer(self, number: int, answer: Answer, rule: Rule | None = None) -> None:
        """A person's word about a question. ``rule`` holds from now on, before this answer takes effect."""
        if rule is not None:
            self.add_rule(rule)
        waiting = self._answers.get(number)
        if waiting is not None:
            waiting.put(answer)

    def add_rule(self, rule: Rule) -> None:
        """Let a rule of the policy hold at once."""
        self.set_rules((*self._setup.rules, rule))

    def set_rules(self, rules: tuple[Rule, ...]) -> None:
        """Let these rules of the policy hold at once, and no others."""
        self._setup = replace(self._setup, rules=rules)
        agent = self._agent
        if agent is not None:
            agent.gate.policy = replace(agent.gate.policy, rules=rules)

    @property
    def rules(self) -> tuple[Rule, ...]:
        """The approval rules that hold now, beside those of the session."""
        return self._setup.rules

    @property
    def session(self) -> str:
        """Id of the session that is kept, from the moment on that its first message is asked; "" before."""
        return self._session.id if self._session is not None else ""

    @property
    def session_rules(self) -> tuple[Rule, ...]:
        """What a person has allowed for as long as this session lasts."""
        return tuple(self._allowed)

    def weigh(self, text: str) -> MessageSize | None:
        """What a message would take, from any thread; None while no model is there. It may take a moment, but never loads one."""
        from agent.engine.until import Until
        from agent.messages import Segment

        agent, empty = self._agent, self._empty
        if agent is None or empty is None:
            return None
        try:
            # The token in front of it is any, so that no beginning of a conversation is counted twice.
            tokens = agent.engine.tokenize(
                [Segment(text, trusted=False)], after=0, until=Until(deadline=time.monotonic() + _WEIGHING)
            )
        except SprigError:
            return None
        context = agent.engine.context
        return MessageSize(len(tokens), max(0, context - agent.limits.room(context) - empty))

    def close(self, timeout: float = 15.0) -> None:
        """End everything, and wait for it."""
        self._closing = True
        self.stop()
        self._jobs.put(None)
        self._thread.join(timeout)

    # In the thread.

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if self._closing:
                continue
            try:
                job()
            except SprigError as e:
                self._tell(Failed(str(e)))
            except Exception as e:  # a fault of ours must not silence the conversation
                self._tell(Failed(f"that did not work ({type(e).__name__}: {' '.join(str(e).split())})"))
        for part in (self._agent, self._engine, self._servers, self._session):
            if part is not None:
                with contextlib.suppress(SprigError):
                    part.close()

    def _open(self, setup: Setup) -> None:
        setup = replace(setup, rules=(*setup.rules, *(r for r in self._setup.rules if r not in setup.rules)))
        self._tell(Opening(str(setup.model)))
        try:
            problems = self._connect(setup)
            engine = self._load_engine(setup)
            setup = setup.for_model(engine.file)
            self._make_agent(setup, engine)
        except SprigError as e:
            from agent.models.memory import ContextTooLarge

            self._tell(OpenFailed(str(e), setup, isinstance(e, ContextTooLarge)))
            return
        self._setup = setup
        assert self._agent is not None
        self._agent.notes, notes = [], self._agent.notes
        small = setup.usual_tools and not setup.tools
        self._tell(Opened(facts_of(self._agent, self._servers, (*problems, *notes), small=small), setup))
        if self._session is not None:
            self._session.configure(model=engine.file.path, system=setup.system, tools=[t.name for t in self._agent.tools])
        self._look_ahead(self._agent)

    def _look_ahead(self, agent: Agent) -> None:
        """The prompt is another one: see how long it is, and read it while the person writes."""
        self._empty = tokens_when_empty(agent)
        if not self._closing:
            threading.Thread(target=self._read_ahead, args=(agent,), name="ahead", daemon=True).start()

    def _read_ahead(self, agent: Agent) -> None:
        """In a thread of its own: whatever the person does meanwhile goes first, and ends it where it is in the way."""
        told = False

        def tell(event: Any) -> None:
            nonlocal told
            if isinstance(event, Prefill) and event.done < event.total:
                told = True
                self._tell(ReadingAhead(event.done, event.total))

        with contextlib.suppress(SprigError):  # the first question will say it
            agent.prepare(tell)
        if told:
            self._tell(ReadAhead())

    def _connect(self, setup: Setup) -> tuple[str, ...]:
        if self._servers_of != setup.mcp:
            if self._servers is not None:
                self._servers.close()
            self._servers, self._servers_of = None, ()
            if setup.mcp:
                from agent.tools.mcp.servers import MCPServers

                self._servers = MCPServers(setup.mcp, on_event=self._server_says)
                self._servers.__enter__()
                self._servers_of = setup.mcp
        return tuple(self._servers.errors.values()) if self._servers is not None else ()

    def _server_says(self, event: MCPEvent) -> None:
        """From a thread of the servers."""
        if event.kind == "tools" and not self._renewed:
            self._renewed = True
            self._jobs.put(self._renew)

    def _renew(self) -> None:
        """Take up what the servers offer now, once between two messages; the run that follows does it anyway."""
        self._waited_for.clear()
        self._stopping.clear()
        agent = self._agent if self._jobs.empty() and not self._closing else None
        if agent is not None and isinstance(changed := agent.renew_tools(self._waited_for.is_set), ToolsChanged):
            self._tell(ToolsNow(tools_of(agent, self._servers), changed))
            agent.cancel()  # what is read ahead is not what will be asked
            self._look_ahead(agent)

    def _server_tool(self, name: str) -> MCPTool | None:
        servers = self._servers
        return next((tool for tool in servers.known_tools() if tool.spec.name == name), None) if servers is not None else None

    def _accept(self, name: str, version: str) -> None:
        tool, agent = self._server_tool(name), self._ready()
        if tool is None or tool.version != version:
            raise SprigError(f"{name} is another one again, or gone: look at it once more (/tools)")
        self._servers.accept(tool)
        self._tell(ToolsNow(tools_of(agent, self._servers)))

    def _load_engine(self, setup: Setup) -> Engine:
        if self._engine is None or self._engine_of != setup.load:
            self._close_agent()
            if self._engine is not None:  # two models at once may not fit
                self._engine.close()
                self._engine = None
            engine = self._make_engine(setup)
            try:
                for part in engine.loading():
                    self._tell(Opening(name_of(engine.file), part))
                    if self._closing:
                        break
            except BaseException:
                engine.close()
                raise
            self._engine, self._engine_of = engine, setup.load
        return self._engine

    def _make_agent(self, setup: Setup, engine: Engine) -> None:
        from agent.agent import Agent
        from agent.approval.policy import Policy
        from agent.limits import Limits

        servers = [StoppedWaiting(self._servers, self._stopping)] if self._servers is not None else []
        agent = Agent(
            engine,
            tools=[*setup.tools, *servers],
            system=setup.system,
            approve=self._approve,
            policy=Policy(setup.rules, setup.unconfined),
            root=setup.root,
            session=self._session,
            thinking=setup.thinking,
            sampling=setup.sampling,
            embedding_model=setup.embedding_model,
            limits=Limits(rounds=setup.rounds, tokens=setup.max_tokens, seconds=setup.seconds),
        )
        agent.gate.session = self._allowed
        self._close_agent()
        self._agent = agent

    def _close_agent(self) -> None:
        if self._agent is not None:
            self._agent.close()
            self._agent = self._empty = None

    def _ready(self) -> Agent:
        if self._agent is None:
            raise SprigError("there is no model yet: choose one first (/model)")
        return self._agent

    def _load(self, session: str | None, at: int | None) -> None:
        self._session = self._store().open(session) if session is not None else None
        if self._session is not None and at is not None and all(m.id != at for m in self._session.messages()):
            self._session.switch(at)
        self._allowed.clear()
        if self._agent is not None:
            self._agent.resume(self._session)
        self._show(at)

    def _run(self, text: str | None) -> None:
        self._stopping.clear()
        self._renewed = False
        self._tell(Began(text))
        try:
            agent = self._ready()
            if self._session is None and agent.session is None:
                self._session = agent.session = self._store().create(
                    model=agent.engine.file.path, title=title_of(split(text or "")[0]), system=self._setup.system,
                    tools=[t.name for t in agent.tools],
                )  # fmt: skip
            for event in agent.stream(text):
                self._tell(ToolsNow(tools_of(agent, self._servers), event) if isinstance(event, ToolsChanged) else event)
                if self._stopping.is_set():  # it may have been set before the run could be cancelled
                    agent.cancel()
        except SprigError as e:
            self._tell(NotAsked(text, str(e), isinstance(e, ContextFull)))
        finally:
            self._settle()

    def _again(self, question: int) -> None:
        self._ready().branch(question)
        self._show(None)
        self._run(None)

    def _edit(self, parent: int | None, text: str) -> None:
        try:
            self._ready().branch(parent)
        except SprigError as e:
            self._tell(NotAsked(text, str(e)))
            return
        self._show(None)
        self._run(text)

    def _compact(self) -> None:
        done = self._ready().compact()
        if done is None:
            raise SprigError("there is nothing to shorten: what was said last stays whole")
        self._tell(done)

    def _go(self, message: int) -> None:
        if self._session is None:
            return
        self._session.switch(message)
        if self._agent is not None:
            self._agent.branch(self._session.leaf)
        self._show(message)

    def _show(self, at: int | None) -> None:
        session = self._session
        if session is None:
            self._tell(Shown("", "", []))
            return
        self._tell(Shown(session.id, session.info.title, entries(session.all_messages(), session.leaf), at))

    def _settle(self) -> None:
        session, agent = self._session, self._agent
        shown = entries(session.all_messages(), session.leaf) if session is not None else []
        title = session.info.title if session is not None else ""
        self._tell(Settled(shown, session.id if session is not None else "", title, agent.tokens if agent is not None else 0))

    # Questions.

    def _approve(self, request: ApprovalRequest) -> Answer:
        from agent.approval.policy import Answer

        number = next(self._numbers)
        waiting: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self._answers[number] = waiting
        if self._stopping.is_set():
            waiting.put(Answer.no(_STOPPED))
        else:
            self._tell(Question(number, request))
        try:
            return waiting.get()
        finally:
            del self._answers[number]

    def _refuse_all(self) -> None:
        from agent.approval.policy import Answer

        for number, waiting in list(self._answers.items()):
            waiting.put(Answer.no(_STOPPED))
            self._tell(QuestionWithdrawn(number))


def _engine(setup: Setup) -> Engine:
    """Load the model with a lower priority than the screen: a key press comes first."""
    from agent.engine.handle import Engine

    return Engine(setup.model, **asdict(setup.engine), nice=5)
