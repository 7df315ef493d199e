"""An answer on the screen: it is read, selected with the mouse, copied from, and follows the theme and the width."""

from __future__ import annotations

import pytest
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.geometry import Offset

from tests.fixtures.paths import ROOT
from tui.widgets.messages.answer_text import AnswerText

STYLE = ROOT / "tui" / "widgets" / "messages" / "answer_text.tcss"
CODE = "Look:\n\n```python\ndef f(x):\n    return 'a\\tb'  # no\n```\n\n"
CODE += "and [the page](https://example.org/a) or https://plain.example now.\n"


class Reader(App[None]):
    CSS_PATH = STYLE

    def __init__(self, source: str, *, streaming: bool = False) -> None:
        super().__init__()
        self.answer = AnswerText(source, streaming=streaming)
        self.copied: list[str] = []
        self.followed: list[str] = []

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self.answer

    def on_answer_text_copy_code(self, event: AnswerText.CopyCode) -> None:
        self.copied.append(event.text)

    def on_answer_text_link_clicked(self, event: AnswerText.LinkClicked) -> None:
        self.followed.append(event.href)

    def rows(self) -> list[str]:
        return [self.answer.render_line(y).text.rstrip() for y in range(self.answer.size.height)]

    def where(self, text: str) -> Offset:
        """The cell at which ``text`` begins."""
        return next(Offset(row.index(text), y) for y, row in enumerate(self.rows()) if text in row)


async def test_a_click_on_the_head_of_a_code_block_gives_its_text() -> None:
    app = Reader(CODE)
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.click(AnswerText, offset=app.where("copy"))
        await pilot.click(AnswerText, offset=app.where("python"))
        await pilot.click(AnswerText, offset=app.where("return"))
        await pilot.pause()
    assert app.copied == ["def f(x):\n    return 'a\\tb'  # no"] * 2
    assert app.answer.code_blocks == [("python", "def f(x):\n    return 'a\\tb'  # no")]


async def test_a_click_on_a_link_says_where_it_leads_and_opens_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    monkeypatch.setattr(App, "open_url", lambda self, url, **_: opened.append(url))
    app = Reader(CODE)
    async with app.run_test(size=(90, 20)) as pilot:
        for text in ("the page", "(https://example", "plain.example", "now."):
            await pilot.click(AnswerText, offset=app.where(text))
        await pilot.pause()
    assert app.followed == ["https://example.org/a", "https://example.org/a", "https://plain.example"]
    assert opened == []


async def test_the_mouse_selects_words_across_wrapped_rows() -> None:
    app = Reader("# Head\n\nThe quick **brown** fox jumps over the lazy dog and runs.\n\n- first\n- second\n")
    async with app.run_test(size=(30, 20)) as pilot:
        start, end = app.where("quick"), app.where("lazy")
        last = Offset(end.x + 3, end.y)
        assert end.y > start.y

        def backgrounds() -> dict[str, object]:
            return {s.text: s.style and s.style.bgcolor for s in app.answer.render_line(start.y) if s.text.strip()}

        await pilot.mouse_down(AnswerText, offset=start)
        await pilot.hover(AnswerText, offset=last)
        await pilot.mouse_up(AnswerText, offset=last)
        await pilot.pause()
        assert app.screen.get_selected_text() == "quick brown fox jumps over the lazy"
        marked = backgrounds()
        assert marked["quick "] != marked["The "]
        app.screen.clear_selection()
        await pilot.pause()
        assert len(set(backgrounds().values())) == 1
        app.answer.text_select_all()
        await pilot.pause()
        assert "• first\n• second" in (app.screen.get_selected_text() or "")


async def test_an_answer_grows_while_it_streams_and_ends_as_if_it_had_been_there_at_once() -> None:
    app = Reader("", streaming=True)
    async with app.run_test(size=(50, 40)) as pilot:
        heights: list[int] = []
        for at in range(0, len(CODE), 7):
            app.answer.append(CODE[at : at + 7])
            await pilot.pause()
            heights.append(app.answer.size.height)
        app.answer.finish()
        await pilot.pause()
        streamed = app.rows()
        assert "def f(x):" in "\n".join(streamed)
        assert heights == sorted(heights)
    whole = Reader(CODE)
    async with whole.run_test(size=(50, 40)):
        assert streamed == whole.rows()
    assert app.answer.source == CODE


async def test_another_text_takes_its_place_and_more_may_follow() -> None:
    app = Reader("one")
    async with app.run_test(size=(40, 15)) as pilot:
        app.answer.replace("two **words**\n\nmore")
        await pilot.pause()
        assert app.rows() == ["two words", "", "more"]
        app.answer.append(" text")
        app.answer.finish()
        await pilot.pause()
        assert app.rows() == ["two words", "", "more text"]


async def test_colours_follow_the_theme() -> None:
    app = Reader("# Head\n\n```python\nx = 1  # why\n```\n")
    async with app.run_test(size=(40, 15)) as pilot:
        seen = set()
        for theme in ("textual-dark", "textual-light", "ansi-dark"):
            app.theme = theme
            await pilot.pause()
            seen.add(str([segment.style for segment in app.answer.render_line(0)]))
        assert len(seen) == 3


@pytest.mark.parametrize("size", [(40, 15), (60, 20), (80, 24), (160, 50)])
async def test_a_wide_table_stays_readable_on_every_screen(size: tuple[int, int]) -> None:
    names = ["name", "address", "since", "remark", "state", "size", "owner", "price"]
    source = "|" + "|".join(names) + "|\n|" + "---|" * 8 + "\n|" + "|".join(f"value{i}" for i in range(8)) + "|\n"
    app = Reader(source)
    async with app.run_test(size=size):
        text = "\n".join(app.rows())
    assert all(f"value{i}" in text for i in range(8))
    if size[0] < 80:
        assert "address: value1" in text
    else:
        assert "address: value1" not in text


async def test_a_new_width_wraps_the_text_anew() -> None:
    app = Reader("word " * 30)
    async with app.run_test(size=(80, 24)) as pilot:
        wide = len(app.rows())
        await pilot.resize_terminal(40, 24)
        await pilot.pause()
        assert len(app.rows()) > wide
        assert max(map(len, app.rows())) <= 40
