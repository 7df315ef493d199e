"""On the screens of a new user: keys that come early find what they are for, and no help is cut."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.widgets._footer import FooterKey

from tests.fixtures.screens import answered, at_home, chatting, say, settle, text_of, until
from tests.fixtures.sizes import all_sizes
from tui.commands.table import COMMANDS


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_home(tmp_path, monkeypatch)


async def test_keys_of_the_first_moment_do_what_they_do_later() -> None:
    async with chatting(["Fine."], typed="how are you?\rhello\x0f") as (app, pilot):
        chat = app.chat
        await until(pilot, lambda: chat.query("SessionsPanel"))
        await settle(pilot)
        panel = chat.query_one("SessionsPanel").region
        assert panel.width < 60, "it stands beside the conversation, as its style says"
        assert "> hello" in text_of(app)
        await answered(pilot)
        assert [view.text for view in chat.conversation.views()] == ["how are you?", "Fine."]


async def test_what_is_typed_before_the_question_which_model_is_for_the_prompt() -> None:
    async with chatting(model="", typed="hello\rand more") as (app, pilot):
        await until(pilot, lambda: app.screen is not app.chat)
        await until(pilot, lambda: app.chat.prompt.text == "and more")
        assert app.chat.queue == ["hello"]
        await pilot.press("x", "escape")
        await until(pilot, lambda: app.screen is app.chat)
        assert app.chat.prompt.text == "and more", "the question was seen when x was pressed"
        assert "next: hello" in text_of(app)


@all_sizes
async def test_no_key_and_no_help_is_cut(size: tuple[int, int]) -> None:
    async with chatting(["Fine."], size=size) as (app, pilot):
        chat = app.chat
        await say(pilot, "How are you?")
        await answered(pilot)
        await pilot.press("ctrl+up")
        await settle(pilot)
        keys = [key.description for key in chat.query(FooterKey)]
        if size[1] >= 20:
            assert keys[:4] == ["Copy", "Copy code", "Edit", "Again"]
            bar = next(line for line in text_of(app).splitlines() if "Copy code" in line)
            assert bar.rstrip().endswith(keys[-1])
        await pilot.press("escape", "slash")
        await settle(pilot)
        for command in COMMANDS[:8]:
            assert command.about in text_of(app)
            await pilot.press("down")
            await pilot.pause()
        await pilot.press("escape", "ctrl+u")
        for dialog in ("/tools", "/help", "/rules", "/mcp"):
            await say(pilot, dialog)
            await until(pilot, lambda: app.screen is not chat)
            await settle(pilot)
            box = [line for line in text_of(app).splitlines() if "│" in line or size[0] < 60]
            assert not any("…" in line for line in box), text_of(app)
            await pilot.press("escape")
            await until(pilot, lambda: app.screen is chat)
