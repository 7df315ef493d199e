"""A person types a name on the Hub where a model is chosen, sees how far it is, may stop, and chats with what came."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import Input

from agent.hub import client
from agent.models import choices, remote
from agent.models import demo as demo_model
from agent.models.file import ModelFile
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.screens import at_home, chatting, text_of, until
from tests.fixtures.sizes import small_and_wide
from tui.screens.picker import PickerScreen
from tui.screens.pull import PullScreen

pytestmark = pytest.mark.slow
REPO = "org/basil-GGUF"
SMALL, LARGE = "basil-Q4_0.gguf", "basil-Q8_0.gguf"


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    at_home(tmp_path, monkeypatch)
    monkeypatch.setattr(demo_model, "_PACKAGE", "a_package_that_nobody_has")
    monkeypatch.setattr(client, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("HF_TOKEN_PATH", str(tmp_path / "none"))
    for name in ("HF_TOKEN", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    remote.forget_headers()
    return tmp_path / "home" / "models"


@pytest.fixture
def hub(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    (tmp_path / "repo").mkdir()
    chat_model(tmp_path / "repo" / SMALL, "hermes")
    chat_model(tmp_path / "repo" / LARGE, "hermes", general__description="x" * 999)
    with LoopbackHub({REPO: tmp_path / "repo"}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def shown(app: Any) -> str:
    return " ".join(text_of(app).replace("│", " ").split())


async def ask_for(app: Any, pilot: Pilot[Any], text: str) -> None:
    """Type a name into the line of the picker and press Enter."""
    await until(pilot, lambda: isinstance(app.screen, PickerScreen) and app.screen._rows)
    await pilot.pause()
    field = app.screen.query_one("#path", Input)
    if not field.display:
        await pilot.press("enter")
    field.value = text
    await pilot.press("enter")


@small_and_wide
async def test_a_name_on_the_hub_is_pulled_and_opened(hub: LoopbackHub, store: Path, size: tuple[int, int]) -> None:
    async with chatting(size=size, model="") as (app, pilot):
        await ask_for(app, pilot, f"{REPO}:Q4_0")
        await until(pilot, lambda: app.chat.facts)
        assert app.chat.setup.model == str(store / SMALL)
        assert (store / f"{SMALL}.origin").is_file()
        app.action_pick_model()
        asked = len(hub.requests)
        await until(pilot, lambda: isinstance(app.screen, PickerScreen) and app.screen._rows)
        app.screen._show_list(False)
        await ask_for(app, pilot, f"{REPO}:q4_0")
        await until(pilot, lambda: app.screen is app.chat)
        assert len(hub.requests) == asked, "what is here is not looked up again"


@small_and_wide
async def test_of_several_files_one_is_chosen_and_what_does_not_fit_says_why(
    hub: LoopbackHub, store: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = remote.context_here

    def fit(file: ModelFile, budget: Any) -> tuple[int, int, str]:
        return (0, 5_100_000_000, "needs 5.10 GB of memory") if "Q8" in file.name else real(file, budget)

    monkeypatch.setattr(remote, "context_here", fit)
    async with chatting(size=size, model="") as (app, pilot):
        await ask_for(app, pilot, REPO)
        await until(pilot, lambda: isinstance(app.screen, PullScreen) and app.screen._offers)
        assert SMALL in shown(app)
        assert "✓ fits · Q4_0" in shown(app)
        assert "✗ too large · Q8_0" in shown(app)
        await pilot.press("down", "enter")
        await until(pilot, lambda: "brings it all" in shown(app))
        assert "needs 5.10 GB" in shown(app)
        await pilot.press("up", "enter")
        await until(pilot, lambda: app.chat.facts)
        assert app.chat.setup.model == str(store / SMALL)


async def test_a_name_that_was_typed_as_a_filter_is_kept(hub: LoopbackHub, store: Path) -> None:
    store.mkdir(parents=True)
    chat_model(store / "mint.gguf", "hermes")
    async with chatting(model="") as (app, pilot):
        await until(pilot, lambda: isinstance(app.screen, PickerScreen) and len(app.screen._rows) > 1)
        await pilot.press(*"org/x", "enter")
        await until(pilot, lambda: app.screen.query_one("#path", Input).display)
        assert app.screen.query_one("#path", Input).value == "org/x"
        assert app.screen.query_one("#filter", Input).value == ""


async def test_a_pull_shows_how_far_it_is_stops_at_esc_and_goes_on_the_next_time(
    hub: LoopbackHub, store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.hub.download._STEP", 8192)
    monkeypatch.setattr("tui.screens.pull._SECONDS_BETWEEN_STEPS", 0.0)
    slow = hub.fail(f"*{LARGE}", bytes_per_second=100_000, skip=1)
    async with chatting(size=(80, 24), model="") as (app, pilot):
        await ask_for(app, pilot, f"{REPO}:Q8_0")
        part = store / f"{LARGE}.part"
        await until(pilot, lambda: "kB/s" in shown(app) and part.is_file() and part.stat().st_size > 20_000)
        assert "% of" in shown(app)
        assert "stop, and go on the next time" in shown(app)
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, PickerScreen))
        assert slow.times == 0
        await until(pilot, lambda: not _busy())
        await pilot.press("enter")
        await until(pilot, lambda: app.chat.facts)
        assert app.chat.setup.model == str(store / LARGE)
        begin = int((hub.requests[-1].range or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        assert begin >= 20_000, "the rest was asked for, and no more"


def _busy() -> bool:
    import threading

    return any(thread.name == "sprig-pull" for thread in threading.enumerate())


@small_and_wide
async def test_what_cannot_be_pulled_says_why(hub: LoopbackHub, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(size=size, model="") as (app, pilot):
        await ask_for(app, pilot, "org/none")
        await until(pilot, lambda: "✗ there is no model org/none" in shown(app))
        await pilot.press("escape")
        await ask_for(app, pilot, f"{REPO}:Q5_K_M")
        await until(pilot, lambda: "has no GGUF 'Q5_K_M'" in shown(app))
        await pilot.press("escape")
        assert isinstance(app.screen, PickerScreen)
        assert choices.list_models() == []
