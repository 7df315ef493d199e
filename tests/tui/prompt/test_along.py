"""What goes along with a message is said before it is sent, and what cannot be sent stays as it was written."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.fake_engine import FakeEngine
from tests.fixtures.screens import answered, at_home, chatting, say, text_of, until
from tui.prompt.along import MessageSize, along, too_long
from tui.prompt.attach import attached
from tui.screens.chat_view import ChatView
from tui.talk.setup import Setup
from tui.widgets.messages.notice import Notice

# What a person cannot type or press here: arguments of a script, options of a command line.
NOT_HERE = ("context=", "--", "Agent(", "Engine(", "Limits(")


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


def small(script: list[str], context: int) -> Any:
    """A model with so little context; its tokens are characters."""

    def make(setup: Setup) -> FakeEngine:
        engine = FakeEngine(script, context=context)
        engine.file = replace(engine.file, name="Fake 1B")
        return engine

    return make


def test_the_line_names_files_says_what_is_cut_and_whether_it_fits(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a" * 1200)
    (tmp_path / "b.txt").write_text("b")
    (tmp_path / "big.txt").write_text("a line of it\n" * 50_000)
    one, two, big = (attached(text, tmp_path, False) for text in ("see @a.txt", "@a.txt @b.txt", "what is in @big.txt?"))
    assert along(one, None) == "a.txt, 1 kB"
    assert along(one, MessageSize(300, 900)) == "a.txt, 1 kB · 300 tokens, 900 fit"
    assert along(two, MessageSize(300, 900)) == "2 files: a.txt, 1 kB; b.txt, 1 byte · 300 tokens, 900 fit"
    assert along(big, MessageSize(61_204, 900)) == (
        "! big.txt is cut: 200 kB of 650 kB go along · ! it takes 61,204 tokens, and 900 fit"
    )
    assert along(attached("nothing", tmp_path, False), None) == ""


def test_why_it_is_not_sent_speaks_of_the_chat() -> None:
    for text in (too_long(MessageSize(61_204, 900), 1), too_long(MessageSize(61_204, 900), 0)):
        assert "61,204" in text
        assert "900" in text
        assert "/settings" in text
        assert not any(word in text for word in NOT_HERE)


async def test_a_file_that_does_not_fit_is_told_of_while_it_is_named_and_stays_when_enter_is_pressed(tmp_path: Path) -> None:
    (tmp_path / "big.txt").write_text("a line of it\n" * 50_000)
    async with chatting(engine=small(["Fine."], 2000)) as (app, pilot):
        chat = app.chat
        await until(pilot, lambda: chat.facts)
        await pilot.press(*"what is in @big")
        await until(pilot, lambda: "big.txt" in text_of(app))
        await pilot.press("tab")
        await until(pilot, lambda: "200 kB of 650 kB" in text_of(app))
        await until(pilot, lambda: " fit" in text_of(app))
        assert chat.prompt.text == "what is in @big.txt "
        await pilot.press("enter")
        await until(pilot, lambda: "Not sent" in text_of(app))
        assert chat.prompt.text == "what is in @big.txt "
        assert not list(chat.conversation.views())
        await pilot.press("ctrl+u", *"hello")
        await until(pilot, lambda: "200 kB" not in text_of(app).splitlines()[-4])
        await pilot.press("enter")
        await answered(pilot)
        assert [view.text for view in chat.conversation.views()] == ["hello", "Fine."]


@pytest.mark.parametrize("written", ["what is in @big.txt", "//no command @big.txt", "a paste: "])
async def test_what_was_sent_before_the_model_was_there_comes_back_as_it_was_written(
    written: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "big.txt").write_text("a line of it\n" * 500)
    monkeypatch.setattr(ChatView, "_weigh", lambda self, text: None)  # as before the model is there
    async with chatting(engine=small([], 1000)) as (app, pilot):
        chat = app.chat
        await until(pilot, lambda: app.begun)
        chat.prompt.text = written
        if "paste" in written:
            await chat.prompt._area.paste("one line\n" * 300)
            written += "[pasted 300 lines #1]"
        assert chat.prompt.text == written
        await pilot.press("enter")
        await until(pilot, lambda: chat.query(Notice))
        assert chat.prompt.text == written
        said = " ".join(notice.text for notice in chat.query(Notice))
        assert "context holds 1000" in said
        assert "/settings" in said
        assert not any(word in said for word in NOT_HERE)
        if "paste" in written:
            assert chat.prompt.get_full() == "a paste: " + "one line\n" * 300


async def test_a_message_in_the_queue_comes_back_as_it_was_written(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    async with chatting(model="") as (app, pilot):
        chat = app.chat
        await until(pilot, lambda: app.screen is not chat)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is chat)
        await say(pilot, "see @a.txt")
        await until(pilot, lambda: chat.queue)
        assert "[file: a.txt]" in chat.queue[0]
        chat.give_queue_back()
        assert chat.prompt.text == "see @a.txt"
