"""Texts that end an answer: never shown, however the tokens cut them; what is kept ends where they begin."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import events as e
from agent.agent import Agent
from agent.engine.handle import Engine
from agent.limits import Limits
from agent.messages import Message
from agent.sessions.store import Store
from agent.turn.stopping import StopFinder, Stopped, cut
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.fake_engine import Say, turn_text
from tests.fixtures.scripted import RAIN, Make, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")

_WORDS = st.text("abEND\n ", max_size=30)
_STOPS = st.lists(st.text("abEND\n ", min_size=1, max_size=4), min_size=1, max_size=4)


def found(stops: list[str], pieces: list[str]) -> tuple[str, str]:
    finder = StopFinder(stops)
    words = "".join([finder.feed(piece) for piece in pieces])
    return words + finder.flush(), finder.found


@given(_WORDS, _STOPS, st.data())
def test_it_does_not_matter_how_the_words_are_cut(words: str, stops: list[str], data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(words)), max_size=6)))
    pieces = [words[a:b] for a, b in zip([0, *at], [*at, len(words)], strict=True)]
    before, stop = found(stops, pieces)
    assert (before, stop) == found(stops, list(words)) == found(stops, [words])
    if stop:
        assert words.startswith(before + stop)
    else:
        assert before == words
    assert not any(one in before for one in stops)


def test_words_are_shown_as_soon_as_they_cannot_be_a_stop() -> None:
    finder = StopFinder(["END", "\n\n"])
    assert [finder.feed(piece) for piece in ["one E", "N", "d two\n", "three", "\n", "E", "ND", "x"]] == [
        "one ", "", "ENd two", "\nthree", "", "\n", "", "",
    ]  # fmt: skip
    assert (finder.found, finder.held) == ("END", "")


@pytest.mark.parametrize(
    ("texts", "words", "stop", "start", "kept"),
    [
        (["Hel", "lo E", "ND", " x"], "Hello ", "END", 0, (1, "lo ")),
        (["Hello", "END"], "Hello", "END", 0, (1, "")),
        (["END"], "", "END", 0, (0, "")),
        (["x", "\n\n\ny"], "x", "\n", 0, (1, "")),
        (["END ", "in a thought", "</think>", "\n", "a", "END"], "a", "END", 16, (5, "")),
        (["<call>", "\n\n", "a", "END"], "\na", "END", 6, (3, "")),
    ],
)
def test_the_tokens_are_cut_where_the_words_end(
    texts: list[str], words: str, stop: str, start: int, kept: tuple[int, str]
) -> None:
    assert cut(texts, words, stop, start) == kept


def test_a_cancelled_run_and_a_found_stop_both_end_the_computation() -> None:
    cancelled = threading.Event()
    over, other = Stopped(cancelled), Stopped(cancelled)
    over.set()
    assert (over.is_set(), over.wait(0), other.is_set(), other.wait(0), cancelled.is_set()) == (True, True, False, False, False)
    cancelled.set()
    assert other.is_set()
    assert other.wait()


def shown(events: list[e.Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, e.Text))


def test_an_answer_ends_before_the_stop(make: Make) -> None:
    agent, engine = make("It is four. END And more and more.", "Yes.", stop=["END", "###"])
    events = list(agent.stream("2+2?"))
    done = events[-1]
    assert isinstance(done, e.Done)
    assert (done.result.text, done.result.reason, done.result.stop) == ("It is four.", "done", "END")
    assert shown(events) == "It is four. "
    assert len(engine.said[0]) < len("It is four. END And more"), "nothing more is computed"
    assert done.result.to_dict()["stop"] == "END"
    agent.run("Sure?")
    assert engine.asked[1].startswith(engine.asked[0] + "It is four. <|im_end|>"), "the stop is not in the conversation either"


@pytest.mark.parametrize(("words", "stop"), [("aab!", "ab"), ("say axab!", "ab"), ("one, two", "!"), ("one, two", ", t")])
def test_events_have_the_log_probabilities_of_all_tokens_that_stay(make: Make, words: str, stop: str) -> None:
    agent, _ = make(words)
    *events, done = agent.stream("Say", stop=[stop], logprobs=0)
    assert isinstance(done, e.Done)
    told = [one.text for event in events if isinstance(event, e.Text) for one in event.logprobs]
    assert told == [one.text for one in done.result.logprobs]
    assert "".join(told) == done.result.text == shown(events)


def test_a_run_has_stops_of_its_own(make: Make) -> None:
    agent, engine = make("one; two. three", "one; two. three", "one; two. three", stop=";")
    assert agent.run("a").text == "one"
    assert agent.run("a", stop="two").text == "one;"
    result = agent.run("a", stop=[])
    assert (result.text, result.stop) == ("one; two. three", "")
    assert [job["by_token"] for job in engine.jobs] == [True, True, False]


def test_thoughts_and_calls_are_not_cut(make: Make) -> None:
    thinks = turn_text(Message("assistant", "It rains, Bern says.", "Bern, then.")) + "\n" + RAIN
    agent, _ = make(thinks, tools=[weather], stop=["Bern"], template="qwen3")
    result = agent.run("Rain?")
    first, last = result.messages[1], result.messages[-1]
    assert (first.text, first.thinking, first.calls) == ("It rains,", "Bern, then.", ())
    assert last is first, "the answer ended there, before its call"


def test_a_call_that_was_whole_before_the_stop_runs(make: Make) -> None:
    agent, _ = make(RAIN + "\nSo: END of it", "It rains.", tools=[weather], stop=["END"])
    result = agent.run("Rain?")
    assert [call.name for call in result.calls] == ["weather"]
    assert roles(result.messages) == ["user", "assistant", "tool", "assistant"]
    assert (result.text, result.stop) == ("It rains.", "")


def test_an_object_is_not_cut(make: Make) -> None:
    agent, _ = make('{"city": "Bern"}', stop=["Bern", "}"])
    schema = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
    assert agent.run("Where?", schema=schema).value == {"city": "Bern"}


def test_the_beginning_of_a_stop_at_the_end_is_words(make: Make) -> None:
    agent, _ = make("The E", Say("Wait EN", "length"), stop="END")
    assert agent.run("a").text == "The E"
    result = agent.run("b")
    assert (result.text, result.reason, result.stop) == ("Wait EN", "length", "")


def test_a_session_keeps_the_tokens_before_the_stop(make: Make, tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        session = store.create()
        agent, engine = make("one END two", "x", session=session, stop="END")
        agent.run("a")
        (_, kept) = session.messages()
        assert (kept.message.text, kept.state) == ("one", "complete")
        assert kept.tokens is not None
        assert "".join(map(chr, kept.tokens)) == "one "
        agent.run("b")
        engine_after = engine.asked[1]
        again, second = make("y", session=store.open(session.id))
        session.branch(kept.id)
        again.resume(store.open(session.id))
        again.run("b")
        assert second.asked[0] == engine_after


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, module_home: Path) -> Iterator[Engine]:
    model = chat_model(tmp_path_factory.mktemp("model") / "hermes.gguf", "hermes")
    with Engine(model, context=2048, threads=1, batch=64) as made:
        yield made


def test_a_real_engine_ends_at_a_stop_and_goes_on_from_there(engine: Engine) -> None:
    wild = {"temperature": 3.0, "top_k": 0, "top_p": 1, "min_p": 0, "seed": 11}
    limits = Limits(tokens=200)
    with Agent(engine, sampling=wild, limits=limits) as free, Agent(engine, sampling=wild, limits=limits) as agent:
        whole = shown(list(free.stream("Hi")))
        stop = re.findall(r"[A-Za-z0-9@!]{2}", whole)[1]
        result = agent.run("Hi", stop=stop)
        assert (result.text, result.stop, result.reason) == (whole[: whole.find(stop)].strip(), stop, "done")
        assert result.usage.generated_tokens < free.limits.tokens
        kept = agent.transcript().turns[1]
        asked = agent.transcript().tokens[: -len(kept)]
        assert kept == free.transcript().turns[1][: len(kept)]
        after = agent.run("And?", stop=stop)
        assert after.reason in ("done", "length", "loop")
        assert agent.transcript().tokens[: len(asked) + len(kept)] == [*asked, *kept]
