"""A conversation that no longer fits: what is given up, in which order, what never is, and that it is said."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import events as e
from agent.agent import Agent
from agent.engine.handle import Engine
from agent.errors import SprigError
from agent.limits import Limits
from agent.messages import Message, ToolCall
from agent.sessions.store import Store
from agent.tools.define import tool
from agent.turn.compaction import compacted
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.fake_engine import FakeEngine, call_text
from tests.fixtures.generated import runs

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("module_home", "kept_templates")]

SYSTEM = Message("system", "Be brief.")
LONG = "result " * 100


def turn(number: int, *, result: str = "", thinking: str = "") -> list[Message]:
    messages = [Message("user", f"question {number}")]
    if result:
        call = ToolCall("look", {"n": number}, f"call{number:05d}")
        messages += [Message("assistant", calls=(call,)), Message("tool", result, call_id=call.id, name="look")]
    return [*messages, Message("assistant", f"answer {number}", thinking)]


def size(messages: Sequence[Message]) -> int:
    return sum(10 + len(m.text) + len(m.thinking) for m in messages)


def attempts(messages: list[Message]) -> list[tuple[list[Message], str]]:
    """Everything that is tried, from the mildest on."""
    seen: list[list[Message]] = []
    compacted(messages, lambda m: bool(seen.append(list(m))))
    out = []
    for n in range(1, len(seen) + 1):
        left = [n]

        def fits(m: Sequence[Message], left: list[int] = left) -> bool:
            left[0] -= 1
            return left[0] == 0

        found = compacted(messages, fits)
        assert found is not None
        out.append(found)
    return out


def test_the_order_of_giving_up() -> None:
    whole = [SYSTEM, *turn(1, result=LONG, thinking="hm"), *turn(2, result=LONG), *turn(3), Message("user", "last"),
             Message("assistant", calls=(ToolCall("look", {}, "call00009"),)),
             Message("tool", LONG, call_id="call00009", name="look")]  # fmt: skip
    tried = attempts(whole)
    assert [what for _, what in tried] == [
        "1 old tool result shortened",
        "2 old tool results shortened",
        "thoughts of former turns left out, old tool results shortened",
        "2 former turns replaced by a digest",
        "3 former turns replaced by a digest",
        "3 former turns replaced by a short digest",
        "3 former turns left out",
        "1 tool result of this turn shortened",
    ]
    sizes = [size(m) for m, _ in tried]
    assert sizes == sorted(sizes, reverse=True)
    assert [len(m.text) for m in tried[0][0] if m.role == "tool"] == [160, 700, 700], "the oldest first"
    digest = tried[4][0][1]
    assert digest.text.endswith("\n\nlast")
    for said in ("User: question 1", "You: answer 1", "User: question 3", "You called look"):
        assert said in digest.text
    assert tried[6][0][1].text == "last"


def test_nothing_to_give_up_is_none() -> None:
    assert compacted([SYSTEM, Message("user", "a long question")], lambda m: False) is None


def test_a_digest_holds_the_one_before() -> None:
    first = attempts([SYSTEM, *turn(1), *turn(2), Message("user", "question 3")])
    digested = next(m for m, what in first if what == "2 former turns replaced by a digest")
    second = attempts([*digested, Message("assistant", "answer 3"), Message("user", "question 4")])
    last = next(m for m, what in second if what == "1 former turn replaced by a digest")
    assert [m.role for m in last] == ["system", "user"]
    for n in (1, 2, 3):
        assert f"User: question {n}\nYou: answer {n}" in last[1].text
    assert last[1].text.count("[Earlier in this conversation") == 1
    assert last[1].text.endswith("\n\nquestion 4")


_texts = st.text(alphabet="abc \n<|>", max_size=400)


@st.composite
def conversations(draw: st.DrawFn) -> list[Message]:
    messages = [Message("system", draw(_texts))] if draw(st.booleans()) else []
    for n in range(draw(st.integers(0, 6))):
        messages.append(Message("user", draw(_texts)))
        for k in range(draw(st.integers(0, 2))):
            call = ToolCall("look", {"n": k}, f"c{n:04d}{k:04d}")
            messages.append(Message("assistant", draw(_texts), calls=(call,)))
            messages.append(Message("tool", draw(_texts), call_id=call.id, name="look"))
        messages.append(Message("assistant", draw(_texts), draw(_texts)))
    messages.append(Message("user", draw(_texts)))
    if draw(st.booleans()):
        call = ToolCall("look", {}, "last00000")
        messages += [Message("assistant", calls=(call,)), Message("tool", draw(_texts), call_id=call.id, name="look")]
    return messages


@settings(max_examples=runs(200), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(messages=conversations(), room=st.integers(0, 3000))
def test_system_and_last_question_stay_and_every_call_keeps_its_result(messages: list[Message], room: int) -> None:
    before = list(messages)
    found = compacted(messages, lambda m: size(m) <= room)
    assert messages == before
    if found is None:
        return
    shorter, what = found
    assert what
    assert size(shorter) <= room
    assert [m for m in shorter if m.role == "system"] == [m for m in messages if m.role == "system"]
    asked = [m.text for m in messages if m.role == "user"][-1]
    assert [m.text for m in shorter if m.role == "user"][-1].endswith(asked)
    calls = [c.id for m in shorter for c in m.calls]
    assert calls == [m.call_id for m in shorter if m.role == "tool"]
    assert [c.id for m in messages for c in m.calls][len(messages) :] == []
    assert shorter[-1].role == messages[-1].role


# In the agent.


@tool
def look(n: int) -> str:
    """Look."""
    return f"result {n} " * 30


def test_it_is_told_and_the_talk_goes_on() -> None:
    answers = [text for n in range(12) for text in (call_text("look", {"n": n}), f"answer {n}")]
    engine = FakeEngine(answers, context=2500)
    compactions: list[e.Compacted] = []
    with Agent(engine, tools=[look], system="Be brief.", limits=Limits(tokens=300)) as agent:
        for n in range(12):
            events = list(agent.stream(f"question {n}"))
            compactions += [x for x in events if isinstance(x, e.Compacted)]
            done = events[-1]
            assert isinstance(done, e.Done)
            assert (done.result.reason, done.result.text) == ("done", f"answer {n}")
            assert len(engine.asked[-1]) + 300 <= 2500
            assert engine.asked[-1].startswith("<|im_start|>system\nBe brief.")
            assert f"question {n}" in engine.asked[-1]
    assert 2 <= len(compactions) < 12, "each makes room for some turns"
    assert all(c.tokens_after < c.tokens_before for c in compactions)


def test_a_session_keeps_what_the_context_gave_up(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        session = store.create()
        engine = FakeEngine([f"answer {n} " * 20 for n in range(8)], context=1200)
        with Agent(engine, session=session, limits=Limits(tokens=300)) as agent:
            for n in range(8):
                agent.run(f"question {n}")
            assert len(agent.messages) < 16
        kept = [m.message.text for m in session.messages() if m.message.role == "user"]
        assert kept == [f"question {n}" for n in range(8)]


def test_a_question_beyond_the_context_is_one_line_and_forgotten(tmp_path: Path) -> None:
    with Store(tmp_path / "s.db") as store:
        session = store.create()
        engine = FakeEngine(["hello", "fine"], context=1000)
        with Agent(engine, session=session) as agent:
            agent.run("Hi")
            with pytest.raises(
                SprigError, match=r"takes \d+ tokens even when shortened.*holds 1000; send less, offer fewer"
            ) as error:
                agent.run("x" * 2000)
            assert "\n" not in str(error.value)
            assert [m.text for m in agent.messages] == ["Hi", "hello"]
            assert agent.run("Well?").text == "fine"
        assert [m.message.text for m in session.messages()] == ["Hi", "hello", "Well?", "fine"]
    engine.only_grows()


def test_the_real_engine_talks_on_in_a_small_context(tmp_path: Path) -> None:
    path = chat_model(tmp_path / "m.gguf", "hermes")
    told = 0
    with (
        Engine(path, context=1536, threads=1) as engine,
        Agent(engine, tools=[look], limits=Limits(tokens=60, rounds=2), sampling={"temperature": 1.0, "seed": 3}) as agent,
    ):
        for n in range(40):
            events = list(agent.stream(f"question {n}", tool_choice="required" if n % 2 else "auto"))
            told += sum(isinstance(x, e.Compacted) for x in events)
            done = events[-1]
            assert isinstance(done, e.Done)
            assert done.result.reason != "error", done.result.error
            assert len(agent.transcript().tokens) <= 1536
        assert engine.restarts == 0
    assert told >= 3


def test_a_person_shortens_it_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The turns before the last one become a digest; what the last one said, and the session, stay."""
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    long = "and so on " * 60

    @tool
    def look() -> str:
        """Look."""
        return long

    engine = FakeEngine([f"One {long}", call_text("look", {}), f"Two {long}", "Three."])
    with Store() as store, Agent(engine, tools=[look], system="Be brief.", session=store.create()) as agent:
        assert agent.compact() is None, "nothing was said yet"
        agent.run("First?")
        assert agent.compact() is None, "one turn, and no result in it"
        agent.run("Second?")
        before = agent.tokens
        done = agent.compact()
        assert done is not None
        assert (done.what, done.tokens_before, done.tokens_after) == ("1 former turn replaced by a digest", before, agent.tokens)
        assert agent.tokens < before
        again = agent.compact()
        assert again is not None, "and then the results of the last turn"
        assert again.what == "1 tool result shortened"
        assert agent.compact() is None
        agent.run("Third?")
        asked = engine.asked[-1]
        assert "Be brief." in asked
        assert "User: First?" in asked
        assert f"Two {long}".strip() in asked
        assert asked.count(long.strip()) == 1
        assert len(agent.session.messages() if agent.session else ()) == 8, "the session keeps everything"
