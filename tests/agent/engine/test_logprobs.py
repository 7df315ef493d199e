"""Log-probabilities of tokens, a seed for one run: what a script measures and repeats a model with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent import events as e
from agent.agent import Agent
from agent.engine.handle import Engine, TextStep
from agent.engine.sampling import Sampling, log_probabilities
from agent.errors import SprigError
from agent.limits import Limits
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.scripted import RAIN, Make, weather

pytestmark = pytest.mark.usefixtures("module_home")

PROMPT = [1, *range(3, 40)]
SCHEMA = {"type": "object", "properties": {"colour": {"enum": ["red", "green"]}}, "required": ["colour"]}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_model(tmp_path_factory.mktemp("model") / "hermes.gguf", "hermes")


@pytest.fixture(scope="module")
def engine(model: Path, module_home: Path) -> Iterator[Engine]:
    with Engine(model, context=2048, threads=1, batch=64) as made:
        yield made


def test_they_are_those_of_the_models_own_distribution(engine: Engine, model: Path) -> None:
    from llama_cpp import Llama

    sampling = Sampling(temperature=2.0, top_k=3, repeat_penalty=1.5, seed=3)
    steps = engine.generate("a", PROMPT, sampling=sampling, max_tokens=8, logprobs=5)
    tokens = [token for step in steps if isinstance(step, TextStep) for token in step.logprobs]
    assert len(tokens) == 8
    peer = Llama(str(model), n_ctx=256, n_batch=64, n_threads=1, n_threads_batch=1, logits_all=True, verbose=False)
    peer.eval([*PROMPT, *(token.id for token in tokens)])
    rows = np.asarray(peer.scores[len(PROMPT) - 1 : len(PROMPT) + 7], dtype=np.float64)
    peer.close()
    wanted = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    for token, row in zip(tokens, wanted, strict=True):
        assert token.logprob == pytest.approx(row[token.id], abs=1e-3)
        assert [one.logprob for one in token.top] == pytest.approx(sorted(row, reverse=True)[:5], abs=1e-3)
        assert token.raw.decode("utf-8", "replace") == token.text
        assert token.id in {one.id for one in token.top[:3]}, "top_k was 3"


@pytest.mark.slow
def test_greedy_takes_the_first_and_none_means_none(engine: Engine) -> None:
    with Agent(engine, sampling={"temperature": 0}, limits=Limits(tokens=12)) as agent:
        plain = agent.run("Hi")
        agent.reset()
        counted = agent.run("Hi", logprobs=0)
        agent.reset()
        events = list(agent.stream("Hi", logprobs=2))
    assert plain.logprobs == ()
    assert [one.top for one in counted.logprobs] == [()] * 12
    done = events[-1]
    assert isinstance(done, e.Done)
    result = done.result
    assert [one.id for one in result.logprobs] == [one.id for one in counted.logprobs]
    assert all(one.top[0].id == one.id and one.logprob == one.top[0].logprob for one in result.logprobs)
    told = [one for event in events if isinstance(event, e.Text | e.Thought | e.CallForming) for one in event.logprobs]
    assert told == list(result.logprobs)[: len(told)]
    first = result.to_dict()["logprobs"][0]
    assert set(first) == {"token", "bytes", "logprob", "top_logprobs"}


def test_forced_tokens_are_marked(engine: Engine) -> None:
    with Agent(engine, sampling={"temperature": 0}) as agent:
        result = agent.run("Which?", schema=SCHEMA, logprobs=3)
    assert result.value is not None
    assert "".join(one.text for one in result.logprobs) == result.text
    forced = [one for one in result.logprobs if one.forced]
    assert len(forced) == result.usage.forced_tokens > 0
    assert all(one.logprob is None and one.top == () for one in forced)
    assert all(one.logprob is not None and one.logprob <= 0 and len(one.top) == 3 for one in result.logprobs if not one.forced)


@pytest.mark.parametrize("count", [-1, 21, True, 1.5, "3"])
def test_how_many_there_may_be(make: Make, count: Any) -> None:
    agent, _ = make("fine")
    with pytest.raises(SprigError, match=r"logprobs is .*0 to 20"):
        agent.run("Hi", logprobs=count)


def test_those_of_a_stop_are_not_told(make: Make) -> None:
    agent, _ = make("one END two", stop="END")
    events = list(agent.stream("Hi", logprobs=0))
    done = events[-1]
    assert isinstance(done, e.Done)
    assert "".join(one.text for one in done.result.logprobs) == "one "
    told = "".join(one.text for event in events if isinstance(event, e.Text) for one in event.logprobs)
    assert "one ".startswith(told)


def test_they_are_those_of_the_last_answer(make: Make) -> None:
    agent, _ = make(RAIN, "It rains.", tools=[weather])
    assert "".join(one.text for one in agent.run("Rain?", logprobs=0).logprobs) == "It rains."


def test_the_probabilities_sum_to_one() -> None:
    logits = np.array([1.0, 3.0, -np.inf, 2.0], dtype=np.float32)
    chosen, top = log_probabilities(logits, 0, 4)
    assert [token for token, _ in top] == [1, 3, 0, 2]
    assert sum(math.exp(p) for _, p in top) == pytest.approx(1)
    assert (chosen, log_probabilities(logits, 0, 0)) == (top[2][1], (chosen, []))
    assert [token for token, _ in log_probabilities(logits, 0, 2)[1]] == [1, 3]
    assert len(log_probabilities(logits, 0, 20)[1]) == 4


def test_the_same_seed_says_the_same(engine: Engine) -> None:
    said = []
    with Agent(engine, sampling={"temperature": 2.0, "top_k": 0, "min_p": 0}, limits=Limits(tokens=30)) as agent:
        for seed in (7, 7, 8):
            agent.reset()
            result = agent.run("Hi", sampling={"seed": seed}, logprobs=0)
            said.append([one.id for one in result.logprobs])
        assert agent.sampling.seed is None
    assert said[0] == said[1] != said[2]


def test_what_a_run_says_of_sampling_goes_over_the_agents(make: Make) -> None:
    agent, engine = make("a", "b", "c", sampling={"temperature": 1.0, "top_k": 5})
    agent.run("x", sampling={"temperature": 0, "seed": 7})
    agent.run("x", sampling=Sampling(top_p=0.5))
    agent.run("x")
    assert [job["sampling"] for job in engine.jobs] == [
        Sampling(temperature=0, top_k=5, seed=7), Sampling(top_p=0.5), Sampling(temperature=1.0, top_k=5),
    ]  # fmt: skip
    for wrong, told in (
        ({"seed": 1.5}, "seed is 1.5"),
        ({"top_k": 1.5}, "top_k is 1.5"),
        ({"heat": 1}, "heat"),
        (7, "dictionary"),
    ):
        with pytest.raises(SprigError, match=told):
            agent.run("x", sampling=wrong)  # type: ignore[arg-type]


def test_an_option_that_there_is_not(make: Make) -> None:
    agent, _ = make("fine")
    with pytest.raises(TypeError, match=r"a run has no option 'temperature'; there are limits, logprobs, sampling"):
        agent.run("x", temperature=0)  # type: ignore[call-arg]
    with pytest.raises(SprigError, match="limits is 5"):
        agent.run("x", limits=5)  # type: ignore[arg-type]
    with pytest.raises(SprigError, match="tool_choice is"):
        agent.run("x", tool_choice={"type": "function"})  # type: ignore[arg-type]
    assert agent.run("x").text == "fine"
