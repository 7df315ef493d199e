"""The peer: the least chat that somebody would write with Textual, its own Markdown widget and stream, the same words as fast.

python -m benchmarks.chat_peer
"""

from __future__ import annotations

import asyncio
import time

from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.widgets import Footer, Input, Markdown

from benchmarks.chat_text import RATE, pieces


class PeerApp(App[None]):
    """A scrolling column of Markdown and a line to write in. Enter asks; the answer goes on until the end."""

    CSS = "Input { dock: bottom; margin-bottom: 1; }"

    def compose(self) -> ComposeResult:
        yield VerticalScroll()
        yield Input(placeholder="Ask something")
        yield Footer()

    def on_mount(self) -> None:
        self.query_one(Input).focus()

    async def on_input_submitted(self, event: Input.Submitted) -> None:
        event.input.clear()
        column = self.query_one(VerticalScroll)
        await column.mount(Markdown(event.value))
        answer = Markdown()
        await column.mount(answer)
        column.anchor()
        self.run_worker(self._answer(answer))

    async def _answer(self, answer: Markdown) -> None:
        stream = Markdown.get_stream(answer)
        begun = time.monotonic()
        for count, piece in enumerate(pieces(), 1):
            await asyncio.sleep(max(0.0, begun + count / RATE - time.monotonic()))
            await stream.write(piece)


if __name__ == "__main__":
    PeerApp().run()
