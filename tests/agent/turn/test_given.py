"""A conversation that a script hands in: in which forms, what is wrong with it, and how the agent goes on from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SprigError
from agent.messages import Message, ToolCall
from agent.sessions.store import Store
from agent.turn.given import read_messages, read_said
from tests.fixtures.chat_templates import TEMPLATES
from tests.fixtures.fake_engine import Say
from tests.fixtures.scripted import RAIN, Make, roles, weather

pytestmark = pytest.mark.usefixtures("module_home")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


def call(id: str = "call_1", arguments: Any = '{"city": "Bern"}', name: str = "weather") -> dict[str, Any]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def asks(*calls: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls), **more}


def test_all_forms_become_messages() -> None:
    found = read_messages([
        {"role": "developer", "content": "Be brief."},
        ("user", "Hi"),
        {"role": "assistant", "content": "Hello.", "reasoning_content": "A greeting.", "refusal": None},
        Message("user", "Rain?"),
        asks(call("abcdefgh1"), call("call_2", {"city": "Zug"}), content=""),
        {"role": "tool", "tool_call_id": "abcdefgh1", "content": [{"type": "text", "text": "a "}, "b"]},
        {"role": "tool", "tool_call_id": "call_2", "content": "c"},
    ])  # fmt: skip
    assert found.system == "Be brief."
    user, hello, rain, wish, one, two = found.messages
    assert (user, rain) == (Message("user", "Hi"), Message("user", "Rain?"))
    assert hello == Message("assistant", "Hello.", "A greeting.")
    assert [(c.name, dict(c.arguments)) for c in wish.calls] == [("weather", {"city": "Bern"}), ("weather", {"city": "Zug"})]
    assert wish.calls[0].id == one.call_id == "abcdefgh1"
    assert wish.calls[1].id == two.call_id, "an id that not every template takes becomes one that it does"
    assert (len(two.call_id), one.text) == (9, "a b")


@pytest.mark.parametrize(
    ("messages", "told"),
    [
        (5, "int 5"),
        (b"hi", "bytes"),
        ({"role": "user", "content": "hi"}, "dict"),
        (("user", "hi"), "messages[0]: a (role, text) pair"),
        ([], "empty"),
        ([("user", "a"), 5], "messages[1]: a (role, text) pair, a dictionary or a Message is needed, not int 5"),
        ([("user", 5)], "messages[0]"),
        ([("usr", "a")], "messages[0]: the role is 'usr'"),
        ([{"content": "a"}], "messages[0]: the role is missing"),
        ([{"role": "user"}], "messages[0]: content is None"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "type 'image_url'"),
        ([("user", "a"), asks(call(arguments="{"))], "messages[1]: tool_calls[0]: the arguments are not JSON"),
        ([("user", "a"), asks(call(arguments="[1]"))], "no JSON object"),
        ([("user", "a"), asks({"name": "weather"})], "messages[1]: tool_calls[0] must be"),
        ([{"role": "user", "content": "a", "tool_calls": [call()]}], "messages[0]: tool_calls are an assistant's"),
        ([("user", "a"), ("system", "b")], "messages[1]: a system message can only be the first one"),
        ([("user", "a"), ("assistant", "b"), ("assistant", "c")], "messages[2]: two messages of the assistant"),
        ([("user", "a"), ("assistant", "b")], "messages[1]: the last message of a run is one to answer"),
        ([("system", "a")], "messages[0]: the last message of a run"),
        ([Message("user", 5)], "messages[0]: text is 5"),  # type: ignore[arg-type]
    ],
)
def test_what_does_not_fit_is_told_in_one_line_and_changes_nothing(make: Make, messages: Any, told: str) -> None:
    agent, _ = make("one", "two", system="S")
    agent.run("a")
    before = agent.messages
    with pytest.raises(SprigError) as e:
        agent.run(messages)
    assert told in str(e.value)
    assert "\n" not in str(e.value)
    assert agent.messages == before
    assert agent.run("b").text == "two"


_ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5) | st.sampled_from(["user", "assistant", "tool", "system"]),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner) | st.dictionaries(
        st.sampled_from(["role", "content", "tool_calls", "function", "id", "type", "text", "tool_call_id", "arguments", "name"]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=200)
@given(st.lists(_ANY, max_size=4) | _ANY)
def test_anything_is_messages_or_one_clear_line(said: Any) -> None:
    told = ""
    try:
        last = read_said(said).messages[-1]
    except SprigError as e:
        told = str(e)
    assert "\n" not in told
    assert told or (last.role in ("user", "tool") and isinstance(last.text, str))


def test_an_agent_goes_on_with_a_conversation(make: Make) -> None:
    agent, engine = make("Bed 2.", messages=[("system", "Be brief."), ("user", "Tomatoes: bed 2."), ("assistant", "Noted.")])
    assert agent.system == "Be brief."
    assert roles(agent.messages) == ["system", "user", "assistant"]
    assert agent.run("Where?").text == "Bed 2."
    assert engine.asked == [
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nTomatoes: bed 2.<|im_end|>\n<|im_start|>assistant\nNoted."
        "<|im_end|>\n<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n"
    ]
    assert roles(agent.messages) == ["system", "user", "assistant", "user", "assistant"]
    agent.reset()
    assert agent.messages == ()
    with pytest.raises(SprigError, match="two system prompts"):
        make("x", messages=[("system", "A")], system="B")


def test_a_whole_conversation_is_asked_at_once(make: Make) -> None:
    agent, engine = make("one", "two", "three")
    agent.run([("system", "Be brief."), ("user", "Hi"), ("assistant", "Hello."), ("user", "Well?")])
    assert engine.asked[0].startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    assert "<|im_start|>assistant\nHello.<|im_end|>\n<|im_start|>user\nWell?<|im_end|>" in engine.asked[0]
    result = agent.run([{"role": "user", "content": "And?"}])
    assert result.messages == (Message("user", "And?"), Message("assistant", "two"))
    engine.only_grows()
    agent.run([("system", "Be long."), ("user", "Now?")])
    assert engine.asked[2].startswith("<|im_start|>system\nBe long.<|im_end|>\n<|im_start|>user\nHi<|im_end|>")
    assert agent.system == "Be long."


def test_a_question_that_was_handed_in_is_answered(make: Make) -> None:
    agent, engine = make("one", messages=[("user", "Hi")])
    assert agent.run(None).text == "one"
    assert engine.asked[0].endswith("user\nHi<|im_end|>\n<|im_start|>assistant\n")
    with pytest.raises(SprigError, match="nothing to answer"):
        agent.run(None)


@pytest.mark.parametrize("begun", [(), ("zero",)])
def test_a_question_whose_answer_was_broken_off_before_its_first_word_is_answered(
    make: Make, store: Store, begun: tuple[str, ...]
) -> None:
    kept = store.create()
    agent, engine = make(*begun, Say("", reason="cancelled"), "one", session=kept)
    for _ in begun:
        agent.run("Begin.")
    assert agent.run("Hi").reason == "cancelled"
    assert agent.run(None).text == "one"
    assert engine.asked[-1] == engine.asked[-2]
    wanted = [*(("user", "assistant") if begun else ()), "user", "assistant"]
    assert roles(agent.messages) == roles([stored.message for stored in kept.messages()]) == wanted


def test_a_conversation_with_a_result_of_no_call_is_refused(make: Make) -> None:
    with pytest.raises(SprigError, match=r"messages\[2\]: a tool's result with the id .*, and no call waits for it"):
        make(messages=[("system", "Be brief."), ("user", "Rain?"), {"role": "tool", "tool_call_id": "abcdefgh1", "content": "5"}])


def test_results_of_open_calls_are_matched_by_their_ids(make: Make) -> None:
    begun = [("user", "Rain?"), asks(call("call_1"), call("call_2", {"city": "Zug"}), call("call_3", {"city": "Uri"}))]
    agent, engine = make("It rains.", messages=begun, tools=[weather])
    result = agent.run([
        {"role": "tool", "tool_call_id": "call_2", "content": "dry in Zug"},
        {"role": "tool", "tool_call_id": "call_1", "content": "wet in Bern"},
    ])  # fmt: skip
    assert result.text == "It rains."
    wish = agent.messages[1]
    assert [(m.call_id, m.name, m.text) for m in result.messages[:-1]] == [
        (wish.calls[1].id, "weather", "dry in Zug"),
        (wish.calls[0].id, "weather", "wet in Bern"),
        (wish.calls[2].id, "weather", "interrupted: there is no result"),
    ]
    assert "wet in Bern" in engine.asked[0]
    with pytest.raises(SprigError, match=r"messages\[0\]: a tool's result with the id .*, and no call waits for it"):
        agent.run([{"role": "tool", "tool_call_id": "call_1", "content": "again"}])


def test_a_result_without_an_id_is_that_of_the_first_open_call(make: Make) -> None:
    agent, _ = make("It rains.", messages=[("user", "Rain?"), asks(call())], tools=[weather])
    (result, _) = agent.run([("tool", "wet")]).messages
    assert (result.text, result.name) == ("wet", "weather")


def test_a_text_instead_of_results_says_that_there_are_none(make: Make) -> None:
    agent, engine = make("Well.", messages=[("user", "Rain?"), asks(call())], tools=[weather])
    assert roles(agent.run("Never mind.").messages) == ["tool", "user", "assistant"]
    assert "interrupted: there is no result" in engine.asked[0]


def test_a_result_that_was_handed_in_is_answered(make: Make) -> None:
    done = [("user", "Rain?"), asks(call()), {"role": "tool", "tool_call_id": "call_1", "content": "wet"}]
    agent, engine = make("It rains.", messages=done, tools=[weather])
    assert agent.run(None).text == "It rains."
    assert "<tool_response>\nwet\n</tool_response>" in engine.asked[0]


def test_a_session_keeps_what_was_handed_in(make: Make, store: Store) -> None:
    session = store.create()
    agent, engine = make(RAIN, "It rains.", messages=[("user", "Hi"), ("assistant", "Hello.")], session=session, tools=[weather])
    agent.run([("user", "a"), ("assistant", "b"), ("user", "Rain?")])
    kept = [(m.message.role, m.message.text) for m in session.messages()]
    assert kept[:5] == [("user", "Hi"), ("assistant", "Hello."), ("user", "a"), ("assistant", "b"), ("user", "Rain?")]
    assert kept[-1] == ("assistant", "It rains.")
    again, second = make("Yes.", session=store.open(session.id), tools=[weather])
    again.run("Sure?")
    assert second.asked[0].startswith(engine.asked[1] + engine.said[1])
    with pytest.raises(SprigError, match="this session has one already"):
        make("x", messages=[("user", "Hi")], session=store.open(session.id))


def test_calls_that_were_handed_in_are_written_as_the_family_writes_them(make: Make) -> None:
    wish = Message("assistant", calls=(ToolCall("weather", {"city": "Bern"}, "abcdefgh1"),))
    agent, engine = make("ok", messages=[("user", "Rain?"), wish, ("tool", "wet"), ("assistant", "Wet.")], tools=[weather])
    agent.run("Thanks")
    assert RAIN in engine.asked[0]


@pytest.mark.parametrize("template", [name for name in TEMPLATES if name != "odd"])
@pytest.mark.parametrize("tools", [[], [weather]])
def test_every_family_goes_on_with_calls_that_were_handed_in(make: Make, template: str, tools: list[Any]) -> None:
    begun = [("system", "Be brief."), ("user", "Rain?"), asks(call(), call("call_2", {"city": "Zug"}), reasoning_content="Look.")]
    agent, engine = make("It rains.", "Yes.", messages=begun, tools=tools, template=template)
    agent.run([{"role": "tool", "tool_call_id": f"call_{n}", "content": f"wet {n}"} for n in (1, 2)])
    assert "wet 1" in engine.asked[0]
    assert "wet 2" in engine.asked[0]
    agent.run("Sure?")
    engine.only_grows()


def test_an_object_is_asked_for_below_the_users_words(make: Make) -> None:
    agent, engine = make('{"n": 1}')
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    assert agent.run([("user", "a"), ("assistant", "b"), ("user", "How many?")], schema=schema).value == {"n": 1}
    assert "user\nHow many?\n\nAnswer with JSON" in engine.asked[0]
