"""A server's tools become others while a person talks: the talk says so, and what changed waits for a person's word."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from agent import events as e
from agent.approval.policy import Answer, Rule
from tests.fixtures.fake_engine import Say, call_text
from tests.fixtures.mcp_servers import GROWS, MUTE, ChangingServer
from tests.fixtures.talks import Heard, MakeTalk
from tui.talk import notes as n

OPEN = call_text("house__open", {"door": "front"})
ALLOWED = (Rule("allow", "house__*", even_after_untrusted=True),)


@pytest.fixture
def make(make: MakeTalk) -> MakeTalk:
    """The same, with the model and the servers there."""

    def opened(*script: Say | str, **setup: Any) -> Heard:
        heard = make(*script, **setup)
        heard.talk.open(heard.setup)
        heard.until(n.Opened, seconds=60)
        return heard

    return opened


def ask(heard: Heard, text: str) -> list[Any]:
    """Every note from the question to its end."""
    heard.talk.ask(text)
    before = len(heard.told)
    heard.until(n.Settled)
    return heard.told[before:]


def test_while_nobody_asks_anything_the_new_tools_are_there_and_read_ahead(make: MakeTalk, tmp_path: Path) -> None:
    server = ChangingServer(tmp_path, "open", "close")
    heard = make("Hello.", mcp=(server.config,))
    server.offer("open", "unlock")
    now = heard.until(n.ToolsNow)
    assert now.what == e.ToolsChanged(new=("house__unlock",), gone=("house__close",))
    assert [(t.name, t.approval, t.changed) for t in now.tools] == [("house__open", "ask", ""), ("house__unlock", "ask", "")]
    assert not any(isinstance(note, n.ToolsNow) for note in ask(heard, "Hello?")), "it is said once"
    assert "house__unlock" in heard.engines[0].asked[-1]


def test_a_tool_that_brings_others_has_brought_them_when_its_answer_is_there(make: MakeTalk, tmp_path: Path) -> None:
    server = ChangingServer(tmp_path, "open", behaviour=GROWS)
    heard = make(OPEN, "Opened.", call_text("house__unlock", {}), "Unlocked.", mcp=(server.config,), rules=ALLOWED)
    heard.talk.ask("Open")
    assert heard.until(n.ToolsNow).what == e.ToolsChanged(new=("house__unlock",))
    assert any(isinstance(note, e.ToolDone) and note.ok for note in ask(heard, "Unlock"))


def test_a_changed_tool_is_asked_for_until_a_person_has_accepted_it(make: MakeTalk, tmp_path: Path) -> None:
    server = ChangingServer(tmp_path, "open: Open a door.")
    heard = make(OPEN, "one", OPEN, "two", OPEN, "three", mcp=(server.config,), rules=ALLOWED)
    assert not any(isinstance(note, n.Question) for note in ask(heard, "Open"))
    server.offer("open: Open all doors.")
    (changed,) = heard.until(n.ToolsNow).tools
    assert changed.changed
    heard.talk.ask("Open")
    question = heard.until(n.Question)
    assert "changed since it was first seen" in question.request.decision.reason
    heard.talk.answer(question.number, Answer.no())
    heard.until(n.Settled)
    assert "-Open a door.\n+Open all doors.\n" in heard.talk.difference("house__open")
    heard.talk.accept("house__open", changed.changed)
    accepted = heard.until(n.ToolsNow)
    assert (accepted.what, accepted.tools[0].changed) == (None, "")
    assert not any(isinstance(note, n.Question) for note in ask(heard, "Open"))


def test_what_is_accepted_is_what_was_seen(make: MakeTalk, tmp_path: Path) -> None:
    server = ChangingServer(tmp_path, "open: Open a door.")
    heard = make(mcp=(server.config,))
    server.offer("open: Open all doors.")
    (changed,) = heard.until(n.ToolsNow).tools
    heard.talk.accept("house__open", f"not {changed.changed}")
    assert "another one again" in heard.until(n.Failed).why
    assert heard.talk.difference("house__open")
    assert heard.talk.difference("house__nothing") == ""


@pytest.mark.slow
def test_a_server_that_cries_without_end_is_followed_once_between_two_messages(make: MakeTalk, tmp_path: Path) -> None:
    again = "old = listing\ndef listing(id):\n    old(id)\n    for _ in range(100): notify('notifications/tools/list_changed')\n"
    server = ChangingServer(tmp_path, "open", announced=100, behaviour=again)
    heard = make("one", "two", mcp=(server.config,))
    for text in ("Hello?", "And?"):
        ask(heard, text)
        before = server.asked
        for tools in (("open", "close"), ("open",), ("close",)):
            server.offer(*tools)
            time.sleep(0.05)
        assert server.asked - before <= 1
    assert len(heard.all(n.ToolsNow)) <= 4


@pytest.mark.slow
def test_a_message_does_not_wait_for_a_server_that_says_no_more_and_can_be_stopped(make: MakeTalk, tmp_path: Path) -> None:
    server = ChangingServer(tmp_path, "open", behaviour=MUTE)
    heard = make("one", "two", mcp=(server.config,))
    (tmp_path / "house.mute").touch()
    server.offer("close")
    while not (tmp_path / "house.unheard").exists():
        time.sleep(0.005)
    began = time.monotonic()
    heard.talk.ask("Hello?")
    heard.until(n.Began)
    heard.talk.stop()
    heard.until(n.Settled)
    assert time.monotonic() - began < 10, "the server has 20 seconds to answer"
    assert heard.all(e.Done)[-1].result.reason == "cancelled"
    (tmp_path / "house.mute").unlink()
    server.offer("lock")
    assert heard.until(n.ToolsNow).what == e.ToolsChanged(new=("house__lock",), gone=("house__open",)), "it answers again"
