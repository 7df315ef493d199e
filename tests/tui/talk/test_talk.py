"""A person leads a talk: asks, stops, edits, has it again, changes the agent in between; nothing that was said is lost."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import events as e
from agent import tool
from agent.approval.policy import Answer, Rule
from agent.errors import SprigError
from agent.settings.values import CHAT_TOOLS, Settings
from agent.tools.mcp.config import ServerConfig
from tests.fixtures.fake_engine import FakeEngine, Say, call_text
from tests.fixtures.mcp_servers import raw
from tests.fixtures.talks import Heard, MakeTalk, press_tool
from tui.talk import notes as n
from tui.talk.setup import Setup
from tui.talk.talk import Talk


def texts(heard: Heard, settled: n.Settled) -> list[str]:
    return [entry.stored.message.text for entry in settled.entries]


def ask(heard: Heard, text: str) -> n.Settled:
    heard.talk.ask(text)
    return heard.until(n.Settled)


def test_a_message_asked_while_the_model_loads_is_answered_when_it_is_there(make: MakeTalk) -> None:
    heard = make("Hello, you.")
    heard.talk.open(heard.setup)
    settled = ask(heard, "Hello?")
    assert texts(heard, settled) == ["Hello?", "Hello, you."]
    kinds = [type(note) for note in heard.told]
    assert kinds.index(n.Opening) < kinds.index(n.Opened) < kinds.index(n.Began) < kinds.index(e.Text) < kinds.index(e.Done)
    assert heard.store.latest() is not None
    assert settled.title == "Hello?"


def test_nothing_is_kept_of_a_conversation_without_a_message(make: MakeTalk) -> None:
    heard = make()
    heard.talk.open(heard.setup)
    heard.until(n.Opened)
    heard.talk.load(None)
    heard.until(n.Shown)
    assert heard.store.sessions() == []


def test_having_it_again_is_a_second_answer_to_the_same_message(make: MakeTalk) -> None:
    heard = make("one", "two", "three")
    heard.talk.open(heard.setup)
    first = ask(heard, "Say a number.")
    heard.talk.again(first.entries[0].id)
    again = heard.until(n.Settled)
    assert texts(heard, again) == ["Say a number.", "two"]
    assert again.entries[0].id == first.entries[0].id
    assert (again.entries[1].place, len(again.entries[1].siblings)) == (2, 2)
    heard.talk.go(first.entries[1].id)
    shown = heard.until(n.Shown, check=lambda note: note.at is not None)
    assert [entry.stored.message.text for entry in shown.entries] == ["Say a number.", "one"]
    after = ask(heard, "And now?")
    assert texts(heard, after) == ["Say a number.", "one", "And now?", "three"]
    assert "two" not in heard.engines[0].asked[-1], "the other branch is not what the model reads"


def test_an_edited_message_is_a_branch_and_the_old_one_stays(make: MakeTalk) -> None:
    heard = make("a", "b")
    heard.talk.open(heard.setup)
    first = ask(heard, "Wrong")
    heard.talk.edit(first.entries[0].stored.parent, "Right")
    settled = heard.until(n.Settled)
    assert texts(heard, settled) == ["Right", "b"]
    assert settled.entries[0].neighbour(-1) == first.entries[0].id
    assert "Wrong" not in heard.engines[0].asked[-1]


def test_stopping_keeps_what_was_said(make: MakeTalk) -> None:
    heard = make(Say("A very long story about a king.", during=lambda said: heard.talk.stop() if len(said) > 6 else None), "ok")
    heard.talk.open(heard.setup)
    settled = ask(heard, "Tell me")
    assert heard.all(e.Done)[-1].result.reason == "cancelled"
    assert settled.entries[1].stored.state == "partial"
    assert settled.entries[1].stored.message.text == "A very"
    assert texts(heard, ask(heard, "Go on"))[-1] == "ok"


def test_a_tool_waits_for_a_word_and_runs_only_then(make: MakeTalk) -> None:
    ran: list[str] = []
    calls = [call_text("press", {"button": b}) for b in ("red", "red", "green")]
    heard = make(calls[0], "done", calls[1], "again", calls[2], "no", tools=(press_tool(ran),))
    heard.talk.open(heard.setup)
    heard.talk.ask("Press red")
    question = heard.until(n.Question)
    assert ran == []
    heard.talk.answer(question.number, Answer.always_yes())
    heard.until(n.Settled)
    assert ran == ["red"]
    ask(heard, "Press red again")
    assert ran == ["red", "red"], "yes for this session: the same again is not asked"
    heard.talk.ask("Press green")
    question = heard.until(n.Question)
    heard.talk.answer(question.number, Answer.no("never green"))
    settled = heard.until(n.Settled)
    assert ran == ["red", "red"]
    assert "never green" in heard.all(e.CallRefused)[-1].why
    assert settled.entries[-2].results


def test_yes_for_this_session_ends_with_the_conversation(make: MakeTalk) -> None:
    ran: list[str] = []
    call = call_text("press", {"button": "red"})
    heard = make(call, "one", call, "two", call, "three", tools=(press_tool(ran),))
    heard.talk.open(heard.setup)
    heard.talk.ask("Press red")
    heard.talk.answer(heard.until(n.Question).number, Answer.always_yes())
    first = heard.until(n.Settled).session
    assert len(heard.talk.session_rules) == 1
    for other in (None, first):  # another one, and the first again: what was allowed in it then is over, too
        heard.talk.load(other)
        heard.until(n.Shown)
        assert heard.talk.session_rules == ()
        heard.talk.ask("Press red")
        heard.talk.answer(heard.until(n.Question).number, Answer.no())
        heard.until(n.Settled)
    assert ran == ["red"]


def test_yes_for_this_session_holds_whatever_model_goes_on_with_it(make: MakeTalk) -> None:
    ran: list[str] = []
    call = call_text("press", {"button": "red"})
    heard = make(call, "one", call, "two", tools=(press_tool(ran),))
    heard.talk.open(heard.setup)
    heard.talk.ask("Press red")
    heard.talk.answer(heard.until(n.Question).number, Answer.always_yes())
    heard.until(n.Settled)
    heard.talk.open(replace(heard.setup, model="another"))
    heard.until(n.Opened)
    assert len(heard.talk.session_rules) == 1
    ask(heard, "Press red again")
    assert len(heard.engines) == 2
    assert ran == ["red", "red"]


def test_a_rule_that_comes_with_an_answer_holds_from_then_on(make: MakeTalk) -> None:
    ran = []

    @tool(approval="ask")
    def press(button: str) -> str:
        ran.append(button)
        return "pressed"

    heard = make(call_text("press", {"button": "a"}), "x", call_text("press", {"button": "b"}), "y", tools=(press,))
    heard.talk.open(heard.setup)
    heard.talk.ask("a")
    question = heard.until(n.Question)
    heard.talk.answer(question.number, Answer.yes(), Rule("allow", "press"))
    heard.until(n.Settled)
    ask(heard, "b")
    assert ran == ["a", "b"]
    heard.talk.open(heard.setup)  # changed settings do not forget it
    heard.until(n.Opened)
    assert [r.tool for r in heard.talk.rules] == ["press"]


def test_stopping_answers_an_open_question_with_no(make: MakeTalk) -> None:
    ran = []

    @tool(approval="ask")
    def press() -> str:
        ran.append(1)
        return ""

    heard = make(call_text("press", {}), tools=(press,))
    heard.talk.open(heard.setup)
    heard.talk.ask("Press")
    question = heard.until(n.Question)
    heard.talk.stop()
    heard.until(n.Settled)
    assert ran == []
    assert n.QuestionWithdrawn(question.number) in heard.told
    assert heard.all(e.Done)[-1].result.reason == "cancelled"


def test_the_engine_dies_and_the_message_can_be_asked_again(make: MakeTalk) -> None:
    heard = make(Say("Half an answer", dies=7), "The whole answer")
    heard.talk.open(heard.setup)
    settled = ask(heard, "Tell me")
    assert heard.all(e.Done)[-1].result.reason == "error"
    assert texts(heard, settled) == ["Tell me", "Half an"]
    heard.talk.again(settled.entries[0].id)
    assert texts(heard, heard.until(n.Settled)) == ["Tell me", "The whole answer"]


def test_the_agent_changes_and_the_conversation_stays(make: MakeTalk) -> None:
    heard = make("I am the first.", "I am another.")
    heard.talk.open(heard.setup)
    ask(heard, "Who are you?")
    heard.talk.open(Setup(model="other", root=heard.setup.root, system="Be brief.", tools=("clock",)))
    opened = heard.until(n.Opened)
    assert [t.name for t in opened.facts.tools] == ["clock"]
    assert heard.engines[0]._closed, "two models at once may not fit"
    settled = ask(heard, "And you?")
    assert texts(heard, settled) == ["Who are you?", "I am the first.", "And you?", "I am another."]
    assert "Be brief." in heard.engines[1].asked[-1]
    assert "I am the first." in heard.engines[1].asked[-1]


def test_other_tools_do_not_load_the_model_again(make: MakeTalk) -> None:
    heard = make()
    heard.talk.open(heard.setup)
    heard.until(n.Opened)
    heard.talk.open(Setup(model="fake", root=heard.setup.root, tools=("clock", "calculate")))
    heard.until(n.Opened)
    assert len(heard.engines) == 1


def test_a_session_is_taken_up_where_it_was_left(make: MakeTalk) -> None:
    heard = make("My name is Bo.", "still Bo", "new")
    heard.talk.open(heard.setup)
    first = ask(heard, "Name?")
    heard.talk.load(None)
    assert heard.until(n.Shown).entries == []
    ask(heard, "Somebody else")
    heard.talk.load(first.session)
    shown = heard.until(n.Shown)
    assert [entry.stored.message.text for entry in shown.entries] == ["Name?", "My name is Bo."]
    assert texts(heard, ask(heard, "Still?"))[-1] == "new"
    assert len(heard.store.sessions()) == 2


def test_a_model_that_cannot_be_loaded_is_said_and_the_message_comes_back(tmp_path: Path, make: MakeTalk) -> None:
    told: list[Any] = []
    ready = threading.Event()

    def tell(note: Any) -> None:
        told.append(note)
        if isinstance(note, n.Settled):
            ready.set()

    def broken(setup: Setup) -> FakeEngine:
        raise SprigError("it does not fit")

    heard = make()
    talk = Talk(tell, lambda: heard.store, broken)
    talk.open(Setup(model="big"))
    talk.ask("Hello")
    assert ready.wait(10)
    talk.close()
    assert [note.why for note in told if isinstance(note, n.OpenFailed)] == ["it does not fit"]
    lost = next(note for note in told if isinstance(note, n.NotAsked))
    assert lost.text == "Hello"
    assert "/model" in lost.why


def test_a_fault_in_between_is_told_and_the_talk_goes_on(make: MakeTalk) -> None:
    heard = make("yes")
    heard.talk.open(heard.setup)
    heard.talk.load("no such session")
    assert "there is no session" in heard.until(n.Failed).why
    assert texts(heard, ask(heard, "Still there?")) == ["Still there?", "yes"]


def test_closing_ends_an_open_question_and_the_engine(make: MakeTalk) -> None:
    @tool(approval="ask")
    def press() -> str:
        return ""

    heard = make(call_text("press", {}), tools=(press,))
    heard.talk.open(heard.setup)
    heard.talk.ask("Press")
    heard.until(n.Question)
    heard.talk.close()
    assert heard.engines[0]._closed


# What is done before anybody asks.


def test_the_beginning_of_the_prompt_is_read_when_the_model_is_there_and_after_a_change(make: MakeTalk) -> None:
    heard = make("Hi.", system="Be kind.", tools=("clock",))
    heard.talk.open(heard.setup)
    heard.until(n.ReadAhead)
    (ahead,) = heard.all(n.ReadingAhead)
    assert 0 < ahead.done < ahead.total
    (engine,) = heard.engines
    assert "Be kind." in engine.read[0]
    assert "clock" in engine.read[0]
    ask(heard, "Hello?")
    assert engine.asked[0].startswith(engine.read[0])
    heard.talk.open(replace(heard.setup, system="Be short."))
    heard.until(n.ReadAhead)
    assert "Be short." in engine.read[1]
    assert "Hello?" in engine.read[1], "and the conversation, which stands behind it"


@pytest.mark.parametrize("what", ["ask", "open", "load", "close"])
def test_nobody_waits_for_what_is_read_ahead(make: MakeTalk, what: str) -> None:
    heard, go_on = make("At once."), threading.Event()
    heard.while_reading = lambda: go_on.wait(20)
    heard.talk.open(heard.setup)
    heard.until(n.ReadingAhead)
    match what:
        case "ask":
            assert texts(heard, ask(heard, "Hello?")) == ["Hello?", "At once."]
        case "open":
            heard.talk.open(replace(heard.setup, model="other"))
            heard.until(n.Opened)
            assert len(heard.engines) == 2
        case "load":
            heard.talk.load(None)
            heard.until(n.Shown)
        case "close":
            heard.talk.close()
    assert not heard.all(n.ReadAhead)
    go_on.set()
    heard.until(n.ReadAhead)
    assert not heard.all(n.Failed)


def test_a_small_model_begins_without_tools_and_a_person_gives_it_some(make: MakeTalk, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = replace(Setup.of(Settings(), Path.cwd()), model="fake")
    heard = make()
    heard.talk.open(usual)
    opened = heard.until(n.Opened)
    assert (opened.setup.tool_names, opened.facts.small) == (CHAT_TOOLS, False)
    monkeypatch.setattr("agent.models.file.ModelFile.parameters", 134_515_008)
    heard.talk.open(usual)
    opened = heard.until(n.Opened)
    assert (opened.setup.tool_names, opened.facts.tools, opened.facts.small) == ((), (), True)
    heard.talk.open(opened.setup.with_tools(["clock"]))
    opened = heard.until(n.Opened)
    assert (opened.setup.tool_names, opened.facts.small) == (("clock",), False)
    monkeypatch.undo()
    heard.talk.open(opened.setup.on("other"))
    assert heard.until(n.Opened).setup.tool_names == ("clock",), "what was chosen stays with another model"


def test_a_server_that_does_not_start_is_one_line_and_the_others_work(make: MakeTalk, tmp_path: Path) -> None:
    pytest.importorskip("mcp")
    heard = make(mcp=(ServerConfig("gone", command=("no-such-program",)), raw(tmp_path)))
    heard.talk.open(heard.setup)
    opened = heard.until(n.Opened, seconds=60)
    assert opened.facts.problems == ("MCP server gone: no-such-program cannot be started: No such file or directory",)
    assert [t.name for t in opened.facts.tools] == ["raw__go"]
