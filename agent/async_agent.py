"""The agent in an asyncio event loop: one Agent inside, each of its runs in a thread, and the events handed to the loop."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import threading
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from agent.agent import Agent
from agent.engine.handle import Engine
from agent.engine.sampling import Sampling
from agent.errors import SprigError
from agent.events import Compacted, Done, Event, Loading, Result
from agent.limits import Limits
from agent.messages import Message
from agent.sessions.session import Session
from agent.tools.define import Tool

if TYPE_CHECKING:
    from agent.settings.values import Settings
    from agent.tools.builtin.undo import UndoneFile

T = TypeVar("T")
_AHEAD = 64  # events that wait for the loop at most; a run that is further ahead waits


class AsyncAgent(AbstractAsyncContextManager["AsyncAgent"]):
    """An Agent whose runs are awaited; for asyncio.

    The model is loaded in a thread, by ``async with`` or the first await. Coroutines (of tools, ``approve`` and hooks) run in the
    loop that awaits the run, and see its context variables; plain functions run in threads, and see them too.

    A task that is cancelled while it awaits a run cancels the run, and goes on when that has come to rest; the agent can then be
    used again.

    Args:
        model: as for Agent.
        settings: the other arguments of Agent.
    """

    # What the agent inside has, can be read and set as there, once it is open.
    messages: tuple[Message, ...]
    tokens: int
    notes: list[str]
    tools: tuple[Tool, ...]
    system: str
    limits: Limits
    sampling: Sampling
    session: Session | None
    engine: Engine

    def __init__(self, model: str | Path | Engine, **settings: Any) -> None:
        self._prepare(partial(Agent, model, **settings))

    @classmethod
    def from_settings(cls, settings: Settings | str | Path | None = None, **overrides: Any) -> AsyncAgent:
        """The agent of the settings, as Agent.from_settings. They are read when the agent is opened."""
        agent = cls.__new__(cls)
        agent._prepare(partial(Agent.from_settings, settings, **overrides))
        return agent

    def _prepare(self, make: Callable[[], Agent]) -> None:
        self._make = make
        self._agent: Agent | None = None
        self._closed = False
        self._lock = asyncio.Lock()  # while it is opened or closed
        self._runs: set[_Run] = set()  # whose threads have not ended

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"an AsyncAgent has no {name!r}")
        return getattr(self.opened, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            super().__setattr__(name, value)
        else:
            setattr(self.opened, name, value)

    @property
    def opened(self) -> Agent:
        """The agent inside. Raises SprigError before it is open."""
        if self._agent is None:
            raise SprigError("this agent is not open yet: use it in `async with`, or await its open() first")
        return self._agent

    async def open(self) -> None:
        """Find the model and begin to load it. Raises SprigError as Agent does."""
        async with self._lock:
            if self._closed:
                raise SprigError("this agent is closed")
            if self._agent is None:
                self._agent = await _in_thread(self._make, undo=Agent.close)

    async def run(self, text: Any, **options: Any) -> Result:
        """Answer a message, calling tools as needed; arguments, result and errors are those of Agent.run."""
        result = None
        async for event in EventStream(partial(self._begin, text, options, (Done,))):
            if isinstance(event, Done):
                result = event.result
        assert result is not None
        return result

    def stream(self, text: Any, **options: Any) -> EventStream:
        """The same as it happens, as Agent.stream. Leaving the loop early cancels the run; ``aclose()`` waits for its end too."""
        return EventStream(partial(self._begin, text, options, None))

    async def _begin(self, text: Any, options: dict[str, Any], wanted: tuple[type[Event], ...] | None) -> _Run:
        agent = await self._idle()
        agent.loop = asyncio.get_running_loop()
        return _Run(agent, partial(agent.stream, text, **options), wanted, self._runs)

    async def _idle(self) -> Agent:
        """The agent, open, and no run in it that was left and has not ended."""
        await self.open()
        for run in [run for run in self._runs if run.left.is_set()]:
            await run.settled()
        return self.opened

    def cancel(self) -> None:
        """End the current run, which then gives a result with the reason "cancelled"; from any thread."""
        for run in tuple(self._runs):
            run.cancel()

    async def prepare(self) -> bool:
        """As Agent.prepare: read ahead what the next answer needs; a run that is awaited meanwhile goes ahead."""
        agent, stop = await self._idle(), threading.Event()
        reading = asyncio.ensure_future(_in_thread(partial(agent.prepare, cancelled=stop)))
        try:
            return await asyncio.shield(reading)
        finally:
            stop.set()
            await asyncio.wait([reading])

    async def reset(self) -> None:
        """As Agent.reset."""
        await _in_thread((await self._idle()).reset)

    async def resume(self, session: Session | None) -> None:
        """As Agent.resume."""
        await _in_thread(partial((await self._idle()).resume, session))

    async def branch(self, at: int | None) -> None:
        """As Agent.branch."""
        await _in_thread(partial((await self._idle()).branch, at))

    async def compact(self) -> Compacted | None:
        """As Agent.compact."""
        return await _in_thread((await self._idle()).compact)

    async def undo(self) -> tuple[UndoneFile, ...]:
        """As Agent.undo."""
        return await _in_thread((await self._idle()).undo)

    async def close(self) -> None:
        """Cancel what runs, wait for its end, and end the child processes. An engine that was handed in stays open."""
        self._closed = True
        async with self._lock:
            runs = tuple(self._runs)
            for run in runs:
                run.cancel()
            try:
                for run in runs:
                    await run.settled()
            finally:
                if self._agent is not None:
                    await _in_thread(self._agent.close)

    async def __aenter__(self) -> AsyncAgent:
        await self.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Run:
    """One run of the agent in a thread of its own, from the moment it is made."""

    def __init__(
        self, agent: Agent, start: Callable[[], object], wanted: tuple[type[Event], ...] | None, running: set[_Run]
    ) -> None:
        self.left = threading.Event()  # nobody reads the events any more
        self._agent, self._start, self._wanted, self._running = agent, start, wanted, running
        self._loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._room = threading.Semaphore(_AHEAD)
        self._news, self._ended = asyncio.Event(), asyncio.Event()
        self._cancelled = threading.Event()
        self._error: BaseException | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), daemon=True, name="sprig-run")
        running.add(self)
        self._thread.start()

    def _work(self) -> None:
        try:
            with contextlib.closing(cast("Generator[Event]", self._start())) as events:
                for event in events:
                    if self._cancelled.is_set():
                        self._agent.cancel()  # the first wish may have come before the run began, which then forgot it
                    if not self.left.is_set():
                        self._hand_over(event)
                    elif isinstance(event, Loading):
                        break
        except BaseException as e:  # also SystemExit of a hook: it is raised where the run is awaited
            self._error = e
        finally:
            self._in_loop(self._end)

    def _hand_over(self, event: Event) -> None:
        if self._wanted is None or isinstance(event, self._wanted):
            if not self._cancelled.is_set():
                self._room.acquire()
            self._events.append(event)
            self._in_loop(self._news.set)

    def _in_loop(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed
            self.leave()

    def _end(self) -> None:
        self._running.discard(self)
        self._ended.set()
        self._news.set()

    async def next(self) -> Event | None:
        """The next event; None when there is none any more. Raises what the run raised."""
        if self.left.is_set():
            return None
        while not self._events and not self._ended.is_set():
            self._news.clear()
            await self._news.wait()
        if self._events:
            self._room.release()
            return self._events.popleft()
        self._thread.join()
        if self._error is not None:
            raise self._error
        return None

    def cancel(self) -> None:
        """End the run, which no longer waits for its reader; from any thread."""
        self._cancelled.set()
        self._agent.cancel()
        self._room.release()

    def leave(self) -> None:
        """End the run and read no more of it; from any thread."""
        if self._thread.is_alive() and not self.left.is_set():
            self.left.set()
            self.cancel()

    async def settled(self) -> None:
        """Wait until the thread has ended."""
        await _patiently(self._ended)
        self._thread.join()


class EventStream(AsyncIterator[Event]):
    """The events of one run, which begins with the first wait for one."""

    def __init__(self, begin: Callable[[], Awaitable[_Run]]) -> None:
        self._begin = begin
        self._run: _Run | None = None

    async def __anext__(self) -> Event:
        if self._run is None:
            self._run = await self._begin()
        try:
            event = await self._run.next()
        except BaseException:
            await self.aclose()
            raise
        if event is None:
            raise StopAsyncIteration
        return event

    async def aclose(self) -> None:
        """End the run and wait until it has come to rest."""
        if self._run is not None:
            self._run.leave()
            await self._run.settled()

    def __del__(self) -> None:
        if self._run is not None:
            self._run.leave()


async def _patiently(event: asyncio.Event) -> None:
    """Wait for an event that comes soon; a cancellation meanwhile is raised afterwards."""
    cancelled: asyncio.CancelledError | None = None
    while not event.is_set():
        try:
            await event.wait()
        except asyncio.CancelledError as e:
            cancelled = e
    if cancelled is not None:
        raise cancelled


async def _in_thread(function: Callable[[], T], undo: Callable[[T], object] = lambda made: None) -> T:
    """Call a function in a thread that ends with it; ``undo`` gets what it gave when the waiting was cancelled meanwhile."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    made: list[T] = []
    error: list[BaseException] = []

    def work() -> None:
        try:
            made.append(function())
        except BaseException as e:
            error.append(e)
        finally:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(ended.set)

    thread = threading.Thread(target=contextvars.copy_context().run, args=(work,), daemon=True, name="sprig-call")
    thread.start()
    try:
        await _patiently(ended)
    except asyncio.CancelledError:
        if made:
            await _in_thread(partial(undo, made[0]))
        raise
    finally:
        thread.join()  # it has nothing left to do
    if error:
        raise error[0]
    return made[0]
