"""Waiting for a model: many may, each is told, and no wait is without an end, whether the worker dies, is stopped or is busy."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.agent import Agent
from agent.children.launch import launch
from agent.engine.connection import Request
from agent.engine.handle import EndStep, Engine, TextStep
from agent.engine.model_process import LoadState
from agent.engine.sampling import Sampling
from agent.engine.until import FOREVER, Until
from agent.errors import EngineError, Unanswered
from agent.events import Done, Text
from agent.limits import Limits
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.endless import CONSTRAINT, ENDLESS, WILD

pytestmark = pytest.mark.usefixtures("module_home", "kept_templates")

GREEDY = Sampling(temperature=0, seed=1)
PROMPT = [1, *range(3, 120)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model") / "hermes.gguf", "hermes")


@pytest.fixture
def engine(model: Path) -> Iterator[Engine]:
    with Engine(model, context=1024, threads=1, batch=64, keep_prefix=False) as made:
        yield made


def together(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What so many threads gave or raised, in order; fails when one of them hangs."""
    got: list[Any] = [None] * count

    def run(i: int) -> None:
        try:
            got[i] = work(i)
        except Exception as e:
            got[i] = e

    threads = [threading.Thread(target=run, args=(i,), daemon=True) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
    return got


def pid(engine: Engine) -> int:
    return engine._connection.child.pid


def stop(engine: Engine) -> int:
    """Stop the worker as a debugger would, and give its process id."""
    os.kill(pid(engine), signal.SIGSTOP)
    return pid(engine)


@pytest.fixture
def loading(model: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """Its first worker is stopped before it is asked to load, however fast that would be."""

    def launch_and_stop(*args: Any, **given: Any) -> Any:
        monkeypatch.setattr("agent.engine.connection.launch", launch)
        child = launch(*args, **given)
        os.kill(child.pid, signal.SIGSTOP)
        return child

    monkeypatch.setattr("agent.engine.connection.launch", launch_and_stop)
    with Engine(model, context=512, threads=1) as engine:
        yield engine


def gone(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] == b"Z"
    except OSError:
        return True


def say(engine: Engine, name: str = "a", count: int = 8, **given: Any) -> EndStep:
    *_, end = engine.generate(name, PROMPT, sampling=GREEDY, max_tokens=count, **given)
    assert isinstance(end, EndStep)
    return end


class FakeConnection:
    """A worker that says nothing by itself."""

    died_itself = True
    heard = 0.0

    def __init__(self) -> None:
        self.sent: list[Any] = []

    def send(self, message: Any) -> None:
        self.sent.append(message)

    def look(self, since: float) -> None:
        pass

    def error(self) -> EngineError:
        return EngineError("it died")


# Many wait for one load.


def test_many_agents_begin_on_one_fresh_engine(model: Path) -> None:
    with Engine(model, context=4096, threads=1, conversations=8, keep_prefix=False) as engine:

        def ask(i: int) -> str:
            with Agent(engine, limits=Limits(tokens=4)) as agent:
                return agent.run(f"Count {i}.").reason

        assert set(together(8, ask)) <= {"length", "done"}
        assert engine.restarts == 0


@pytest.mark.slow
def test_several_agents_begin_at_once_on_one_file(model: Path) -> None:
    def ask(i: int) -> str:
        with Agent(model, engine={"context": 512, "threads": 1}, limits=Limits(tokens=3)) as agent:
            return agent.run("Count.").reason

    assert set(together(3, ask)) <= {"length", "done"}


def test_the_progress_of_a_load_is_shown_to_each_and_so_is_its_end() -> None:
    load = LoadState(FakeConnection(), 1)  # type: ignore[arg-type]
    ready = threading.Barrier(4)
    seen = threading.Barrier(4)

    def watch(i: int) -> list[float]:
        parts = load.parts(FOREVER)
        ready.wait(20)
        first = next(parts)
        seen.wait(20)
        return [first, *parts]

    def tell() -> None:
        ready.wait(20)
        load.take({"event": "progress", "part": 0.5})
        seen.wait(20)
        load.take({"event": "loaded", "model": {"context": 1, "partial_rollback": True, "seconds": 1.0, "resident": 1}})

    threading.Thread(target=tell, daemon=True).start()
    assert together(3, watch) == [[0.5]] * 3
    assert list(load.parts(FOREVER)) == []


def test_a_load_that_fails_fails_for_each() -> None:
    for message, refused in (({"event": "failed", "why": "it died"}, True), ({"event": "dead"}, True)):
        load = LoadState(FakeConnection(), 1)  # type: ignore[arg-type]
        threading.Timer(0.05, load.take, [message]).start()
        assert [str(e) for e in together(3, lambda i, load=load: list(load.parts(FOREVER)))] == ["it died"] * 3  # type: ignore[misc]
        assert load.refused is refused


@pytest.mark.slow
@pytest.mark.parametrize("how", ["time", "cancelled"])
def test_who_waits_for_a_load_may_give_up_and_the_others_go_on(loading: Engine, how: str) -> None:
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(Unanswered, match="not loaded yet") as e:
        loading.wait(0.1) if how == "time" else list(loading.loading(Until(cancelled)))
    assert e.value.reason == how
    # It was stopped, and said nothing when it was asked: the next one who needs it gets another.
    assert loading.wait(30).context == 512
    assert loading.restarts == 1


@pytest.mark.slow
def test_a_worker_that_is_killed_while_many_wait_for_the_load_is_there_again_for_the_next(loading: Engine) -> None:
    threading.Timer(0.2, os.kill, [pid(loading), signal.SIGKILL]).start()
    errors = together(3, lambda i: loading.wait())
    assert [type(e) for e in errors] == [EngineError] * 3
    assert {str(e) for e in errors} == {str(errors[0])}
    assert "the kernel killed it" in str(errors[0])
    assert {loaded.context for loaded in together(3, lambda i: loading.wait())} == {512}
    assert loading.restarts == 1


def test_a_worker_that_dies_while_many_generate_is_one_error_each_and_one_restart(engine: Engine) -> None:
    begun = threading.Barrier(4)

    def talk(i: int) -> None:
        steps = engine.generate(f"c{i}", [*PROMPT, 20 + i], sampling=Sampling(**WILD), max_tokens=900, constraint=CONSTRAINT)
        next(s for s in steps if isinstance(s, TextStep))
        begun.wait(20)
        list(steps)

    def kill() -> None:
        begun.wait(20)
        os.kill(pid(engine), signal.SIGKILL)

    threading.Thread(target=kill, daemon=True).start()
    errors = together(3, talk)
    assert [type(e) for e in errors] == [EngineError] * 3
    assert all("starts again" in str(e) for e in errors)
    assert {e.reason for e in together(3, lambda i: say(engine, f"c{i}"))} == {"length"}
    assert engine.restarts == 1


# A worker that does not answer.


@pytest.mark.slow
@pytest.mark.parametrize("how", ["time", "cancelled"])
def test_a_run_ends_in_time_though_its_worker_is_stopped(engine: Engine, how: str) -> None:
    limits = Limits(tokens=900, seconds=1.0 if how == "time" else None)
    with Agent(engine, limits=limits, sampling=WILD) as agent:
        agent.run("Warm up.", limits=Limits(tokens=2))
        began = stopped = 0.0
        result = None
        words = 0
        start = time.monotonic()
        for event in agent.stream("Tell me a long story.", schema=ENDLESS):
            if isinstance(event, Text) and not stopped:
                stopped = time.monotonic()
                child = stop(engine)
                if how == "cancelled":
                    threading.Timer(0.2, agent.cancel).start()
            if isinstance(event, Text):
                words += 1
            if isinstance(event, Done):
                result = event.result
        began = start + 1.0 if how == "time" else stopped + 0.2
        assert stopped
        assert result is not None
        assert result.reason == how
        assert time.monotonic() - began < 2
        assert result.usage.generated_tokens > 0
        assert agent.run("And now?", limits=Limits(tokens=3)).reason in ("length", "done")
        assert engine.restarts == 1
        assert gone(child)
        assert [m.role for m in agent.messages] == ["user", "assistant"] * 3


@pytest.mark.slow
def test_a_run_that_begins_with_a_stopped_worker_ends_in_time(engine: Engine) -> None:
    with Agent(engine, limits=Limits(tokens=3, seconds=0.3)) as agent:
        agent.run("Warm up.", limits=Limits(tokens=2))
        stop(engine)
        start = time.monotonic()
        assert agent.run("Hello?").reason == "time"
        assert time.monotonic() - start < 2.3
        assert [m.role for m in agent.messages] == ["user", "assistant"], "what was not asked is no part of the conversation"
        assert agent.run("Hello?", limits=Limits(tokens=3)).reason in ("length", "done")


@pytest.mark.slow
def test_a_run_that_begins_while_a_stopped_worker_loads_ends_in_time(loading: Engine) -> None:
    with Agent(loading, limits=Limits(tokens=3, seconds=0.3)) as agent:
        start = time.monotonic()
        assert agent.run("Hello?").reason == "time"
        threading.Timer(0.2, agent.cancel).start()
        assert agent.run("Hello?", limits=Limits(tokens=3)).reason in ("length", "done", "cancelled")
        assert time.monotonic() - start < 30
        assert loading.restarts == 1


@pytest.mark.slow
def test_the_others_of_a_worker_that_was_ended_get_an_error(engine: Engine) -> None:
    engine.wait()
    begun = threading.Event()

    def talk(i: int) -> str:
        if i == 0:
            steps = engine.generate("patient", PROMPT, sampling=Sampling(**WILD), max_tokens=900, constraint=CONSTRAINT)
            next(s for s in steps if isinstance(s, TextStep))
            begun.set()
            return str([*steps][-1])
        begun.wait(20)
        stop(engine)
        assert say(engine, "hasty", seconds=0.1).reason == "time"
        return say(engine, "hasty").reason

    patient, hasty = together(2, talk)
    assert hasty == "length"
    assert isinstance(patient, EngineError)
    assert "it did not answer and was ended); it starts again when it is needed" in str(patient)


@pytest.mark.slow
def test_a_worker_that_is_only_slow_keeps_its_conversations(engine: Engine) -> None:
    say(engine, count=4)
    child = stop(engine)
    assert say(engine, seconds=0.1).reason == "time"
    os.kill(child, signal.SIGCONT)
    end = say(engine)
    assert end.reason == "length"
    assert end.timing["cached_tokens"] > 100
    assert engine.restarts == 0


@pytest.mark.slow
def test_a_stopped_worker_that_reads_nothing_holds_nobody_up(engine: Engine) -> None:
    engine.wait()
    child = stop(engine)
    start = time.monotonic()
    flood = {"op": "tokenize", "segments": [["flood " * 40_000, False]], "after": None}
    kept = [engine._connection.ask(flood, Request) for _ in range(4)]
    engine.forget("a")
    assert len(kept) == 4
    assert time.monotonic() - start < 1
    os.kill(child, signal.SIGCONT)
    assert all(len(one.answer(Until(deadline=start + 60))["ids"]) > 40_000 for one in kept)


@pytest.mark.parametrize("loaded", [True, False])
def test_an_engine_with_a_stopped_worker_is_closed_at_once(model: Path, loaded: bool) -> None:
    engine = Engine(model, context=512, threads=1)
    if loaded:
        engine.wait()
    child = stop(engine)
    waiting = threading.Thread(target=lambda: together(1, lambda i: say(engine)))
    waiting.start()
    start = time.monotonic()
    engine.close()
    assert time.monotonic() - start < 3
    assert gone(child)
    waiting.join(5)
    assert not waiting.is_alive()
    with pytest.raises(EngineError, match="this engine is closed"):
        engine.wait()


@pytest.mark.slow
def test_a_worker_that_hangs_without_being_stopped_is_ended_after_a_while(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine.wait()
    monkeypatch.setattr("agent.engine.connection.stopped", lambda pid: False)
    monkeypatch.setattr("agent.engine.connection._OWED", 0.5)
    child = stop(engine)
    assert say(engine, seconds=0.05).reason == "time"
    start = time.monotonic()
    assert say(engine).reason == "length"
    assert time.monotonic() - start > 0.2
    assert gone(child)
    assert engine.restarts == 1


@pytest.mark.slow
def test_a_closed_engine_frees_its_threads_and_descriptors(model: Path) -> None:
    def count() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    with Engine(model, context=512, threads=1):
        pass
    before, threads = count(), threading.active_count()
    for _ in range(3):
        with Engine(model, context=512, threads=1) as engine:
            engine.wait()
            os.kill(pid(engine), signal.SIGKILL)
            engine._connection.child.wait(20)
    assert threading.active_count() <= threads
    assert count() <= before


@pytest.mark.slow
def test_a_worker_is_seen_to_be_dead_though_a_fork_holds_its_end_of_the_socket(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tool in a process of its own may be forked between the making of a socket and the closing of its far end."""
    held: list[int] = []
    monkeypatch.setattr("agent.engine.connection._ALIVE_SECONDS", 0.1)

    def launch_and_hold(*args: Any, stdin: int, **given: Any) -> Any:
        held.append(os.dup(stdin))
        return launch(*args, stdin=stdin, **given)

    monkeypatch.setattr("agent.engine.connection.launch", launch_and_hold)
    try:
        with Engine(model, context=512, threads=1) as engine:
            engine.wait()
            os.kill(pid(engine), signal.SIGKILL)
            with pytest.raises(EngineError, match="the kernel killed it"):
                say(engine)
            assert say(engine).reason == "length"
    finally:
        for fd in held:
            os.close(fd)


def test_a_worker_is_told_to_stop_though_its_words_come_faster_than_they_are_read() -> None:
    """As with a hook that is slower than the model."""
    cancelled, connection = threading.Event(), FakeConnection()
    request = Request(connection, 1)  # type: ignore[arg-type]
    for number in range(3):
        request.take({"event": "text", "number": number})
    until = Until(cancelled)
    assert request.answer(until)["number"] == 0
    cancelled.set()
    assert request.answer(until)["number"] == 1
    assert connection.sent == [{"op": "cancel", "id": 1}]
    request.take({"event": "end", "reason": "cancelled"})
    assert [request.answer(until)["event"] for _ in range(2)] == ["text", "end"]
    assert len(connection.sent) == 1


def test_an_answer_that_comes_just_when_it_is_given_up_is_not_owed(engine: Engine) -> None:
    engine.wait()
    connection = engine._connection
    heard = connection.heard
    request = connection.ask({"op": "tokenize", "segments": [["a", False]], "after": None}, Request)
    assert request.answer()["ids"]
    connection.owes(heard)  # as who looked before it came
    start = time.monotonic()
    assert say(engine).reason == "length"
    assert time.monotonic() - start < 5
    assert engine.restarts == 0


# Forks.


def test_a_fork_gets_one_error_and_leaves_the_worker_alone(model: Path) -> None:
    with Agent(model, engine={"context": 512, "threads": 1}, limits=Limits(tokens=4)) as agent:
        agent.run("Hello.")
        engine, child = agent.engine, pid(agent.engine)
        read, write = os.pipe()
        if (forked := os.fork()) == 0:
            said = []
            for use in (lambda: agent.run("Hello."), engine.wait, lambda: say(engine), lambda: engine.tokenize([])):
                try:
                    use()  # type: ignore[no-untyped-call]
                except EngineError as e:
                    said.append(f"engine: {e}")
                except Exception as e:
                    said.append(str(e))
            agent.close()
            engine.close()
            engine.forget("a")
            engine.__del__()
            os.write(write, "\n".join(said).encode())
            os._exit(0)
        os.close(write)
        with os.fdopen(read) as pipe:
            lines = pipe.read().splitlines()
        assert os.waitpid(forked, 0)[1] == 0
        assert len(lines) == 4
        assert f"this agent belongs to the process that made it ({os.getpid()})" in lines[0]
        assert all("this engine belongs to the process that made it" in line for line in lines[1:])
        assert agent.run("Still there?").reason in ("length", "done")
        assert pid(engine) == child
        assert engine.restarts == 0
