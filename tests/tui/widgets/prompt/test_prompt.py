"""Writing: what the keys do, what is sent, and that no key press waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
from textual import events, on
from textual._xterm_parser import XTermParser
from textual.app import App, ComposeResult
from textual.message import Message
from textual.pilot import Pilot
from textual.widgets import Input, Static

import tui.widgets.prompt.prompt
from tests.fixtures.patience import PATIENCE
from tests.fixtures.sizes import all_sizes
from tui.prompt.file_search import Paths
from tui.prompt.history import History
from tui.prompt.pastes import MOST, clean
from tui.widgets.prompt.area import PromptArea
from tui.widgets.prompt.prompt import Prompt
from tui.widgets.prompt.suggestions import Suggestions

WIDGETS = Path(tui.widgets.prompt.prompt.__file__).parent
COMMANDS = [
    ("help", "Keys and commands", ""),
    ("model", "Talk to another model", "NAME"),
    ("/tools", "What the model may use", ""),
    ("export", "Write this session to a file", "FORMAT"),
]


class Writing(App[None]):
    CSS_PATH: ClassVar[list[str | Any]] = [WIDGETS / "prompt.tcss", WIDGETS / "suggestions.tcss"]
    CSS = "#talk { height: 1fr; }"
    BINDINGS: ClassVar[list[Any]] = [("escape", "note('stop')", ""), ("ctrl+c", "note('ctrl+c')", "")]

    def __init__(self, folder: Path, history: History | None = None) -> None:
        super().__init__()
        (folder / "root").mkdir(exist_ok=True)
        self.prompt = Prompt(commands=COMMANDS, root=folder / "root", history=history or History(folder / "history.jsonl"))
        self.got: list[Any] = []

    def compose(self) -> ComposeResult:
        yield Static(id="talk")
        yield self.prompt
        yield Input(id="other", compact=True)

    def on_mount(self) -> None:
        self.prompt.focus()

    @on(Prompt.Sent)
    @on(Prompt.CommandGiven)
    @on(Prompt.UnknownCommand)
    @on(Prompt.Problem)
    @on(Prompt.EditLeft)
    def _got(self, event: Message) -> None:
        self.got.append(event)

    def action_note(self, what: str) -> None:
        self.got.append(what)

    @property
    def sent(self) -> list[str]:
        return [event.text for event in self.got if isinstance(event, Prompt.Sent)]

    @property
    def list(self) -> Suggestions:
        return self.query_one(Suggestions)

    @property
    def lines(self) -> list[str]:
        """What is on the screen."""
        return ["".join(segment.text for segment in strip) for strip in self.screen._compositor.render_strips()]


@asynccontextmanager
async def writing(app: Writing, size: tuple[int, int] = (80, 24)) -> AsyncIterator[Pilot[None]]:
    async with app.run_test(size=size) as pilot:
        await app.workers.wait_for_complete()
        await pilot.pause()
        yield pilot


async def until(pilot: Pilot[None], true: Callable[[], bool]) -> None:
    ends = time.monotonic() + 10
    while not true():
        assert time.monotonic() < ends, "this did not come"
        await pilot.pause(0.01)


async def paste(app: Writing, pilot: Pilot[None], text: str) -> None:
    app.post_message(events.Paste(text))
    await pilot.pause()
    await pilot.press("home", "end")  # keys wait for the paste before them
    await pilot.pause()


async def test_enter_sends_and_every_way_to_a_new_line_works(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"a", "ctrl+j", *"b", "shift+enter", *"c", "alt+enter", *"d\\", "enter", *"e")
        assert app.prompt.text == "a\nb\nc\nd\ne"
        await pilot.press("enter", *"x", "enter", "enter", "space", "enter")
        assert app.sent == ["a\nb\nc\nd\ne", "x"]
        assert app.prompt.text == " ", "nothing is not sent"


@pytest.mark.parametrize("code", ["\n", "\x1b\r", "\x1b[13;2u", "\x1b[13;3u", "\x1b[27;2;13~"])
async def test_what_terminals_send_for_a_new_line_never_sends_the_message(tmp_path: Path, code: str) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press("a")
        for event in XTermParser().feed(code):
            app.post_message(event)
        await pilot.pause()
        await pilot.press("b")
        assert (app.sent, app.prompt.text) == ([], "a\nb")


async def test_keys_can_be_given_to_other_actions(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        app.set_keymap({"prompt.send": "ctrl+s", "prompt.newline": "enter"})
        await pilot.press(*"a", "enter", *"b", "ctrl+s", *"c")
        assert (app.sent, app.prompt.text) == (["a\nb"], "c")


async def test_commands_are_given_and_unknown_ones_stay(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        app.prompt.text = "/model tiny one"
        await pilot.press("enter")
        app.prompt.text = "/tols please"
        await pilot.press("enter")
        given, unknown = app.got
        assert isinstance(given, Prompt.CommandGiven)
        assert given.text == "/model tiny one"
        assert isinstance(unknown, Prompt.UnknownCommand)
        assert (unknown.word, unknown.nearest) == ("tols", "tools")
        assert app.prompt.text == "/tols please"
        for text in ("/usr/bin/env is a path", "//help me", "/not a command\nbut two lines", "/ is a slash"):
            app.prompt.text = text
            await pilot.press("enter")
        assert app.sent == ["/usr/bin/env is a path", "/help me", "/not a command\nbut two lines", "/ is a slash"]


@all_sizes
async def test_commands_are_shown_with_what_they_are_about(tmp_path: Path, size: tuple[int, int]) -> None:
    app = Writing(tmp_path)
    async with writing(app, size) as pilot:
        await pilot.press("slash")
        shown = "\n".join(app.lines)
        assert "> /help" in shown
        assert "/model NAME" in shown
        assert "Talk to another" in shown
        await pilot.press(*"mo", "tab")
        assert app.prompt.text == "/model "
        assert not app.list.display
        await pilot.press("ctrl+u", *"/too", "enter")
        assert [event.text for event in app.got] == ["/tools"], "a command without arguments runs at once"


async def test_a_list_can_be_closed_and_stays_closed(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press("slash", "escape", *"he")
        assert not app.list.display
        assert app.got == []
        await pilot.press("escape")
        assert app.got == ["stop"], "nothing left to close: Esc is the app's"
        await pilot.press("ctrl+u", "slash")
        assert app.list.display


async def test_tab_leaves_the_prompt_where_there_is_nothing_to_complete(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"hello", "tab")
        assert isinstance(app.focused, Input)


async def test_files_are_completed_through_folders(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    for name in ("src/main.py", "src/my notes.txt", "README.md"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).write_text(name)
    async with writing(app) as pilot:
        await pilot.press(*"see @s")
        await until(pilot, lambda: app.list.chosen is not None)
        assert app.list.chosen is not None
        assert app.list.chosen.label == "src/"
        await pilot.press("enter")
        assert app.prompt.text == "see @src/"
        assert app.list.display, "a folder goes on"
        await pilot.press(*"not", "tab")
        assert app.prompt.text == 'see @"src/my notes.txt" '
        await pilot.press(*"and @readme", "down", "up", "enter", "enter")
        await until(pilot, lambda: bool(app.got))
        (event,) = app.got
        assert event.text == 'see @"src/my notes.txt" and @README.md'
        assert [file.content for file in event.attached.files] == ["src/my notes.txt", "README.md"]
        assert app.prompt.text == ""


async def test_a_file_typed_in_full_is_sent_with_one_enter(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    (tmp_path / "root" / "a.txt").write_text("A")
    async with writing(app) as pilot:
        await pilot.press(*"@a.txt")
        await until(pilot, lambda: app.list.chosen is not None)
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.got))
        assert app.got[0].attached.text == "@a.txt\n\n[file: a.txt]\nA\n[end of file: a.txt]"


async def test_a_list_line_can_be_clicked(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press("slash")
        await pilot.click(Suggestions, offset=(4, 1))
        assert app.prompt.text == "/model "
        assert isinstance(app.focused, PromptArea)


async def test_what_cannot_be_sent_stays_and_the_reason_is_told(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    (tmp_path / "root" / "photo.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    async with writing(app) as pilot:
        app.prompt.text = "compare @./gone.py with @photo.png"
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.got))
        (problem,) = app.got
        assert isinstance(problem, Prompt.Problem)
        assert len(problem.text.splitlines()) == 2
        assert app.prompt.text == "compare @./gone.py with @photo.png"
        app.prompt.sees_images = True
        app.prompt.text = "what is on @photo.png"
        await pilot.press("enter")
        await until(pilot, lambda: bool(app.sent))
        assert app.got[-1].attached.images == (str(tmp_path / "root/photo.png"),)


async def test_a_long_paste_is_one_mark_until_it_is_sent(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    text = "".join(f"line {i}\r\n" for i in range(240))
    async with writing(app) as pilot:
        await pilot.press(*"Why? ")
        await paste(app, pilot, text)
        assert app.prompt.text == "Why? [pasted 240 lines #1]"
        await paste(app, pilot, "y" * 1500)
        assert app.prompt.text == "Why? [pasted 240 lines #1][pasted 1,500 characters #2]"
        await pilot.press("backspace")
        assert app.prompt.text == "Why? [pasted 240 lines #1]", "a mark goes as a whole"
        assert app.prompt.get_full() == "Why? " + text.replace("\r\n", "\n")
        await pilot.press("enter")
        assert app.sent == ["Why? " + text.replace("\r\n", "\n").rstrip()]


async def test_a_short_paste_is_text_without_controls(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await paste(app, pilot, "a\r\nb\rc\td\x1b[31m\x07\u202e\u2028")
        assert app.prompt.text == "a\nb\nc\td␛[31m␇<U+202E><U+2028>"
        app.prompt.text = ""
        await paste(app, pilot, "[pasted 3 lines #1]")
        assert app.prompt.get_full() == "[pasted 3 lines #1]", "what looks like a mark is none"


async def test_five_megabytes_are_refused_and_nothing_is_lost(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"so")
        await paste(app, pilot, "x" * 5_000_000)
        (problem,) = app.got
        assert "5 MB" in problem.text
        assert app.prompt.text == "so"


async def test_up_and_down_walk_through_what_was_sent_and_keep_the_draft(tmp_path: Path) -> None:
    earlier = History(tmp_path / "history.jsonl")
    earlier.save("from yesterday")
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"one", "enter", "space", *"secret", "enter", *"/help", "enter", *"two", "ctrl+j", *"lines", "enter")
        await pilot.press(*"draft", "up")
        assert app.prompt.text == "two\nlines"
        await pilot.press("up")
        assert app.prompt.text == "/help"
        assert not app.list.display, "a command that is passed by opens no list"
        await pilot.press("up")
        assert app.prompt.text == "one"
        await pilot.press("up", "up", "up")
        assert app.prompt.text == "from yesterday"
        await pilot.press("down", "down", "down", "down", "down")
        assert app.prompt.text == "draft"
        await pilot.press("down")
        assert app.prompt.text == "draft"
        await app.workers.wait_for_complete()
    again = History(tmp_path / "history.jsonl")
    again.load()
    assert again.entries == ("from yesterday", "one", "/help", "two\nlines")


async def test_the_cursor_keys_move_within_a_text_of_several_lines(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"old", "enter", *"a", "ctrl+j", *"b", "up", *"x")
        assert app.prompt.text == "ax\nb"
        app.prompt.text = "word " * 30  # wrapped into two lines
        await pilot.press("up")
        assert app.prompt.text == "word " * 30
        await pilot.press("up")
        assert app.prompt.text == "old"


async def test_ctrl_r_searches_backwards(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        for text in ("fix the parser", "fix the tests", "thanks"):
            app.prompt.text = text
            await pilot.press("enter")
        await pilot.press(*"dra", "ctrl+r", "ctrl+u", *"fix")
        shown = "\n".join(app.lines)
        assert "Search what you sent" in shown
        assert "> fix the tests" in shown
        await pilot.press("ctrl+r", "enter")
        assert app.prompt.text == "fix the parser"
        assert app.sent == ["fix the parser", "fix the tests", "thanks"], "taken, not sent"
        await pilot.press("ctrl+r", *"zzz", "enter", "escape")
        assert app.prompt.text == "fix the parser"


async def test_editing_an_earlier_message(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"draft")
        app.prompt.edit("/model is what I said", "Editing message 3")
        await pilot.pause()
        assert "Editing message 3: Enter sends it as a new branch, Esc leaves" in "\n".join(app.lines)
        await pilot.press("escape")
        assert isinstance(app.got[0], Prompt.EditLeft)
        assert app.prompt.text == "draft"
        app.prompt.edit("/model is what I said", "Editing message 3")
        await pilot.press(*"!", "enter", "enter")
        edited, plain = app.got[1:]
        assert (edited.text, edited.edited) == ("/model is what I said!", True)
        assert (plain.text, plain.edited) == ("draft", False)


async def test_the_keys_of_a_shell(tmp_path: Path) -> None:
    app = Writing(tmp_path)
    async with writing(app) as pilot:
        await pilot.press(*"one two", "ctrl+w")
        assert app.prompt.text == "one "
        await pilot.press("ctrl+c")
        assert (app.prompt.text, app.got) == ("one ", ["ctrl+c"])
        await pilot.press("ctrl+j", *"three", "ctrl+u")
        assert app.prompt.text == ""
        await pilot.press("ctrl+z")
        assert app.prompt.text.startswith("one ")


@pytest.mark.parametrize(("size", "most"), [((40, 15), 5), ((60, 20), 6), ((80, 24), 8), ((160, 50), 12)])
async def test_it_grows_with_the_text_and_leaves_room(tmp_path: Path, size: tuple[int, int], most: int) -> None:
    app = Writing(tmp_path)
    async with writing(app, size) as pilot:
        area = app.query_one(PromptArea)
        assert area.size.height == 1
        await pilot.press("a", "ctrl+j", "b")
        await pilot.pause()
        assert area.size.height == 2
        app.prompt.text = "\n".join(map(str, range(100)))
        await pilot.press("ctrl+j", *"@x")
        await pilot.pause()
        assert area.size.height == most
        assert any("@x" in line for line in app.lines), "the cursor is in sight"
        await pilot.press("ctrl+u")
        await pilot.pause()
        assert area.size.height == 1


@all_sizes
async def test_the_placeholder_says_what_to_do(tmp_path: Path, size: tuple[int, int]) -> None:
    app = Writing(tmp_path)
    async with writing(app, size) as pilot:
        assert ("Ask something, or / for commands" if size[0] > 60 else "Ask something, or /") in "\n".join(app.lines)
        app.prompt.busy = True
        await pilot.pause()
        assert "Esc stops" in "\n".join(app.lines)


async def test_no_key_waits_for_a_large_text_or_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processor time, as other tests share the machine, and a bound for the slowest that leaves room for them."""
    names = tuple(f"package{i % 97}/module_{i % 991}/test_file_{i}.py" for i in range(20_000))
    found = Paths(names, names, tuple(name.rpartition("/")[2] for name in names))
    monkeypatch.setattr("tui.prompt.file_search.scan", lambda root: found)
    app = Writing(tmp_path)
    async with writing(app, (160, 50)) as pilot:
        app.query_one(PromptArea).put(("some words of a text that goes on and on " * 20 + "\n") * 125)
        assert len(app.prompt.text) > 100_000
        await pilot.press(*"@t")
        await until(pilot, lambda: app.list.chosen is not None)
        taken = []
        for key in [*"est_1999", "down", "enter", *"then", "backspace", "ctrl+j"]:
            start = time.process_time()
            await pilot.press(key)
            taken.append(time.process_time() - start)
        assert "@package" in app.prompt.text
        assert sorted(taken)[len(taken) // 2] < 0.05 * PATIENCE
        assert max(taken) < 0.3


def test_a_paste_of_a_megabyte_is_cleaned_in_short_steps() -> None:
    longest = 0.0
    pieces = clean(("Ж\u202eя\r\n" * (MOST // 5))[:MOST])
    while True:
        start = time.perf_counter()
        piece = next(pieces, None)
        longest = max(longest, time.perf_counter() - start)
        if piece is None:
            break
    assert longest < 0.25


async def test_alt_with_a_letter_is_a_key_and_not_the_letter(tmp_path: Path) -> None:
    """A terminal without the kitty protocol sends ESC and the letter, and Textual makes a printable key of that."""
    app = Writing(tmp_path)
    async with app.run_test() as pilot:
        app._bindings.bind("alt+v", "note('alt+v')")
        for key, letter in (("alt+v", "v"), ("alt+z", "z"), ("x", "x")):
            app.post_message(events.Key(key, letter))
            await pilot.pause()
        await pilot.pause()
        assert app.prompt.text == "x"
        assert "alt+v" in app.got
