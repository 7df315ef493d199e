"""A person changes the agent within a conversation, looks things up, and is asked before something is lost."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, TextArea

from agent import tool
from agent.approval.policy import Answer, Rule
from tests.fixtures.fake_engine import Say, call_text
from tests.fixtures.screens import STILL, answered, at_home, chatting, say, text_of, until
from tests.fixtures.sizes import small_and_wide
from tui.actions import action_ids, key_name
from tui.commands.table import COMMANDS, run_command
from tui.screens.details import DetailsScreen
from tui.screens.dialog import ConfirmScreen
from tui.screens.help import APPROVAL, HelpScreen
from tui.screens.sampling import SamplingScreen
from tui.screens.text import TextScreen
from tui.screens.theme import ThemeScreen
from tui.screens.tools import ToolsScreen
from tui.settings.values import ChatSettings, chat_settings
from tui.widgets.approval import question

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    at_home(tmp_path, monkeypatch)
    return tmp_path / "home"


def shown(app: Any) -> str:
    return " ".join(text_of(app).replace("│", " ").split())


async def command(app: Any, pilot: Pilot[Any], text: str) -> str:
    """Give a command; the last word that the chat said about it. What earlier ones said no longer covers the screen."""
    app.clear_notifications()
    told: list[str] = []
    tell = app.chat.tell
    app.chat.tell = lambda text, **kind: (told.append(text), tell(text, **kind))
    try:
        await run_command(app.chat, text)
    finally:
        app.chat.tell = tell
    await pilot.pause()
    return told[-1] if told else ""


async def ready(app: Any, pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: app.chat.facts)


async def gone(app: Any, pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: app.screen is app.chat)


def tools_of(app: Any) -> list[str]:
    return [t.name for t in app.chat.facts.tools]


# Help.


@small_and_wide
async def test_the_help_shows_every_key_as_it_is_now_and_every_command(size: tuple[int, int]) -> None:
    async with chatting(size=size, settings=ChatSettings(screen=STILL, keys={"chat.new": "ctrl+b,f2"})) as (app, pilot):
        await pilot.press("f1")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        if size[0] == 40:
            assert "prompt.send" not in shown(app)
            await pilot.press("k")
        text = str(app.screen.query_one("#text").render())
        for action in action_ids():
            assert action in text
        for one in COMMANDS:
            assert f"/{one.name}" in text
        assert "Ctrl+B, F2" in text
        assert "Ctrl+N" not in text
        assert str(app.settings_path) in text
        first = shown(app)
        await pilot.press("pagedown")
        await until(pilot, lambda: shown(app) != first)
        await pilot.press("escape")
        await gone(app, pilot)


def test_the_help_names_the_keys_that_answer_a_question_about_a_tool() -> None:
    listed = {key for keys, _ in APPROVAL for key in keys.split(", ")}
    assert listed == set(question._KEYS)


def test_keys_are_written_as_on_a_keyboard() -> None:
    names = {"ctrl+o": "Ctrl+O", "shift+up": "Shift+↑", "slash": "/", "c": "c", "f1": "F1", "escape": "Esc", "alt+v": "Alt+V"}
    assert {key: key_name(key) for key in names} == names


# Before something is lost.


@small_and_wide
async def test_no_is_the_answer_that_enter_and_esc_give(size: tuple[int, int]) -> None:
    got: list[bool | None] = []
    async with chatting(size=size) as (app, pilot):
        for keys in (("enter",), ("escape",), ("right", "enter"), ("right", "left", "enter")):
            app.push_screen(ConfirmScreen("Delete \x1b[31m[b]it?", "Delete"), got.append)
            await until(pilot, lambda: isinstance(app.screen, ConfirmScreen) and app.screen.focused)
            assert "Delete ␛[31m[b]it?" in shown(app)
            await pilot.press(*keys)
            await gone(app, pilot)
    assert got == [False, False, True, False]


# Tools and servers.


@small_and_wide
async def test_tools_are_switched_in_a_list_and_the_agent_has_them_at_once(size: tuple[int, int]) -> None:
    @tool
    def press(button: str) -> str:
        """Press a button."""
        return button

    async with chatting(["Fine."], size=size, tools=("clock", press)) as (app, pilot):
        await ready(app, pilot)
        await command(app, pilot, "/tools")
        await until(pilot, lambda: isinstance(app.screen, ToolsScreen) and "[ ] read_file" in shown(app))
        await until(pilot, lambda: "asks first" in shown(app) or size[0] == 40)
        await pilot.press("space", "end")
        await until(pilot, lambda: "From a script." in shown(app))
        await pilot.press("space", "enter")
        await until(pilot, lambda: sorted(tools_of(app)) == ["clock", "press", "read_file"])
        await command(app, pilot, "/tools")
        await until(pilot, lambda: isinstance(app.screen, ToolsScreen) and "[x] read_file" in shown(app))
        await pilot.click(OptionList, offset=(2, 0))
        await pilot.press("escape")
        await gone(app, pilot)
        assert "read_file" in app.chat.setup.tool_names, "Esc changes nothing"


async def test_tools_by_name() -> None:
    async with chatting() as (app, pilot):
        await ready(app, pilot)
        assert "until you leave" in (await command(app, pilot, "/tools read_file clock")).lower()
        await until(pilot, lambda: tools_of(app) == ["read_file", "clock"])
        await command(app, pilot, "/tools +calculate -clock")
        await until(pilot, lambda: tools_of(app) == ["read_file", "calculate"])
        assert await command(app, pilot, "/tools clok") == "there is no tool 'clok'; did you mean clock?"
        assert "either" in await command(app, pilot, "/tools clock -calculate")
        assert "as it was" in await command(app, pilot, "/tools calculate read_file")
        await command(app, pilot, "/tools none")
        await until(pilot, lambda: tools_of(app) == [])


@small_and_wide
async def test_a_server_that_cannot_be_started_is_shown_with_what_is_wrong_and_taken_away(size: tuple[int, int]) -> None:
    async with chatting(size=size) as (app, pilot):
        await ready(app, pilot)
        assert "no MCP server" in await command(app, pilot, "/mcp what is this")
        assert "there is no MCP server 'house'" in await command(app, pilot, "/mcp remove house")
        await command(app, pilot, "/mcp house=/no/such/program")
        await until(pilot, lambda: app.chat.facts.problems)
        await command(app, pilot, "/mcp")
        await until(pilot, lambda: isinstance(app.screen, DetailsScreen) and "✗" in shown(app))
        assert "/no/such/program" in shown(app)
        await pilot.press("escape")
        await gone(app, pilot)
        await command(app, pilot, "/mcp remove house")
        await until(pilot, lambda: not app.chat.facts.problems)
        assert app.chat.setup.mcp == ()


# Thinking, sampling, system prompt.


async def test_thinking_is_switched_where_the_model_can_and_otherwise_it_says_so() -> None:
    async with chatting() as (app, pilot):
        await ready(app, pilot)
        assert "on, off or auto" in await command(app, pilot, "/think loud")
        can = app.chat.facts.thinks
        said = await command(app, pilot, "/think off")
        assert (app.chat.setup.thinking is False) == can
        assert ("Thinking is off" in said) == can
        assert ("no switch" in said) != can
        await command(app, pilot, "/think auto")
        assert app.chat.setup.thinking is None
        assert "Thinking is auto" in await command(app, pilot, "/think")


@small_and_wide
async def test_sampling_is_checked_while_it_is_typed(size: tuple[int, int]) -> None:
    async with chatting(size=size, sampling={"top_k": 20}) as (app, pilot):
        await ready(app, pilot)
        await command(app, pilot, "/sampling")
        await until(pilot, lambda: isinstance(app.screen, SamplingScreen) and app.screen.focused)
        assert "as the model has it" in shown(app)
        await pilot.press("3")
        await until(pilot, lambda: "✗ temperature is 3; it goes from 0 to 2" in shown(app))
        await pilot.press("enter")
        assert isinstance(app.screen, SamplingScreen), "what is wrong is not taken"
        await pilot.press("backspace", "0", ".", "2", "up")
        field = app.screen.focused
        assert isinstance(field, Input)
        assert field.id == "max_tokens"
        field.value = ""
        await pilot.press("enter")
        await until(pilot, lambda: app.screen is app.chat)
        assert (app.chat.setup.sampling, app.chat.setup.max_tokens) == ({"temperature": 0.2, "top_k": 20}, 2048)


async def test_sampling_in_a_line() -> None:
    async with chatting() as (app, pilot):
        await ready(app, pilot)
        assert "temperature 0.2, seed 7" in await command(app, pilot, "/sampling temperature=0.2 seed=7 max_tokens=99")
        assert (app.chat.setup.sampling, app.chat.setup.max_tokens) == ({"temperature": 0.2, "seed": 7}, 99)
        await command(app, pilot, "/sampling seed=auto")
        assert app.chat.setup.sampling == {"temperature": 0.2}
        for wrong, why in (
            ("temprature=1", "did you mean temperature?"),
            ("top_k=1.5", "whole number"),
            ("top_p=nan", "from 0 to 1"),
            ("seed", "name=value"),
            ("max_tokens=0", "from 1 to"),
        ):
            assert why in await command(app, pilot, f"/sampling {wrong}")
        assert app.chat.setup.sampling == {"temperature": 0.2}


@small_and_wide
async def test_the_system_prompt_is_edited_and_not_lost_by_one_esc(size: tuple[int, int]) -> None:
    async with chatting(["Aye."], size=size, system="You are a gar\x1b[31mdener.") as (app, pilot):
        await ready(app, pilot)
        await command(app, pilot, "/system")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and app.screen.focused)
        assert "gar␛[31mdener" in shown(app)
        area = app.screen.query_one(TextArea)
        area.text = ""
        await pilot.press("A", "h", "o", "y")
        await pilot.press("escape")
        await until(pilot, lambda: "Not saved" in shown(app))
        await pilot.press("!")
        await until(pilot, lambda: "Not saved" not in shown(app))
        await pilot.press("ctrl+s")
        await gone(app, pilot)
        assert app.chat.setup.system == "Ahoy!"
        await command(app, pilot, "/system")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and app.screen.focused)
        await pilot.press("x", "escape", "escape")
        await gone(app, pilot)
        assert app.chat.setup.system == "Ahoy!"
        assert "read anew" in await command(app, pilot, "/system You are a pirate.")
        assert app.chat.setup.system == "You are a pirate."


async def test_a_change_while_the_agent_answers_says_that_this_answer_is_not_changed() -> None:
    go_on = threading.Event()

    def hold(said: str) -> None:
        go_on.wait(15)

    async with chatting([Say("One two three.", during=hold)]) as (app, pilot):
        await ready(app, pilot)
        await say(pilot, "Count.")
        await until(pilot, lambda: app.chat.busy)
        assert "not changed" in await command(app, pilot, "/sampling temperature=0.3")
        go_on.set()
        await answered(pilot)
        assert "not changed" not in await command(app, pilot, "/sampling temperature=0.4")


# What there is to see.


@small_and_wide
async def test_rules_are_shown_with_where_they_come_from(size: tuple[int, int]) -> None:
    @tool(approval="ask")
    def press(button: str) -> str:
        """Press a button."""
        return button

    rule = Rule("allow", "run_command", "command", "git status")
    script = [call_text("press", {"button": "red"}), "Pressed."]
    settings = ChatSettings(screen=STILL, rules=(rule,))
    async with chatting(script, size=size, settings=settings, rules=(rule,), tools=(press,)) as (app, pilot):
        await ready(app, pilot)
        app.talk.add_rule(Rule("deny", "press", "button", "blue"))
        await say(pilot, "Press it.")
        await until(pilot, lambda: app.chat.notes._question)
        app.talk.answer(app.chat.notes._question.number, Answer.always_yes())
        await app.chat.notes._end_question()
        await answered(pilot)
        await command(app, pilot, "/rules")
        await until(pilot, lambda: isinstance(app.screen, DetailsScreen))
        text = str(app.screen.query_one("#rows").render())
        file, rest = text.split("Until you leave")
        assert "run_command where command fits git status" in file
        assert "press where button fits blue" in rest
        assert rest.count("press") >= 2, "and what was allowed for the session"
        assert "settings.toml" in shown(app)


@small_and_wide
async def test_the_status_says_all_about_model_and_machine(size: tuple[int, int]) -> None:
    async with chatting(["Hello."], size=size) as (app, pilot):
        await ready(app, pilot)
        await say(pilot, "Hello?")
        await answered(pilot)
        await command(app, pilot, "/status")
        await until(pilot, lambda: isinstance(app.screen, DetailsScreen))
        text = str(app.screen.query_one("#rows").render())
        for expected in ("Fake 1B", "Q4_0", app.chat.session, str(app.settings_path), "Last answer", "tokens of prompt"):
            assert expected in text
        await pilot.press("escape")
        await gone(app, pilot)


# Colours and settings.


@small_and_wide
async def test_a_theme_is_seen_before_it_is_kept(home: Path, size: tuple[int, int]) -> None:
    async with chatting(size=size) as (app, pilot):
        await command(app, pilot, "/theme")
        await until(pilot, lambda: isinstance(app.screen, ThemeScreen) and app.screen.focused)
        await pilot.press("down", "down")
        await until(pilot, lambda: app.theme == "sprig-contrast")
        await pilot.press("escape")
        await gone(app, pilot)
        assert app.theme == "sprig"
        await command(app, pilot, "/theme")
        await until(pilot, lambda: isinstance(app.screen, ThemeScreen) and app.screen.focused)
        await pilot.press("down", "enter")
        await gone(app, pilot)
        assert app.theme == "sprig-light"
        await until(pilot, lambda: (home / "settings.toml").is_file())
        assert chat_settings(home / "settings.toml").load().screen.theme == "sprig-light"
        assert "did you mean sprig-light?" in await command(app, pilot, "/theme sprig-lite")
        await command(app, pilot, "/theme nord")
        assert app.theme == "nord"


async def test_settings_are_written_read_again_and_errors_named_by_their_line(home: Path) -> None:
    async with chatting(tools=("clock",)) as (app, pilot):
        await ready(app, pilot)
        path = home / "settings.toml"
        assert str(path) in await command(app, pilot, "/settings")
        assert chat_settings(path).load() == ChatSettings()
        assert path.stat().st_mode & 0o077 == 0, "a password may come into it"
        path.write_text('[screen]\ntheme = "sprig"\nfold_results = "many"\n')
        said = await command(app, pilot, "/settings")
        assert "settings.toml, line 3" in said
        assert str(path) in said
        path.write_text('[keys]\nchat.gnu = "f2"\n')
        assert "line 2" in await command(app, pilot, "/settings")
        path.write_text(
            'tools = ["calculate"]\nmodel = "other"\n[screen]\ntheme = "nord"\nfold_results = 3\nreduced_motion = true\n'
            'approval_grace = 0\n[keys]\nchat.help = "f3"\n[sampling]\ntemperature = 0.1\n'
        )
        said = await command(app, pilot, "/settings")
        assert "Changed: tools, sampling.temperature, screen.theme, screen.fold_results, keys." in said
        assert "From the next start on: model." in said
        await until(pilot, lambda: tools_of(app) == ["calculate"])
        assert app.theme == "nord"
        assert app.chat.setup.sampling == {"temperature": 0.1}
        assert app.chat.conversation.fold_after == 3
        await pilot.press("f3")
        await until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        await gone(app, pilot)
        assert "Nothing in it has changed" in await command(app, pilot, "/settings")


async def test_a_rule_that_was_taken_out_of_the_settings_no_longer_allows_anything(home: Path) -> None:
    rule = Rule("allow", "run_command", "command", "git status")
    async with chatting(settings=ChatSettings(screen=STILL, rules=(rule,)), rules=(rule,)) as (app, pilot):
        await ready(app, pilot)
        app.talk.add_rule(mine := Rule("deny", "fetch_url"))
        home.mkdir(exist_ok=True)
        (home / "settings.toml").write_text("[screen]\nreduced_motion = true\napproval_grace = 0\n")
        assert "rules" in await command(app, pilot, "/settings")
        assert app.talk.rules == (mine,)
        await until(pilot, lambda: app.chat.setup.rules == (mine,))
        await command(app, pilot, "/sampling seed=1")
        await until(pilot, lambda: app.talk._agent is not None and app.talk._agent.gate.policy.rules == (mine,))


# Another model.


async def test_a_model_by_name_is_checked_before_it_is_opened() -> None:
    from agent.home import models
    from tests.fixtures.chat_ggufs import chat_model

    models().mkdir(parents=True)
    path = chat_model(models() / "mint.gguf", "hermes")
    (models() / "broken.gguf").write_bytes(b"no model")
    async with chatting() as (app, pilot):
        await ready(app, pilot)
        assert "there is no model 'mnit'" in await command(app, pilot, "/model mnit")
        assert "broken" in await command(app, pilot, "/model broken")
        assert app.chat.setup.model == "fake"
        assert "mint is opened now" in await command(app, pilot, "/model mint")
        assert app.chat.setup.model == str(path)
