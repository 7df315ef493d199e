"""Conversations that are kept: taken up token by token, after a kill, by another model, on another branch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import SprigError
from agent.events import Done
from agent.messages import Message
from agent.sessions.store import Store
from tests.fixtures.fake_engine import Say, turn_text
from tests.fixtures.scripted import RAIN, Make, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


def test_a_session_keeps_all_and_goes_on_token_by_token(make: Make, store: Store) -> None:
    session = store.create()
    said = turn_text(Message("assistant", "", "Look.")) + RAIN
    agent, engine = make(said, "It rains.", tools=[weather], session=session, template="qwen3")
    agent.run("Rain?")
    kept = session.messages()
    assert [m.message.role for m in kept] == ["user", "assistant", "tool", "assistant"]
    assert {m.state for m in kept} == {"complete"}
    assert [m.ok for m in kept] == [None, None, True, None]
    assert kept[1].usage is not None
    assert kept[1].usage["generated_tokens"] == len(said)

    again, second = make("Yes.", tools=[weather], session=store.open(session.id), template="qwen3")
    again.run("Sure?")
    assert second.asked[0].startswith(engine.asked[1] + engine.said[1])
    assert len(session.messages()) == 4
    assert len(store.open(session.id).messages()) == 6


def test_another_model_takes_a_session_up_by_its_words(make: Make, store: Store) -> None:
    session = store.create()
    agent, _ = make(RAIN, "It rains.", tools=[weather], session=session)
    agent.run("Rain?")
    other, engine = make("Ja.", tools=[weather], session=store.open(session.id), template="llama3")
    other.run("Sure?")
    assert '{"name": "weather", "parameters": {"city": "Bern"}}<|eot_id|>' in engine.asked[0]
    assert "It rains.<|eot_id|>" in engine.asked[0]


def test_an_answer_that_is_broken_off_is_kept_as_partial(make: Make, store: Store) -> None:
    session = store.create()
    agent, _ = make(Say("It rains and rains", dies=8), "Fine.", session=session)
    agent.run("Rain?")
    assert [(m.message.text, m.state) for m in session.messages()][1] == ("It rains and r", "partial")
    assert agent.run("Again").text == "Fine."
    assert [m.state for m in session.messages()] == ["complete", "partial", "complete", "complete"]


def test_a_long_answer_is_written_down_while_it_is_made(make: Make, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.turn.record._SAVE_SECONDS", 0.0)
    session = store.create()
    seen: list[str] = []
    agent, _ = make(Say("word " * 20, during=lambda said: seen.append(session.messages()[-1].message.text)), session=session)
    agent.run("Talk")
    assert len(set(seen)) > 5


def test_a_process_that_was_killed_within_a_call_goes_on(make: Make, store: Store) -> None:
    session = store.create()
    agent, _ = make(RAIN, "It rains.", tools=[weather], session=session)
    agent.run("Rain?")
    call = session.messages()[1]
    session.branch(call.id)  # as if nothing had come after the call
    again, engine = make("Sorry.", tools=[weather], session=store.open(session.id))
    assert again.run("Well?").text == "Sorry."
    (asked,) = engine.asked
    assert "interrupted: there is no result" in asked
    assert asked.count("<|im_start|>assistant") == 2
    assert roles(again.messages) == ["user", "assistant", "tool", "user", "assistant"]


def test_a_question_that_was_never_answered_goes_before_the_next(make: Make, store: Store) -> None:
    session = store.create()
    session.append(Message("user", "first"))
    agent, engine = make("ok", session=session)
    agent.run("second")
    assert engine.asked[0].count("assistant") == 1
    assert engine.asked[0].index("first") < engine.asked[0].index("second")


def test_branches(make: Make, store: Store) -> None:
    session = store.create()
    agent, engine = make("one", "two", "three", session=session)
    agent.run("a")
    first = session.messages()
    agent.run("b")
    agent.branch(first[1].id)
    assert agent.run("c").text == "three"
    assert [m.message.text for m in session.messages()] == ["a", "one", "c", "three"]
    assert "two" not in engine.asked[2]
    assert len(session.branches(session.messages()[2].id)) == 2
    bare, _ = make("x")
    with pytest.raises(SprigError, match="kept in a session"):
        bare.branch(None)


def test_the_last_message_is_answered_again(make: Make, store: Store) -> None:
    session = store.create()
    agent, engine = make("one", "two", session=session)
    agent.run("a")
    question = session.messages()[0]
    agent.branch(question.id)
    last = list(agent.stream(None))[-1]
    assert isinstance(last, Done)
    assert last.result.text == "two"
    assert engine.asked[0] == engine.asked[1], "the very same question"
    assert [m.message.text for m in session.messages()] == ["a", "two"]
    assert len(session.branches(session.messages()[1].id)) == 2
    with pytest.raises(SprigError, match="nothing to answer"):
        list(agent.stream(None))


def test_another_session_is_taken_up_on_the_same_agent(make: Make, store: Store) -> None:
    garden, shed = store.create(), store.create()
    shed.append(Message("user", "Where is the saw?"))
    shed.append(Message("assistant", "On the wall."))
    agent, engine = make("ok", "there", "new", session=garden)
    agent.run("beans")
    assert agent.tokens > 0
    agent.resume(shed)
    assert agent.tokens == 0
    assert agent.run("Sure?").text == "there"
    assert "On the wall." in engine.asked[1]
    assert "beans" not in engine.asked[1]
    assert [m.message.text for m in shed.messages()][2:] == ["Sure?", "there"]
    agent.resume(None)
    agent.run("kept nowhere")
    assert len(garden.messages()) == 2


def test_a_session_by_its_id(make: Make, module_home: Path) -> None:
    with Store() as store:
        session = store.create()
        session.append(Message("user", "hello"))
    agent, engine = make("ok", session=session.id)
    agent.run("there")
    assert "hello" in engine.asked[0]
    with pytest.raises(SprigError, match="there is no session"):
        make(session="zzzzzzz")
