"""Stories of a person who looks for an old conversation, and of what else can be done with it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.events import AppBlur, AppFocus
from textual.message import Message as Posted
from textual.pilot import Pilot
from textual.widgets import Input, Static

from agent.messages import Message
from agent.sessions.records import Hit
from agent.sessions.store import Store
from tui.widgets.sessions import panel
from tui.widgets.sessions.ask import SessionAsk, SessionTitle
from tui.widgets.sessions.keys import SessionKeys
from tui.widgets.sessions.list import SessionList
from tui.widgets.sessions.panel import SessionsPanel
from tui.widgets.sessions.row import ago, row_content, session_of

_STYLES = Path(panel.__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "sessions.db") as opened:
        yield opened


class Bench(App[None]):
    """The panel alone, and everything that it posts."""

    CSS_PATH = [_STYLES / f"{name}.tcss" for name in ("panel", "list", "ask")]

    def __init__(self, store: Store, *, current: str | None = None, folder: Path | None = None) -> None:
        super().__init__()
        self._store, self._now_open, self._folder = store, current, folder
        self.posted: list[Posted] = []

    def compose(self) -> ComposeResult:
        yield SessionsPanel(self._store, current=self._now_open, folder=self._folder)

    def on_mount(self) -> None:
        self.panel.focus_list()

    def on_sessions_panel_open_wanted(self, event: SessionsPanel.OpenWanted) -> None:
        self.posted.append(event)

    on_sessions_panel_new_wanted = on_sessions_panel_deleted = on_sessions_panel_close_wanted = on_sessions_panel_renamed = (
        on_sessions_panel_open_wanted  # type: ignore[assignment]
    )

    @property
    def panel(self) -> SessionsPanel:
        return self.query_one(SessionsPanel)

    @property
    def rows(self) -> SessionList:
        return self.query_one(SessionList)

    def said(self, selector: str) -> str:
        widget = self.query_one(selector, Static)
        return str(widget.content) if widget.display else ""

    def titles(self) -> list[str]:
        return [row.title for row in self.rows.rows]

    def screen_text(self) -> str:
        width, height = self.size
        return "\n".join("".join(s.text for s in self.screen._compositor.render_strips()[y]) for y in range(height) if width)


async def until(pilot: Pilot[Any], true: Callable[[], object]) -> None:
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, "it did not happen"
        await pilot.pause(0.01)


def talk(store: Store, question: str, answer: str = "Because.") -> str:
    with store.create() as session:
        session.append(Message("user", question))
        session.append(Message("assistant", answer))
        return session.id


async def test_the_last_used_session_is_first_and_the_open_one_is_marked(store: Store) -> None:
    old = talk(store, "Why is the sky blue?")
    talk(store, "How do I bake bread?")
    app = Bench(store, current=old)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.rows)
        assert app.titles() == ["How do I bake bread?", "Why is the sky blue?"]
        await until(pilot, lambda: "● Why is the sky blue?" in app.screen_text())
        text = app.screen_text()
        assert "open now · 2 messages" in text
        assert "now · 2 messages" in text
        assert app.rows.has_focus
        assert app.rows.row is not None
        assert session_of(app.rows.row) == old  # the cursor begins where the person is


async def test_enter_and_a_click_open_a_session(store: Store) -> None:
    first, second = talk(store, "first"), talk(store, "second")
    app = Bench(store)
    async with app.run_test(size=(34, 20)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("down", "enter")
        await until(pilot, lambda: app.posted)
        await pilot.click(SessionList, offset=(4, 0))
        await until(pilot, lambda: len(app.posted) == 2)
        opened = [(e.session_id, e.message_id) for e in app.posted if isinstance(e, SessionsPanel.OpenWanted)]
        assert opened == [(first, None), (second, None)]


async def test_typing_finds_words_in_messages_and_in_titles(store: Store) -> None:
    sky = talk(store, "Why is it blue up there?", "Small molecules scatter blue light more than red light.")
    talk(store, "Write a tale about a molecule", "Once upon a time.")
    talk(store, "Bread", "Flour and water.")
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("slash", *"molecul")
        await until(pilot, lambda: any(isinstance(row, Hit) for row in app.rows.rows))
        assert app.titles()[0] == "Write a tale about a molecule"  # a title comes before what was said
        await until(pilot, lambda: "model: Small molecules" in app.screen_text())
        hits = [row for row in app.rows.rows if isinstance(row, Hit) and row.session == sky]
        await pilot.press("down")
        assert app.rows.has_focus
        while app.rows.row not in hits:
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: app.posted)
        event = app.posted[0]
        assert isinstance(event, SessionsPanel.OpenWanted)
        assert (event.session_id, event.message_id) == (sky, hits[0].message)


async def test_what_matched_is_emphasised_and_stands_at_the_beginning() -> None:
    snippet = "a long way before the word that was looked for, and more after it"
    start = snippet.index("looked")
    hit = Hit("id", "Title", 7, "user", snippet, ((start, start + 6),), 0.0)
    content = row_content(hit, current=None, now=0.0)
    line = content.plain.split("\n")[1]
    assert line.startswith("  you: …")
    assert line.index("looked") < 25
    marked = [content.plain[span.start : span.end] for span in content.spans if "underline" in str(span.style)]
    assert marked == ["looked"]


async def test_the_search_runs_once_after_the_last_key_and_not_in_the_loop(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    talk(store, "a bell rings", "ding dong")
    asked: list[tuple[str, bool]] = []
    search = store.search

    def noted(text: str, limit: int = 20) -> list[Hit]:
        asked.append((text, threading.current_thread() is threading.main_thread()))
        return search(text, limit)

    monkeypatch.setattr(store, "search", noted)
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("slash")
        app.query_one(Input).value = "di"
        app.query_one(Input).value = "ding"
        await until(pilot, lambda: app.titles() == ["a bell rings"] and asked)
        assert asked == [("ding", False)]


async def test_a_slow_store_does_not_hold_up_the_keys(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    talk(store, "hello", "world")
    gate = threading.Event()
    search, asked = store.search, []

    def slow(text: str, limit: int = 20) -> list[Hit]:
        asked.append(text)
        gate.wait(10)
        return search(text, limit)

    monkeypatch.setattr(store, "search", slow)
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("slash", *"wor")
        await until(pilot, lambda: asked)
        await pilot.press(*"ldly")  # typed while the store is busy
        assert app.query_one(Input).value == "worldly"
        await asyncio.sleep(0.2)
        gate.set()
        await until(pilot, lambda: "Nothing found for “worldly”" in app.said("#sessions-empty"))
        assert asked == ["wor", "worldly"]  # and never two at once


async def test_an_empty_store_and_an_empty_search_say_so(store: Store) -> None:
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: "No sessions yet" in app.said("#sessions-empty"))
        assert app.query_one(Input).has_focus
        talk(store, "now there is one")
        app.panel.refresh_list(None)
        await until(pilot, app.titles)
        assert app.said("#sessions-empty") == ""
        await pilot.press(*"[b]zz")
        await until(pilot, lambda: "Nothing found for “[b]zz”" in app.said("#sessions-empty"))


async def test_letters_are_letters_in_the_search(store: Store) -> None:
    talk(store, "hello")
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("slash", *"nrdx/")
        assert app.query_one(Input).value == "nrdx/"
        assert app.posted == []
        await pilot.press("escape")
        await until(pilot, lambda: app.posted)
        assert isinstance(app.posted[0], SessionsPanel.CloseWanted)


async def test_a_session_is_renamed_in_its_row(store: Store) -> None:
    id = talk(store, "Why?")
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("f2")
        await until(pilot, lambda: app.query(SessionTitle))
        title = app.query_one(SessionTitle)
        await until(pilot, lambda: title.has_focus and title.region.y == app.rows.region.y)
        await pilot.press(*"sky blue", "enter")  # the old title was selected: typing replaces it
        await until(pilot, lambda: app.titles() == ["sky blue"])
        assert store.open(id).info.title == "sky blue"
        assert app.rows.has_focus
        assert [(e.session_id, e.title) for e in app.posted if isinstance(e, SessionsPanel.Renamed)] == [(id, "sky blue")]
        await pilot.press("r")
        await until(pilot, lambda: app.query(SessionTitle))
        await pilot.press(*"zzz", "escape")
        await until(pilot, lambda: app.rows.has_focus and not app.query(SessionTitle))
        assert store.open(id).info.title == "sky blue"


async def test_a_half_typed_title_outlives_a_look_at_another_window(store: Store) -> None:
    for n in range(9):
        talk(store, f"talk {n}")
    app = Bench(store)
    async with app.run_test(size=(40, 24)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("end", "r")
        await until(pilot, lambda: app.query(SessionTitle) and app.query_one(SessionTitle).has_focus)
        await pilot.press(*"half")
        app.post_message(AppBlur())
        await until(pilot, lambda: app.focused is None)
        app.post_message(AppFocus())
        await until(pilot, lambda: app.query_one(SessionTitle).has_focus)
        assert app.query_one(SessionTitle).value == "half"
        await pilot.resize_terminal(40, 12)  # the keyboard of a phone comes up: the title stays within the list
        await until(pilot, lambda: app.rows.region.contains_region(app.query_one(SessionTitle).region))
        await pilot.press("up", "down")  # to turn to something else leaves the title as it was
        await until(pilot, lambda: app.rows.has_focus and not app.query(SessionTitle))
        assert "talk 0" in app.titles()


async def test_a_session_goes_only_after_a_yes(store: Store) -> None:
    id = talk(store, "Why is the sky blue?")
    other = talk(store, "stays")
    app = Bench(store, current=id)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        for refusal in ("n", "escape"):
            await pilot.press("d")
            await until(pilot, lambda: app.query(SessionAsk))
            await until(pilot, lambda: "and its 2 messages?" in app.screen_text())
            await pilot.press("enter")  # no answer: the question stands
            assert app.query(SessionAsk)
            await pilot.press(refusal)
            await until(pilot, lambda: app.rows.has_focus and not app.query(SessionAsk))
        assert len(store.sessions()) == 2
        await pilot.press("delete")
        await until(pilot, lambda: app.query(SessionAsk))
        await pilot.press("y")
        await until(pilot, lambda: app.titles() == ["stays"])
        assert [info.id for info in store.sessions()] == [other]
        await until(pilot, lambda: app.posted)
        assert [e.session_id for e in app.posted if isinstance(e, SessionsPanel.Deleted)] == [id]
        assert "Deleted “Why is the sky blue?”" in app.said("#sessions-notice")
        assert app.rows.has_focus


async def test_an_answer_can_be_clicked(store: Store) -> None:
    talk(store, "one")
    app = Bench(store)
    async with app.run_test(size=(34, 20)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await until(pilot, lambda: "x export" in app.screen_text())
        await pilot.pause()
        text = app.screen_text().splitlines()
        y, x = next((y, line.index("delete")) for y, line in enumerate(text) if "delete" in line)
        await pilot.click(offset=(x, y))
        await until(pilot, lambda: app.query(SessionAsk))
        await until(pilot, lambda: "y yes" in app.screen_text())
        await pilot.pause()
        text = app.screen_text().splitlines()
        y, x = next((y, line.index("y yes")) for y, line in enumerate(text) if "y yes" in line)
        await pilot.click(offset=(x, y))
        await until(pilot, lambda: not store.sessions())
        await until(pilot, lambda: "No sessions yet" in app.said("#sessions-empty"))


@pytest.mark.parametrize(
    ("key", "suffix", "holds"), [("m", "md", "# Sky"), ("j", "json", '"sprig_session": 1'), ("s", "svg", "<svg")]
)
async def test_a_session_is_exported(store: Store, tmp_path: Path, key: str, suffix: str, holds: str) -> None:
    talk(store, "Sky")
    folder = tmp_path / "out"
    folder.mkdir()
    app = Bench(store, folder=folder)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("x")
        await until(pilot, lambda: app.query(SessionAsk))
        await pilot.press(key)
        await until(pilot, lambda: app.said("#sessions-notice").startswith("Saved sky."))
        assert holds in (folder / f"sky.{suffix}").read_text()


async def test_an_export_that_fails_is_one_line(store: Store, tmp_path: Path) -> None:
    talk(store, "Sky")
    app = Bench(store, folder=tmp_path / "nowhere")
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("x")
        await until(pilot, lambda: app.query(SessionAsk))
        await pilot.press("m")
        await until(pilot, lambda: "✗ there is no folder" in app.said("#sessions-notice"))


@pytest.mark.parametrize("key", ["d", "x", "r"])
async def test_another_process_deletes_what_is_shown(store: Store, tmp_path: Path, key: str) -> None:
    talk(store, "left")
    gone = talk(store, "gone")
    app = Bench(store, folder=tmp_path)
    async with app.run_test(size=(60, 20)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        if key == "d":
            store.delete(gone)
            await pilot.press(key)
        else:
            await pilot.press(key)
            await until(pilot, lambda: app.query("SessionAsk, SessionTitle"))
            store.delete(gone)
            await pilot.press(*(("m",) if key == "x" else ("z", "enter")))
        await until(pilot, lambda: "✗ there is no session" in app.said("#sessions-notice"))
        await until(pilot, lambda: app.titles() == ["left"])


async def test_a_store_that_fails_is_one_line(store: Store) -> None:
    talk(store, "hello")
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        store.close()
        app.panel.refresh_list(None)
        await until(pilot, lambda: "was closed" in app.said("#sessions-notice"))


async def test_new_and_moving_between_list_and_search(store: Store) -> None:
    talk(store, "one")
    app = Bench(store)
    async with app.run_test(size=(40, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("n")
        await until(pilot, lambda: app.posted)
        assert isinstance(app.posted[0], SessionsPanel.NewWanted)
        await pilot.press("up")
        await until(pilot, lambda: app.query_one(Input).has_focus)
        await pilot.press("down")
        assert app.rows.has_focus
        await pilot.press("down")  # the end stays the end
        assert app.rows.highlighted == 0


async def test_thousands_of_sessions_come_a_hundred_at_a_time(store: Store) -> None:
    talk(store, "the first of all")
    connection = sqlite3.connect(store.path)
    with connection:
        connection.executemany(
            "INSERT INTO sessions (id, title, created, updated, touched, model, system, tools, settings)"
            " VALUES (?, ?, 0, 0, ?, '', '', '[]', '{}')",
            [(f"s{i:09}", f"session {i}", i + 10) for i in range(700)],
        )
    connection.close()
    app = Bench(store)
    async with app.run_test(size=(34, 30)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        assert len(app.rows.rows) == 100
        await pilot.press("end")
        await until(pilot, lambda: len(app.rows.rows) == 200)
        assert app.rows.row is not None
        assert app.rows.row.title == "session 600"  # the cursor did not move
        before = 0
        while len(app.rows.rows) != before:
            before = len(app.rows.rows)
            await pilot.press("end")
            await until(pilot, lambda: not app.panel._reading)
            await pilot.pause()
        assert app.titles()[-1] == "the first of all"
        assert len(app.rows.rows) == 701


async def test_no_title_writes_to_the_terminal(store: Store) -> None:
    id = talk(store, "x")
    store.rename(id, "\x1b]52;c;AAAA\x07[red]bold[/] \u202eevil")
    app = Bench(store)
    async with app.run_test(size=(60, 15)) as pilot:
        await until(pilot, lambda: app.rows.has_focus)
        await pilot.press("d")
        await until(pilot, lambda: "Delete" in app.screen_text())
        text = app.screen_text()
        assert "\x1b" not in text
        assert "\u202e" not in text
        assert "␛]52;c;AAAA␇[red]bold" in text


async def test_the_keys_that_are_shown_are_those_that_work(store: Store) -> None:
    talk(store, "one")
    app = Bench(store)
    async with app.run_test(size=(34, 20)) as pilot:
        app.set_keymap({"sessions.rename": "ctrl+t"})
        await until(pilot, lambda: app.rows.has_focus)
        app.screen.refresh_bindings()
        await until(pilot, lambda: "^t rename" in str(app.query_one(SessionKeys).content))
        assert all(len(line) <= 32 for line in str(app.query_one(SessionKeys).content).splitlines())
        await pilot.press("ctrl+t")
        await until(pilot, lambda: app.query(SessionTitle))


def test_how_long_ago_it_was() -> None:
    def at(text: str) -> float:
        return datetime.fromisoformat(text).timestamp()

    now = at("2026-03-12T14:30:00")
    said = {
        "2026-03-12T14:29:30": "now", "2026-03-12T14:27:00": "3 min", "2026-03-12T11:00:00": "3 h",
        "2026-03-11T23:50:00": "yesterday", "2026-03-08T09:00:00": "Sun", "2026-02-12T09:00:00": "12 Feb",
        "2025-12-31T09:00:00": "31 Dec 2025", "2026-03-14T09:00:00": "14 Mar", "2026-03-12T18:00:00": "today",
    }  # fmt: skip
    assert {moment: ago(at(moment), now) for moment in said} == said


@given(st.floats(allow_nan=True), st.floats(allow_nan=True))
def test_no_clock_breaks_the_list(then: float, now: float) -> None:
    assert len(ago(then, now)) < 20
