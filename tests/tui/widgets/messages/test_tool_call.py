"""A person watches a tool call: it forms, waits, runs, and gives a result."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widgets import Static

from agent.messages import Message, ToolCall
from agent.sessions.records import StoredMessage
from agent.tools.builtin.catalogue import builtin
from tests.fixtures.paths import ROOT
from tests.fixtures.sizes import small_and_wide
from tui.widgets.messages.diff import DiffView
from tui.widgets.messages.tool_call import ToolCallView, duration, main_argument

STYLES = ROOT / "tui/widgets/messages"


class Calls(App[None]):
    CSS_PATH = [STYLES / "diff.tcss", STYLES / "tool_call.tcss"]

    def __init__(self, view: ToolCallView) -> None:
        super().__init__()
        self.view = view

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self.view


def shown(app: App[None]) -> str:
    return "\n".join("".join(s.text for s in line).strip("│┃▌█ ") for line in app.screen._compositor.render_strips())


def kept(text: str, ok: bool = True, data: object = None) -> StoredMessage:
    return StoredMessage(2, 1, Message("tool", text, call_id="c", name="t"), "complete", 0.0, ok=ok, data=data, seconds=0.4)


@small_and_wide
async def test_its_whole_life(size: tuple[int, int]) -> None:
    app = Calls(ToolCallView(fold_after=3))
    view = app.view
    async with app.run_test(size=size) as pilot:
        view.forming("run_command", '{"comm')
        await pilot.pause()
        assert "… run_command" in shown(app)
        assert '{"comm' in shown(app)
        view.ready(ToolCall("run_command", {"command": "ls -l", "limit": 3}, "c"))
        view.become("waiting")
        await pilot.pause()
        assert "? run_command ls -l" in shown(app)
        assert "asks you" in shown(app)
        assert "limit: 3" in shown(app)
        view.become("running")
        view.progress("half of it\x1b[2J")
        await pilot.pause()
        assert "> run_command ls -l" in shown(app)
        assert "half of it␛[2J" in shown(app)
        view.done(True, "\n".join(f"file {i}" for i in range(40)), 1.25, 99, None)
        await pilot.pause()
        text = shown(app)
        assert "✓ run_command ls -l" in text
        assert "1.2 s" in text
        assert "file 2\n… 37 more lines (Enter opens)\n99 characters were cut" in text
        assert "half of it" not in text
        assert view._timer is None, "the spinner still ticks"


async def test_enter_space_and_a_click_open_and_fold() -> None:
    files = "\n".join(f"file {i}" for i in range(9))
    app = Calls(ToolCallView.of(ToolCall("list_files", {"path": "."}), kept(files), fold_after=3))
    async with app.run_test(size=(40, 15)) as pilot:
        app.view.focus()
        await pilot.press("enter")
        assert app.view.opened
        assert "file 8" in shown(app)
        await pilot.press("space")
        assert "file 8" not in shown(app)
        await pilot.click(ToolCallView, offset=(4, 1))
        await pilot.pause()
        assert app.view.opened


async def test_what_is_short_folds_to_its_title() -> None:
    app = Calls(ToolCallView.of(ToolCall("clock", {}), kept("noon")))
    async with app.run_test(size=(40, 15)) as pilot:
        app.view.focus()
        assert "noon" in shown(app)
        await pilot.press("enter")
        assert "noon" not in shown(app)
        await pilot.press("enter")
        assert "noon" in shown(app)


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [
        (kept("error: the user said no: keep it", ok=False), "- run_command rm x"),
        (kept("no such file", ok=False), "✗ run_command rm x"),
        (None, "interrupted: there is no result"),
    ],
)
async def test_refused_failed_and_interrupted_are_told_apart_without_colour(stored: StoredMessage | None, wanted: str) -> None:
    app = Calls(ToolCallView.of(ToolCall("run_command", {"command": "rm x"}), stored))
    async with app.run_test(size=(60, 10)) as pilot:
        await pilot.pause()
        assert wanted in shown(app)


async def test_a_file_that_was_edited_is_shown_as_a_diff(tmp_path: Path) -> None:
    tools = {tool.name: tool for tool in builtin(root=tmp_path, home=tmp_path)}
    arguments = {"path": "notes.md", "old": "bed 2", "new": "bed 3"}
    tools["write_file"].invoke({"path": "notes.md", "content": "water bed 2\nand rest\n"})
    result = tools["edit_file"].invoke(arguments)
    app = Calls(ToolCallView("edit_file"))
    async with app.run_test(size=(60, 20)) as pilot:
        app.view.ready(ToolCall("edit_file", arguments))
        app.view.done(result.ok, result.text, result.seconds, result.cut, result.data)
        await pilot.pause()
        assert "1 - water bed 2" in shown(app)
        assert "1 + water bed 3" in shown(app)
        assert "old:" not in shown(app), "what the diff says is said twice"
        app.view.focus()
        await pilot.press("enter")
        assert "old: bed 2" in shown(app)


async def test_a_diff_that_was_kept_is_shown_again() -> None:
    data = {"path": "a", "diff": "--- a/a\n+++ b/a\n@@ -1 +1 @@\n-x\n+y\n", "diff_cut": 7}
    app = Calls(ToolCallView.of(ToolCall("edit_file", {"path": "a"}), kept("edited a", data=data)))
    async with app.run_test(size=(60, 20)) as pilot:
        await pilot.pause()
        assert "1 - x" in shown(app)
        assert "… 7 more lines are not shown" in shown(app)
        assert len(app.query(DiffView)) == 1


async def test_json_is_laid_out_and_arguments_of_many_lines_stay_as_they_are() -> None:
    call = ToolCall("sensor", {"note": "one\n  two", "unit": "C"})
    app = Calls(ToolCallView.of(call, kept('{"bed":2,"wet":[1,2]}'), fold_after=8))
    async with app.run_test(size=(40, 20)) as pilot:
        await pilot.pause()
        lines = [line.strip() for line in shown(app).split("\n")]
        at = lines.index("note:")
        assert lines[at + 1 : at + 4] == ["one", "two", "unit: C"]
        assert '"bed": 2,' in shown(app)


@pytest.mark.parametrize("text", ["x" * 1_000_000, "line\n" * 200_000, '{"a":' * 200_000, "\x1b]0;x\x07" * 100_000])
async def test_a_megabyte_is_shown_and_opened_at_once(text: str) -> None:
    app = Calls(ToolCallView("t"))
    async with app.run_test(size=(40, 15)) as pilot:
        app.view.ready(ToolCall("t", {"content": text}))
        app.view.focus()
        began = time.process_time()
        app.view.done(True, text, 0.0, 0, None)
        await pilot.pause()
        await pilot.press("enter")
        await pilot.press("enter")
        assert time.process_time() - began < 3
        assert "\x1b" not in shown(app)
        assert "more" in shown(app)
        assert text in app.view.copy_text


async def test_a_call_that_forms_lays_the_screen_out_only_when_it_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    app = Calls(ToolCallView("write_file"))
    async with app.run_test(size=(40, 15)) as pilot:
        app.view.forming("write_file", "x" * 500)
        await pilot.pause()
        laid_out = []
        update = Static.update

        def counted(self: Static, content: Content, *, layout: bool = True) -> None:
            laid_out.append(layout)
            update(self, content, layout=layout)

        monkeypatch.setattr(Static, "update", counted)
        for i in range(50):
            app.view.forming("write_file", "x" * (501 + i))
        await pilot.pause()
        assert laid_out == [False] * 50
        app.view.forming("write_file", "漢" * 501)
        assert laid_out[-1] is True
        await pilot.pause()
        assert "漢" * 10 in shown(app)


def test_the_argument_that_says_most() -> None:
    assert main_argument({"limit": 3, "path": "a"}) == "path"
    assert main_argument({"long": "x" * 300, "city": "Oslo"}) == "city"
    assert main_argument({"things": [1]}) == ""
    assert [duration(s) for s in (0.26, 12.3, 119.6, 3700)] == ["0.3 s", "12 s", "2 min 0 s", "1 h 1 min"]
