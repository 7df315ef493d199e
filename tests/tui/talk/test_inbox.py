"""What a model says reaches the screen in order, gathered a few times a second, whoever says it from whatever thread."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from agent import events as e
from agent.events import Usage
from agent.messages import Message, ToolCall
from agent.sessions.records import StoredMessage
from tui.status.monitor import DeviceState
from tui.talk import notes as n
from tui.talk.entries import entries, question_before
from tui.talk.inbox import Inbox
from tui.talk.setup import Setup
from tui.talk.work import Work


async def test_words_are_gathered_and_nothing_overtakes_anything() -> None:
    got: list[list[Any]] = []
    inbox = Inbox(got.append, asyncio.get_running_loop(), every=0.05)

    def talk() -> None:
        for i in range(2000):
            inbox.put(e.Text(f"{i} ", tokens=1))
            if i % 500 == 499:
                inbox.put(e.Thought("hm", tokens=1))

    threads = [threading.Thread(target=talk)]
    for thread in threads:
        thread.start()
    while sum(isinstance(note, e.Thought) for batch in got for note in batch) < 4:
        await asyncio.sleep(0.01)
    for thread in threads:
        thread.join()
    notes = [note for batch in got for note in batch]
    said = "".join(note.text for note in notes if isinstance(note, e.Text))
    assert said.split() == [str(i) for i in range(2000)]
    assert sum(note.tokens for note in notes) == 2004
    assert len(notes) < 100, "words that follow each other are one note"
    assert [type(note) for note in notes if isinstance(note, e.Thought)] == [e.Thought] * 4


async def test_a_closed_inbox_delivers_nothing_and_a_dead_loop_does_not_matter() -> None:
    got: list[list[Any]] = []
    inbox = Inbox(got.append, asyncio.get_running_loop(), every=0.0)
    inbox.close()
    inbox.put(e.Text("late"))
    await asyncio.sleep(0.02)
    assert got == []
    loop = asyncio.new_event_loop()
    loop.close()
    orphan = Inbox(got.append, loop)
    orphan.put(e.Text("nobody"))
    orphan.put(e.Text("still nobody"))


def stored(id: int, parent: int | None, message: Message) -> StoredMessage:
    return StoredMessage(id, parent, message, "complete", 0.0)


def test_a_tree_of_messages_is_shown_as_one_way_with_its_branches() -> None:
    call = ToolCall("clock", {}, "abcdefgh1")
    kept = [
        stored(1, None, Message("user", "one")),
        stored(2, 1, Message("assistant", "", calls=(call,))),
        stored(3, 2, Message("tool", "noon", call_id="abcdefgh1", name="clock")),
        stored(4, 3, Message("assistant", "It is noon.")),
        stored(5, None, Message("user", "another first")),
        stored(6, 1, Message("assistant", "Again.")),
        stored(7, 4, Message("user", "two")),
    ]
    way = entries(kept, 7)
    assert [entry.id for entry in way] == [1, 2, 4, 7]
    assert way[1].results["abcdefgh1"].message.text == "noon"
    assert (way[0].place, way[0].siblings) == (1, (1, 5))
    assert (way[1].neighbour(1), way[1].neighbour(-1)) == (6, None)
    assert [entry.id for entry in entries(kept, 6)] == [1, 6]
    assert entries(kept, None) == []
    asked = question_before(way, 4)
    assert asked is not None
    assert asked.id == 1
    assert question_before(way, 99) is None


def test_a_damaged_tree_that_runs_in_a_circle_ends() -> None:
    kept = [stored(1, 2, Message("user", "a")), stored(2, 1, Message("assistant", "b"))]
    assert len(entries(kept, 2)) <= 3


def test_the_status_follows_what_happens() -> None:
    now = 100.0
    work = Work(lambda: now)
    facts = n.AgentFacts("Tiny", "Q4_0", "/m/tiny.gguf", 4096, 8192, 500, False)
    assert work.status().state == "no model"
    work.note(n.Opening("/models/tiny.gguf", 0.25))
    assert (work.status().state, work.status().model, work.status().loaded) == ("loading", "tiny.gguf", 0.25)
    work.note(n.Opened(facts, Setup()))
    assert (work.status().state, work.status().context) == ("ready", 4096)
    work.asked()
    work.note(e.Prefill(100, 400, 100))
    now += 1
    work.note(e.Prefill(200, 400, 100))
    status = work.status()
    assert (status.state, status.read, status.read_total, status.cached, status.new) == ("reading", 200, 400, 100, 300)
    assert status.left is not None
    assert 1.5 < status.left < 2.5
    for _ in range(10):
        now += 0.1
        work.note(e.Text("x", tokens=2))
    status = work.status()
    assert status.state == "writing"
    assert status.used == 420
    assert status.speed is not None
    assert 15 < status.speed < 25
    work.note(e.CallReady(ToolCall("clock", {}, "a")))
    assert (work.status().state, work.status().tool) == ("tool", "clock")
    work.stopping()
    assert work.status().state == "stopping"
    usage = Usage(cached_tokens=7, prefill_tokens=8, generated_tokens=30, decode_seconds=2.0, memory=999)
    work.note(e.Done(e.Result("x", "done", usage=usage)))
    work.note(n.Settled((), "s", "t", 450))
    status = work.status()
    assert (status.state, status.speed, status.memory, status.used, status.cached, status.new) == ("ready", 15.0, 999, 450, 7, 8)
    work.note(DeviceState(temperature=71.0))
    assert work.status().device.temperature == 71.0
    work.note(n.OpenFailed("too large", Setup()))
    assert work.status().state == "no model"


def test_what_is_read_ahead_is_told_only_while_there_is_nothing_else_to_do() -> None:
    work = Work()
    facts = n.AgentFacts("m", "Q8_0", "/m", 4096, 4096, 0, False)
    work.note(n.ReadingAhead(1, 9))
    assert work.status().state == "no model"
    work.note(n.Opened(facts, Setup()))
    work.note(n.ReadingAhead(3, 9))
    assert (work.status().state, work.status().read, work.status().read_total) == ("ahead", 3, 9)
    work.note(n.ReadAhead())
    assert work.status().state == "ready"
    work.note(n.ReadingAhead(3, 9))
    work.asked()
    assert work.status().state == "reading"
    for late in (n.ReadingAhead(4, 9), n.ReadAhead()):
        work.note(late)
        assert work.status().state == "reading", "a question goes first"
