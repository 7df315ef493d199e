"""Whatever has the focus, a person who writes or leaves is back at the prompt; and nothing lies on it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets._toast import Toast, ToastRack

from agent import tool
from tests.fixtures.fake_engine import Say, call_text
from tests.fixtures.screens import answered, at_home, chatting, say, settle, text_of, until
from tests.fixtures.sizes import SIZES
from tui.widgets.approval.question import ApprovalView
from tui.widgets.messages.notice import Notice
from tui.widgets.status_line import StatusLine


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


async def test_letters_on_a_focused_message_go_to_the_prompt_and_its_own_keys_do_not() -> None:
    async with chatting(["Fine."]) as (app, pilot):
        chat = app.chat
        await say(pilot, "How are you?")
        await answered(pilot)
        await pilot.press("ctrl+up", *"how is that?")
        await until(pilot, lambda: chat.prompt.text == "how is that?")
        await pilot.press("ctrl+u", "ctrl+up", *"E?")
        await until(pilot, lambda: chat.prompt.text == "E?")
        await pilot.press("ctrl+u", "ctrl+up", "up", "e")
        await until(pilot, lambda: chat.prompt.text == "How are you?")
        await pilot.press("escape")
        chat.query_one(StatusLine).focus()
        await pilot.press(*"yes")
        await until(pilot, lambda: chat.prompt.text == "yes")
        chat.set_focus(None)
        await pilot.press(*" no")
        await until(pilot, lambda: chat.prompt.text == "yes no")


async def test_a_click_on_a_message_takes_no_letter_from_the_prompt() -> None:
    async with chatting(["Fine."]) as (app, pilot):
        await say(pilot, "How are you?")
        await answered(pilot)
        await pilot.click("AnswerMessage")
        await pilot.press(*"test recorder")
        await until(pilot, lambda: app.chat.prompt.text == "test recorder")


PLACES = ["message", "status", "button", "nothing", "panel", "/help", "/theme", "/model", "/status", "ctrl+p"]


@pytest.mark.parametrize("where", PLACES)
async def test_escape_leads_back_from_everywhere(where: str) -> None:
    async with chatting(["Fine."]) as (app, pilot):
        chat = app.chat
        await say(pilot, "How are you?")
        await answered(pilot)
        match where:
            case "message":
                await pilot.press("ctrl+up")
            case "status":
                chat.query_one(StatusLine).focus()
            case "button":
                await chat.conversation.add(Notice("It was cut off.", offers=(("again", "Again"),)))
                chat.query_one("Notice Button").focus()
            case "nothing":
                chat.set_focus(None)
            case "panel":
                await pilot.press("ctrl+o")
                await until(pilot, lambda: chat.query("SessionsPanel") and chat.focused is not None)
            case "ctrl+p":
                await pilot.press(where)
            case _:
                await say(pilot, where)
        if where.startswith(("/", "ctrl")):
            await until(pilot, lambda: app.screen is not chat)
        await pilot.pause()
        for _ in range(2):
            await pilot.press("escape")
        await until(pilot, lambda: app.screen is chat and chat.prompt.has_focus_within)
        await pilot.press(*"hi")
        await until(pilot, lambda: chat.prompt.text == "hi")


@pytest.mark.parametrize("seen", [True, False], ids=["its first words are on the screen", "nobody has told of it yet"])
async def test_escape_in_mid_answer_says_at_once_that_it_is_stopped(seen: bool) -> None:
    reached, go_on = threading.Event(), threading.Event()

    def during(text: str) -> None:
        reached.set()
        go_on.wait(10)

    async with chatting([Say("A story of a king who had three daughters.", during=during)]) as (app, pilot):
        await say(pilot, "A story, please")
        await until(pilot, reached.is_set)
        assert app.kept, "who leaves now can go on with it"
        if seen:
            await until(pilot, lambda: len(list(app.chat.conversation.views())) == 2)
        await pilot.press("ctrl+up", "escape")
        await until(pilot, lambda: "stopped" in text_of(app))
        assert app.chat.busy, "the model has not even heard of it"
        assert app.chat.prompt.has_focus_within
        go_on.set()
        await answered(pilot)
        assert text_of(app).count("(stopped") == 1


async def test_the_view_follows_after_an_answer_about_a_tool() -> None:
    go_on = threading.Event()

    @tool(approval="ask")
    def press(button: str) -> str:
        """Press a button."""
        return "\n".join(f"line {n}" for n in range(5))

    last = Say("It is pressed, and nothing else has happened.", during=lambda text: len(text) < 20 or go_on.wait(10))
    script = ["\n\n".join(f"Paragraph {n}." for n in range(30)), call_text("press", {"button": "red"}), last]
    async with chatting(script, tools=(press,)) as (app, pilot):
        await say(pilot, "Tell me something long.")
        await answered(pilot)
        await say(pilot, "Press it.")
        await until(pilot, lambda: app.chat.query(ApprovalView))
        app.chat.conversation.release_anchor()  # as the wheel of a mouse does
        app.chat.conversation.scroll_home(animate=False)
        await settle(pilot)
        await pilot.press("y")
        await until(pilot, lambda: "It is pressed" in text_of(app))
        assert app.chat.busy
        go_on.set()
        await answered(pilot)


@pytest.mark.parametrize("size", SIZES)
async def test_no_toast_lies_on_the_prompt_or_the_status_line(size: tuple[int, int]) -> None:
    async with chatting(size=size) as (app, pilot):
        await until(pilot, lambda: app.begun)
        for text in ("There is no answer yet.", "A longer word about something that did not work. " * 6, "And another one."):
            app.chat.tell(text, kind="warning")
        app.chat.prompt.text = "some\nlines\nof\ntext"
        await settle(pilot)
        assert app.chat.query(Toast)
        assert app.chat.query_one(ToastRack).region.bottom <= app.chat.query_one("#bottom").region.y
        shown = text_of(app)
        assert all(word in shown for word in ("some", "lines", "text"))


async def test_a_question_about_a_tool_has_no_toast_on_it() -> None:
    @tool(approval="ask")
    def press(button: str) -> str:
        """Press a button."""
        return "pressed"

    async with chatting([call_text("press", {"button": "red"}), "Done."], tools=(press,)) as (app, pilot):
        app.chat.tell("Something in passing.")
        await say(pilot, "Press it.")
        await until(pilot, lambda: app.chat.query(ApprovalView))
        await until(pilot, lambda: not app.chat.query(Toast))
        await pilot.press("n")
        await answered(pilot)


async def test_ctrl_d_leaves_where_nothing_is_written() -> None:
    async with chatting() as (app, pilot):
        left: list[Any] = []
        app.exit = lambda *given, **more: left.append(given)  # type: ignore[method-assign]
        await pilot.press(*"ab", "left", "ctrl+d")
        assert app.chat.prompt.text == "a", "it takes the letter to the right"
        await pilot.press("ctrl+d", "backspace")
        assert not left
        await pilot.press("ctrl+d")
        await until(pilot, lambda: left)
