"""The pictures of docs/images: `make screenshots`.

The real application runs without a terminal, with the real agent, its real tools, the demo model (SmolLM2-135M-Instruct) at
temperature 0 and sessions of its own in a temporary folder. Two things are arranged: the models that the picker lists are
headers without weights, on a machine with 4 GB; and the sensors of the machine that makes the pictures are left out.
"""

from __future__ import annotations

import asyncio
import os
import re
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

IMAGES = Path(__file__).resolve().parent / "images"
FONTS = "'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"
LARGEST = 150_000  # bytes of one picture

TIPS = "Give me three tips for growing tomatoes on a balcony."
EVEN = "Write a Python function that says whether a number is even."
LOOP = "Show me a for loop in Python that prints 1 to 5."
BUILD = "Run this command: rm -rf build"
SHOPPING = "Write the file shopping.txt with the content: milk, bread, tomatoes"
OTHERS = ("Give me three tips for sleeping well.", "Name the planets of the solar system as a list.")


@dataclass(frozen=True, slots=True)
class Hollow:
    """A model as the picker sees it: what its header says. ``size`` is in bytes; the weights are a hole in the file."""

    name: str
    recipe: str
    size: int
    context: int
    layers: int
    embedding: int
    feed_forward: int
    heads: tuple[int, int]


STORE = (
    Hollow("Qwen3-0.6B-Q4_K_M", "Q4_K_M", 484_000_000, 40_960, 28, 1024, 3072, (16, 8)),
    Hollow("Llama-3.2-1B-Instruct-Q4_0", "Q4_0", 773_000_000, 131_072, 16, 2048, 8192, (32, 8)),
    Hollow("Qwen3-8B-Q4_K_M", "Q4_K_M", 5_030_000_000, 40_960, 36, 4096, 12288, (32, 8)),
)
FREE = 3_100_000_000  # bytes of memory that a board with 4 GB has free


async def main() -> None:
    """Make all pictures."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["SPRIG_HOME"] = str(Path(folder, "home"))
        os.environ.pop("NO_COLOR", None)
        work = Path(folder, "work")
        (work / "build").mkdir(parents=True)
        (work / "shopping.txt").write_text("milk\nbread\n")
        os.chdir(work)
        with patch("tui.status.monitor.device_sensors", dict):
            await conversation()
            await tools()
            await phone()
            await sessions()
            await models()
            await themes()


async def conversation() -> None:
    async with chatting((100, 30)) as (app, pilot):
        await ask(pilot, TIPS)
        await ask(pilot, EVEN)
        keep(app, "chat")


async def tools() -> None:
    """A question about a tool, and a file that a tool has changed."""
    from tui.widgets.approval.question import ApprovalView

    async with chatting((90, 24), tools=("run_command",)) as (app, pilot):
        await say(pilot, BUILD)
        await until(pilot, lambda: app.chat.query(ApprovalView))
        keep(app, "approval")
        await pilot.press("n")
        await until(pilot, lambda: not app.chat.busy)
    async with chatting((90, 24), tools=("write_file",)) as (app, pilot):
        await say(pilot, SHOPPING)
        await until(pilot, lambda: app.chat.query(ApprovalView))
        await pilot.press("y")
        await until(pilot, lambda: not app.chat.busy)
        keep(app, "diff")


async def phone() -> None:
    async with chatting((40, 15)) as (app, pilot):
        await ask(pilot, LOOP)
        keep(app, "phone")


async def sessions() -> None:
    """The panel beside a conversation, with something searched for in all of them."""
    from tui.widgets.sessions.list import SessionList

    for question in OTHERS:
        async with chatting((100, 30)) as (app, pilot):
            await ask(pilot, question)
    async with chatting((100, 30), session=titled("tomatoes")) as (app, pilot):
        await until(pilot, lambda: app.chat.facts and app.chat.conversation.entries)
        await say(pilot, "/search tomatoes")
        await until(pilot, lambda: app.chat.query(SessionList) and app.chat.query_one(SessionList).rows)
        keep(app, "sessions")


async def models() -> None:
    from agent.home import models as store
    from tui.screens.picker import PickerScreen

    for age, model in enumerate(STORE):
        write_hollow(store() / f"{model.name}.gguf", model, age)
    with patch("agent.models.memory.available_memory", lambda: FREE):
        async with chatting((90, 30), model="") as (app, pilot):
            await until(pilot, lambda: isinstance(app.screen, PickerScreen) and len(app.screen._rows) > len(STORE))
            keep(app, "models")


async def themes() -> None:
    for theme in ("sprig-light", "sprig-contrast", "sprig-16"):
        async with chatting((80, 24), session=titled("Python"), theme=theme) as (app, pilot):
            await until(pilot, lambda: app.chat.facts and app.chat.conversation.entries)
            keep(app, f"theme-{theme.removeprefix('sprig-')}")


# The application without a terminal.


@asynccontextmanager
async def chatting(
    size: tuple[int, int], *, model: str = "demo", theme: str = "sprig", session: str | None = None, tools: Sequence[str] = ()
) -> AsyncIterator[tuple[Any, Any]]:
    """The chat, ready to be spoken to. ``size`` is columns and lines."""
    from agent.models.find import find_model
    from tui.app import SprigApp
    from tui.settings.values import ChatSettings, ScreenSettings
    from tui.talk.setup import Setup

    still = ScreenSettings(theme=theme, reduced_motion=True, approval_grace=0.0)
    setup = Setup(model=str(find_model(model)) if model else "", tools=tuple(tools), sampling={"temperature": 0})
    app = SprigApp(ChatSettings(screen=still), setup, session=session)
    async with app.run_test(size=size) as pilot:
        await until(pilot, lambda: app.chat.facts or not model)
        yield app, pilot


async def say(pilot: Any, text: str) -> None:
    pilot.app.chat.prompt.text = text
    await pilot.press("enter")


async def ask(pilot: Any, text: str) -> None:
    """Say something, and wait for the answer."""
    await say(pilot, text)
    await until(pilot, lambda: pilot.app.chat.busy)
    await until(pilot, lambda: not pilot.app.chat.busy)


async def until(pilot: Any, check: Callable[[], Any], seconds: float = 300.0) -> None:
    """Wait for something to be so, and for the screen to show it."""
    end = time.monotonic() + seconds
    while not check():
        if time.monotonic() > end:
            raise TimeoutError("the application did not come to what a picture should show")
        await pilot.pause(0.02)
    for _ in range(5):
        await pilot.pause(0.02)


def titled(word: str) -> str:
    """The id of the conversation with this word in its title."""
    from agent.sessions.store import Store

    with Store() as store:
        return store.sessions(1, word)[0].id


# Files.


def keep(app: Any, name: str) -> None:
    """Write what the screen shows, as one SVG that fetches nothing: without the fonts that rich would load from a server."""
    svg = re.sub(r"@font-face\s*\{.*?\}\s*", "", app.export_screenshot(title="sprig chat"), flags=re.DOTALL)
    svg = re.sub(r"<!--.*?-->\s*", "", svg, flags=re.DOTALL).replace("Fira Code, monospace", FONTS)
    svg = re.sub(r"font-family: arial;", "font-family: sans-serif;", svg)
    svg = re.sub(r"terminal-\d+", f"sprig-{name}", svg)
    if len(svg.encode()) > LARGEST:
        raise ValueError(f"{name}.svg has {len(svg.encode()):,} bytes, more than {LARGEST:,}")
    IMAGES.mkdir(exist_ok=True)
    (IMAGES / f"{name}.svg").write_text(svg)
    print(f"docs/images/{name}.svg  {len(svg) / 1000:.0f} kB", flush=True)


def write_hollow(path: Path, model: Hollow, age: int) -> None:
    """A GGUF whose header is that of a real model and whose weights are nothing. ``age`` orders them, the youngest first."""
    import numpy as np
    from gguf import GGMLQuantizationType, GGUFWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = GGUFWriter(path, "llama")
    writer.add_name(model.name)
    writer.add_string("sprig.recipe", model.recipe)
    writer.add_context_length(model.context)
    writer.add_block_count(model.layers)
    writer.add_embedding_length(model.embedding)
    writer.add_feed_forward_length(model.feed_forward)
    writer.add_head_count(model.heads[0])
    writer.add_head_count_kv(model.heads[1])
    writer.add_tokenizer_model("none")
    row = model.embedding // 32 * 18  # bytes; Q4_0 keeps 32 numbers in 18
    rows = model.size // row
    writer.add_tensor_info("token_embd.weight", (rows, row), np.dtype(np.uint8), rows * row, GGMLQuantizationType.Q4_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    size = path.stat().st_size
    os.truncate(path, size + -size % 32 + rows * row)
    os.utime(path, (time.time() - 60 * age,) * 2)


if __name__ == "__main__":
    asyncio.run(main())
