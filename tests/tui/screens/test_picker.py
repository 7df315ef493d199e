"""A person chooses a model, or goes on where they were, without knowing anything of files; and learns why one cannot be used."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from agent.fit.machine import remember_machine
from agent.fit.profile import find_profile
from agent.messages import Message
from agent.models import choices as model_list
from agent.models import demo as demo_model
from agent.models.choices import ModelChoice
from agent.models.file import ModelFile
from agent.models.last_used import remember
from agent.sessions.store import Store
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.screens import at_home, chatting, text_of, until
from tests.fixtures.sizes import small_and_wide
from tui.screens.picker import Picked, PickerScreen

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    at_home(tmp_path, monkeypatch)
    monkeypatch.setattr(demo_model, "_PACKAGE", "a_package_that_nobody_has")
    folder = tmp_path / "home" / "models"
    folder.mkdir(parents=True)
    return folder


def picker(app: Any) -> PickerScreen:
    assert isinstance(app.screen, PickerScreen)
    return app.screen


def shown(app: Any) -> str:
    """What the screen says, without its frames and line breaks."""
    return " ".join(text_of(app).replace("│", " ").split())


async def looked(app: Any, pilot: Pilot[Any]) -> None:
    await until(pilot, lambda: isinstance(app.screen, PickerScreen) and app.screen._rows)
    await pilot.pause()


async def write(pilot: Pilot[Any], text: str) -> None:
    """Type into the line that has the cursor."""
    field = pilot.app.screen.focused
    assert isinstance(field, Input)
    field.insert_text_at_cursor(text)
    await pilot.pause()


def too_large(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    real = model_list.context_here

    def fit(file: ModelFile, free: int) -> tuple[int, int, str]:
        if Path(file.path).stem == name:
            return 0, 5_100_000_000, "needs 5.10 GB of memory, 3.20 GB are free"
        return real(file, free)

    monkeypatch.setattr(model_list, "context_here", fit)


@small_and_wide
async def test_without_a_model_one_is_chosen_from_a_list_and_opened(store: Path, size: tuple[int, int]) -> None:
    for name in ("basil", "mint"):
        chat_model(store / f"{name}.gguf", "hermes")
    async with chatting(size=size, model="") as (app, pilot):
        await looked(app, pilot)
        text = shown(app)
        assert "basil" in text
        assert "F32" in text
        assert "4k" in text
        assert "MB RAM" in text if size[0] == 40 else "✓ fits" in text
        await write(pilot, "min")
        assert "basil" not in shown(app)
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.facts)
        assert app.chat.setup.model == str(store / "mint.gguf")


@small_and_wide
async def test_the_last_conversation_is_offered_first_and_goes_on_with_its_model(store: Path, size: tuple[int, int]) -> None:
    model = chat_model(store / "mint.gguf", "hermes")
    with Store() as sessions:
        session = sessions.create(model=str(model), title="Slugs \x1b[31min the lettuce")
        session.append(Message("user", "Slugs?"))
        remember(model=str(model), session=session.id)
    async with chatting(size=size, model="") as (app, pilot):
        await looked(app, pilot)
        assert "Go on: Slugs ␛[31min the" in shown(app), "what a title holds is shown, not obeyed"
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.facts and app.chat.session)
        assert (app.chat.session, app.chat.setup.model) == (session.id, str(model))
        assert "Slugs?" in shown(app)


async def test_a_conversation_whose_model_is_gone_is_not_offered(store: Path) -> None:
    chat_model(store / "mint.gguf", "hermes")
    with Store() as sessions:
        session = sessions.create(model=str(store / "gone.gguf"), title="Slugs")
    remember(session=session.id)
    async with chatting(model="") as (app, pilot):
        await looked(app, pilot)
        assert "Go on" not in shown(app)
        assert "mint" in shown(app)


@small_and_wide
async def test_what_cannot_be_used_is_not_opened_and_says_why(
    store: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    chat_model(store / "mint.gguf", "hermes")
    chat_model(store / "oak.gguf", "hermes")
    (store / "broken.gguf").write_bytes(b"no model" * 100)
    too_large(monkeypatch, "oak")
    async with chatting(size=size, model="") as (app, pilot):
        await looked(app, pilot)
        await write(pilot, "oak")
        assert "oak: too large: needs 5.10 GB of memory, 3.20 GB are free" in shown(app)
        await pilot.press("enter")
        assert "✗ oak: too large" in shown(app)
        await pilot.press("backspace", "backspace", "backspace")
        await write(pilot, "broken")
        assert "is not a GGUF" in shown(app)
        await pilot.press("enter")
        await pilot.pause()
        assert isinstance(app.screen, PickerScreen)
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)
        assert app.chat.facts is None
        assert "loaded yet: " in shown(app)


@small_and_wide
async def test_where_there_is_nothing_it_says_how_to_get_a_model_and_takes_a_path(
    store: Path, tmp_path: Path, size: tuple[int, int]
) -> None:
    elsewhere = chat_model(tmp_path / "a b.gguf", "hermes")
    async with chatting(size=size, model="") as (app, pilot):
        await looked(app, pilot)
        assert "No model is here yet" in shown(app)
        assert "sprig quantize" in shown(app)
        field = app.screen.focused
        assert isinstance(field, Input)
        for wrong, why in (
            ("", "type the name or path"),
            (str(tmp_path / "gone.gguf"), "there is no model"),
            (str(store.parent), "holds no GGUF"),
            (__file__, "is not a GGUF file"),
            ("x" * 5000, "there is no model"),
        ):
            field.value = wrong
            await pilot.press("enter")
            await until(pilot, lambda why=why: why in shown(app))
        field.value = f"'{elsewhere}'"
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.facts)
        assert app.chat.setup.model == str(elsewhere)


async def test_a_model_that_is_made_meanwhile_is_found_when_one_looks_again(store: Path) -> None:
    async with chatting(model="") as (app, pilot):
        await looked(app, pilot)
        chat_model(store / "mint.gguf", "hermes")
        await pilot.press("ctrl+r")
        await until(pilot, lambda: "mint" in shown(app))
        assert "No model" not in shown(app)


@small_and_wide
async def test_another_file_is_always_there_and_esc_goes_back_to_the_list(store: Path, size: tuple[int, int]) -> None:
    chat_model(store / "mint.gguf", "hermes")
    async with chatting(size=size, model="") as (app, pilot):
        await looked(app, pilot)
        await write(pilot, "nothing is called so")
        assert "Another file" in shown(app)
        await pilot.press("enter")
        assert "path of a GGUF file" in shown(app)
        await pilot.press("escape")
        assert picker(app).query_one(OptionList).display
        await pilot.press("escape")
        await until(pilot, lambda: app.screen is app.chat)


async def test_a_click_chooses_and_a_click_on_the_keys_leaves(store: Path) -> None:
    chat_model(store / "mint.gguf", "hermes")
    got: list[Picked | None] = []
    async with chatting(size=(100, 30)) as (app, pilot):
        await until(pilot, lambda: app.chat.facts)
        for at in ("keys", "list"):
            app.push_screen(PickerScreen(), got.append)
            await looked(app, pilot)
            if at == "list":
                await pilot.click(OptionList, offset=(5, 0))
            else:
                line = app.screen.query_one("#keys")
                await pilot.click(line, offset=(line.size.width and str(line.render()).index("Esc"), 0))
            await until(pilot, lambda: app.screen is app.chat)
    assert got == [None, Picked(str(store / "mint.gguf"))]


async def test_the_list_follows_the_width_of_the_screen(store: Path) -> None:
    chat_model(store / "mint.gguf", "hermes")
    async with chatting(size=(160, 50), model="") as (app, pilot):
        await looked(app, pilot)
        assert any("mint" in line and "✓ fits" in line for line in text_of(app).splitlines())
        await pilot.resize_terminal(40, 15)
        await until(pilot, lambda: "MB RAM" in shown(app))
        assert not any("mint" in line and "RAM" in line for line in text_of(app).splitlines())


async def test_the_speed_is_told_where_this_machine_was_measured(store: Path) -> None:
    chat_model(store / "quick.gguf", "hermes")
    remember_machine(replace(find_profile("pi5"), name="", sizes=(8_000_000_000,)))
    async with chatting(size=(120, 30), model="") as (app, pilot):
        await looked(app, pilot)
        (row,) = [row for row in picker(app)._rows if row is not None]
        assert isinstance(row, ModelChoice)
        assert row.writes > 10
        assert f"~{row.writes:.0f}/s" in shown(app)
        assert f"writes about {row.writes:.0f} tokens a second" in shown(app)
