"""The conversation alone: it stays at its end, and its bar says so."""

from __future__ import annotations

from textual.app import App, ComposeResult
from textual.strip import Strip
from textual.widgets import Static

from tui.widgets.conversation import Conversation


class Screenful(App[None]):
    """A conversation, and below it something that grows and shrinks, as the prompt and a question do."""

    CSS = "Conversation { height: 1fr; } #below { height: 2; } Static { height: auto; }"

    def compose(self) -> ComposeResult:
        yield Conversation()
        yield Static("below", id="below")


def painted_bar(app: App[None]) -> list[Strip]:
    region = app.query_one(Conversation).vertical_scrollbar.region
    lines = app.screen._compositor.render_strips()
    return [lines[y].crop(region.x, region.right) for y in range(region.y, region.bottom)]


async def test_the_bar_shows_where_the_view_is_whatever_grows_below_it() -> None:
    app = Screenful()
    async with app.run_test(size=(40, 20)) as pilot:
        conversation = app.query_one(Conversation)
        await conversation.show([])
        await conversation.add(*(Static(f"line {i}") for i in range(30)))
        for height in (2, 12, 5, 14, 3):
            app.query_one("#below").styles.height = height
            await pilot.pause()
            app.query_one("#below").refresh(layout=True)
            await pilot.pause()
            assert conversation.scroll_y == conversation.max_scroll_y, f"{height} lines below: it left the end"
            seen = painted_bar(app)
            conversation.vertical_scrollbar.refresh()
            await pilot.pause()
            assert seen == painted_bar(app), f"{height} lines below: the bar was painted for another place"
