"""A prompt is read before its question is there: nothing is computed twice, and every question goes first."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine.handle import EndStep, Engine, Step, TextStep
from agent.engine.sampling import Sampling
from agent.errors import EngineError
from agent.events import Prefill
from tests.fixtures.chat_ggufs import chat_model

pytestmark = pytest.mark.usefixtures("home")

GREEDY = Sampling(temperature=0, seed=1)
LONG = [1, *([20, 21, 22, 23] * 600)]  # 38 batches


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model") / "hermes.gguf", "hermes")


def engine(model: Path, conversations: int = 4) -> Engine:
    return Engine(model, context=4096, threads=1, batch=64, conversations=conversations)


def read(engine: Engine, conversation: str, tokens: list[int], prefix: int = 0) -> Iterator[Step]:
    return engine.generate(conversation, tokens, sampling=GREEDY, max_tokens=0, prefix=prefix)


def end_of(steps: Iterator[Step]) -> EndStep:
    *_, end = steps
    assert isinstance(end, EndStep)
    return end


def answer(engine: Engine, conversation: str, tokens: list[int], prefix: int = 0) -> tuple[list[int], EndStep]:
    steps = list(engine.generate(conversation, tokens, sampling=GREEDY, max_tokens=6, prefix=prefix))
    assert isinstance(steps[-1], EndStep)
    return [i for step in steps if isinstance(step, TextStep) for i in step.ids], steps[-1]


class Reader(threading.Thread):
    """Reads in a thread of its own; made when some of it is in the cache. Then the worker pauses, so that it is not too fast for
    what a test does next."""

    def __init__(self, engine: Engine, conversation: str) -> None:
        super().__init__(daemon=True)
        self.steps: list[Step] = []
        self._some = threading.Event()
        self._read = read(engine, conversation, LONG)
        self._worker = engine._connection.child.pid
        self.start()
        assert self._some.wait(20)

    def run(self) -> None:
        for step in self._read:
            self.steps.append(step)
            if isinstance(step, Prefill) and step.done > 0 and not self._some.is_set():
                os.kill(self._worker, signal.SIGSTOP)
                threading.Timer(0.2, os.kill, (self._worker, signal.SIGCONT)).start()
                self._some.set()

    def end(self) -> EndStep:
        self.join(20)
        assert isinstance(self.steps[-1], EndStep)
        return self.steps[-1]


@pytest.mark.slow
def test_what_was_read_is_not_computed_again_by_the_question_nor_by_another_reading(model: Path) -> None:
    with engine(model) as fresh:
        alone, _ = answer(fresh, "a", [*LONG, 40, 41])
    with engine(model) as made:
        first = end_of(read(made, "a", LONG))
        assert (first.reason, first.timing["cached_tokens"], first.timing["generated_tokens"]) == ("length", 0, 0)
        again = end_of(read(made, "a", LONG))
        assert again.timing["cached_tokens"] == len(LONG)
        said, end = answer(made, "a", [*LONG, 40, 41])
        assert (said, end.timing["cached_tokens"], end.timing["cache_source"]) == (alone, len(LONG), "memory")


def test_the_fixed_prefix_that_was_read_is_there_at_the_next_start(model: Path) -> None:
    with engine(model) as made:
        assert end_of(read(made, "a", LONG[:300], prefix=300)).timing["cache_source"] == ""
    with engine(model) as made:
        end = end_of(read(made, "a", LONG[:300], prefix=300))
        assert (end.timing["cached_tokens"], end.timing["cache_source"]) == (300, "disk")
        assert answer(made, "a", [*LONG[:300], 40], prefix=300)[1].timing["cached_tokens"] == 300


@pytest.mark.slow
def test_a_question_goes_ahead_of_a_reading_and_takes_over_what_was_read(model: Path) -> None:
    with engine(model) as made:
        alone, _ = answer(made, "alone", [*LONG[:1000], 40])
        made.forget("alone")
        reader = Reader(made, "a")
        said, end = answer(made, "a", [*LONG[:1000], 40])
        assert reader.end().reason == "cancelled"
        seen = max(step.done for step in reader.steps if isinstance(step, Prefill))
        assert said == alone
        assert end.timing["cached_tokens"] >= min(seen, 1000) > 0


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 2])
def test_a_question_of_another_conversation_does_not_wait_for_a_reading(model: Path, places: int) -> None:
    with engine(model, conversations=places) as made:
        reader = Reader(made, "a")
        _, end = answer(made, "b", [1, 30, 31, 32])
        assert end.reason == "length"
        if places == 1:  # there is room for one of them
            assert reader.end().reason == "cancelled"
        else:
            assert not any(isinstance(step, EndStep) for step in reader.steps), "it goes on beside and after the answer"
            assert reader.end().reason == "length"


@pytest.mark.slow
def test_a_reading_ends_with_its_conversation(model: Path) -> None:
    with engine(model) as made:
        reader = Reader(made, "a")
        made.forget("a")
        assert reader.end().reason == "cancelled"
        assert end_of(read(made, "a", LONG[:64])).timing["cached_tokens"] == 0, "nothing is left of it"


def test_reading_the_beginning_leaves_what_stands_behind_it(model: Path) -> None:
    with engine(model) as made:
        said, _ = answer(made, "a", [*LONG[:300], 40])
        assert end_of(read(made, "a", LONG[:300])).timing["cached_tokens"] == 300
        _, end = answer(made, "a", [*LONG[:300], 40, *said, 41])
        assert end.timing["cached_tokens"] >= 301


def test_a_full_cache_ends_the_reading_and_not_the_answer(model: Path) -> None:
    with Engine(model, context=512, threads=1, batch=64, conversations=2) as made:
        made_ahead = end_of(read(made, "a", LONG[:400]))
        assert made_ahead.reason == "length"
        _, end = answer(made, "b", [1, *([30, 31] * 150)])
        assert end.reason == "length"


def test_a_worker_that_is_killed_while_it_reads_is_one_error(model: Path) -> None:
    with engine(model) as made:
        steps = read(made, "a", LONG)
        next(steps)
        made._connection.child.kill()
        with pytest.raises(EngineError, match="the model's process ended"):
            end_of(steps)
        began = time.monotonic()
        assert end_of(read(made, "a", LONG[:64])).reason == "length"
        assert time.monotonic() - began < 20
