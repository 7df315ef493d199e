"""Where a person writes: the next message, a command, or an earlier message again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Literal, Self

from textual import on
from textual.app import ComposeResult
from textual.containers import Horizontal
from textual.content import Content
from textual.events import Resize
from textual.message import Message
from textual.reactive import reactive
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static, TextArea

from agent.text import display
from tui.prompt.file_search import Finder, Paths, scan
from tui.prompt.history import History, Walk
from tui.prompt.pastes import Pastes, clean
from tui.prompt.suggest import Command, Suggestion, Trigger, commands, file_suggestion, remembered, trigger
from tui.widgets.completion import Completion
from tui.widgets.prompt_area import PromptArea

if TYPE_CHECKING:
    from tui.prompt.attach import Attached

_LIST = 30  # lines of a list
_FRESH = 10.0  # seconds after which the files are looked through again
_SHOWN_WHOLE = 20_000  # characters of a text that is put in; a longer one becomes a mark
_LONGEST_LINE = 4_000  # characters; a longer one is wrapped anew at each key
_MANY_FILES = 2_000
_PAUSE = 0.04  # seconds without a key, then many files are looked through: what is typed is to be seen first
_SEARCHED = 2_000  # characters of each sent text
_NARROW = 60  # columns
_COMMAND = re.compile(r"/([^\s/]+)(?=\s|\Z)")
_LIKE_A_COMMAND = re.compile(r"/[A-Za-z?][\w-]*(?: [^\n]*)?")


class Prompt(Widget):
    """The prompt. Its ``sees_images`` says whether the model can see pictures; ``busy`` whether an answer is under way."""

    busy = reactive(False)

    class Sent(Message):
        """A message to the model.

        Attributes:
            text: what was typed, pasted texts in full; ``@path`` still names files.
            attached: the same with the files behind it and the pictures beside it; it has no problems.
            edited: it was written in ``edit`` mode.
        """

        def __init__(self, text: str, attached: Attached, edited: bool = False) -> None:
            self.text, self.attached, self.edited = text, attached, edited
            super().__init__()

    class CommandGiven(Message):
        """A known command with what stands behind it: "/model tiny"."""

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    class UnknownCommand(Message):
        """Something like a command that there is not, and what was perhaps meant; both without the slash. The text stays."""

        def __init__(self, word: str, nearest: str | None) -> None:
            self.word, self.nearest = word, nearest
            super().__init__()

    class Problem(Message):
        """Why a text was not sent or not taken; a line for each reason. What was written stays."""

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    class EditLeft(Message):
        """An earlier message is not edited any more; what was written before is back."""

    def __init__(
        self, *, commands: Sequence[Command] = (), root: Path | None = None, history: History | None = None, id: str | None = None
    ) -> None:
        """``commands`` are (name, about, hint at its arguments); ``root`` is the folder that ``@`` starts from."""
        super().__init__(id=id)
        self.commands = tuple((name.removeprefix("/"), about, hint) for name, about, hint in commands)
        self.root = Path.cwd() if root is None else root
        self.history = History() if history is None else history
        self.sees_images = False
        self._mode: Literal["write", "edit", "search"] = "write"
        self._kept: list[tuple[Literal["write", "edit"], str, str]] = []  # mode, title and text to come back to
        self._title = ""
        self._pastes = Pastes()
        self._area = PromptArea(self, self._pastes)
        self._list = Completion()
        self._heading = Static(markup=False, classes="title")
        self._heading.display = False
        self._finder = Finder(Paths())
        self._scans = 0
        self._scanned = 0.0  # when the last of them ended
        self._scanning = False
        self._later: Timer | None = None
        self._completed: set[str] = set()
        self._shown_for: tuple[object, ...] | None = None
        self._closed_at: tuple[str, int, int] | None = None
        self._walk: Walk | None = None
        self._searched: list[tuple[str, str]] = []

    def compose(self) -> ComposeResult:
        yield self._heading
        yield self._list
        with Horizontal():
            yield Static(">", markup=False, classes="sign")
            yield self._area

    def on_mount(self) -> None:
        self.run_worker(self.history.load, thread=True, group="history", exit_on_error=False)
        self._say()

    # --- the text

    @property
    def text(self) -> str:
        """What stands there, pasted texts as marks. Setting it puts the cursor at its end."""
        return self._area.text

    @text.setter
    def text(self, value: str) -> None:
        self._walk = None
        self._put(value)

    def get_full(self) -> str:
        """What stands there, with pasted texts in full."""
        return self._pastes.expand(self._area.text)

    def focus(self, scroll_visible: bool = True) -> Self:
        self._area.focus(scroll_visible)
        return self

    def _put(self, text: str, *, at_start: bool = False) -> None:
        text = "".join(clean(text))
        if len(text) > _SHOWN_WHOLE or max(map(len, text.split("\n"))) > _LONGEST_LINE:
            text = self._pastes.fold(self._pastes.expand(text))  # a mark within a mark would not be found
        self._area.put(text, at_start=at_start)

    # --- modes

    def edit(self, text: str, title: str) -> None:
        """Edit an earlier message, "Editing message 3"; what is being written comes back afterwards."""
        while self._mode != "write":
            self._come_back()
        self._begin("edit", title)
        self._put(text)
        self.focus()

    def _begin(self, mode: Literal["edit", "search"], title: str) -> None:
        if self._mode != "search":
            self._kept.append((self._mode, self._title, self._area.text))
        self._mode, self._title, self._walk = mode, title, None
        self._list.close()
        self._say()

    def _come_back(self) -> None:
        self._mode, self._title, text = self._kept.pop()
        self._walk = self._shown_for = None
        self._list.close()
        self._area.put(text)
        self._say()

    def search(self) -> None:
        """Look for something that was sent before; again, and it is the next one."""
        if self._mode == "search":
            self._list.move(1)
            return
        query = self._area.text if self._walk is None and "\n" not in self._area.text else ""
        self._searched = [(text, text[:_SEARCHED].lower()) for text in self.history.entries]
        self._begin("search", "Search what you sent")
        self._area.put(query)
        self._suggest()

    def leave(self) -> bool:
        if self._mode == "search":
            self._come_back()
        elif self._list.display:
            found = self._trigger()
            self._closed_at = self._place(found) if found else None
            self._list.close()
        elif self._mode == "edit":
            self._come_back()
            self.post_message(self.EditLeft())
        else:
            return False
        return True

    def tell(self, problem: str) -> None:
        self.post_message(self.Problem(problem))

    def watch_busy(self) -> None:
        self._say()

    def on_resize(self, event: Resize) -> None:
        self._say()

    def _say(self) -> None:
        """Placeholder and title, as there is room."""
        narrow = 0 < self.size.width < _NARROW
        if self._mode == "search":
            hint, keys = ("A word of it", "A word of it"), "Enter takes one, Esc leaves"
        elif self.busy:
            hint, keys = ("Type the next message; Esc stops the answer", "Next message; Esc stops"), ""
        else:
            hint, keys = ("Ask something, or / for commands", "Ask something, or /"), ""
        if self._mode == "edit":
            keys = "Enter sends it as a new branch, Esc leaves"
        self._area.placeholder = Content(hint[narrow])
        self._heading.update(f"{display(self._title)}: {'Esc leaves' if narrow else keys}")
        self._heading.display = self._mode != "write"

    # --- the list

    @on(TextArea.Changed)
    @on(TextArea.SelectionChanged)
    def _moved(self, event: Message) -> None:
        event.stop()
        if self._later is not None:
            self._later.stop()
            self._later = None
        found = self._trigger()
        if found and found.kind == "file" and self._list.display and len(self._finder.paths.names) > _MANY_FILES:
            self._later = self.set_timer(_PAUSE, self._suggest)
        else:
            self._suggest()

    def _trigger(self) -> Trigger | None:
        if not self._area.selection.is_empty:
            return None
        found = trigger(self._area.before_cursor(), self._area.cursor_location[0])
        return None if found and found.kind == "command" and self._mode == "edit" else found

    def _place(self, found: Trigger) -> tuple[str, int, int]:
        return found.kind, self._area.cursor_location[0], found.start

    def _suggest(self) -> None:
        """Bring the list up to date with the text before the cursor."""
        if self._mode == "search":
            if self._is_news("search", self._area.text):
                items = remembered(self._searched, self._area.text, _LIST)
                self._list.show(items, "" if items else "nothing that you sent has that")
            return
        # A command that is passed by in the history is not being typed.
        found = self._trigger() if self._walk is None or self._area.text != self._walk.text else None
        if found is None or self._place(found) == self._closed_at:
            if found is None:
                self._closed_at = None
            self._shown_for = None
            self._list.close()
        elif found.kind == "command":
            if self._is_news(found):
                self._list.show(commands(self.commands, found.query))
        else:
            self._look_through()
            if self._is_news(found, self._scans, self._scanning):
                items = [file_suggestion(path) for path in self._finder.find(found.query, _LIST)]
                self._list.show(items, "looking for files ..." if self._scanning and not items else "")

    def _is_news(self, *state: object) -> bool:
        """Whether the list has to be made anew: what was chosen in it stays chosen otherwise."""
        before, self._shown_for = self._shown_for, state
        return before != state

    def _look_through(self) -> None:
        if self._scanning or (self._scans and monotonic() - self._scanned < _FRESH):
            return
        self._scanning = True
        self.run_worker(self._scan, thread=True, group="files", exit_on_error=False)

    def _scan(self) -> None:
        paths = scan(self.root)
        self.app.call_from_thread(self._have, paths)

    def _have(self, paths: Paths) -> None:
        self._scanning, self._scanned = False, monotonic()
        self._scans += 1
        self._finder = Finder(paths)
        self._suggest()

    def complete(self) -> bool:
        self._suggest()
        chosen = self._list.chosen
        if not self._list.display or chosen is None:
            return False
        self._take(chosen)
        return True

    @on(Completion.Taken)
    def _clicked(self, event: Completion.Taken) -> None:
        event.stop()
        if self._list.chosen is not None:
            self._take(self._list.chosen)
        self.focus()

    def _take(self, item: Suggestion) -> None:
        if self._mode == "search":
            self._come_back()
            self._put(item.value)
            return
        found = self._trigger()
        if found is None:
            return
        if found.kind == "file":
            self._completed.add(item.value.strip().removeprefix("@").strip('"'))
        row, column = self._area.cursor_location
        value = item.value.rstrip() if self._area.document.get_line(row)[column : column + 1] == " " else item.value
        result = self._area.replace(value, (row, found.start), (row, column), maintain_selection_offset=False)
        self._area.move_cursor(result.end_location)
        self._suggest()

    # --- the history

    def step(self, by: int) -> bool:
        self._suggest()
        if self._list.display:
            self._list.move(by)
            return True
        if self._mode == "search" or not self._at_edge(by):
            return False
        return self._walk_to(by)

    def _at_edge(self, by: int) -> bool:
        """Whether the cursor is in the first, or the last, line as it is wrapped."""
        area = self._area
        top = area.wrapped_document.location_to_offset(area.cursor_location).y
        return top == 0 if by < 0 else top == area.wrapped_document.height - 1

    def _walk_to(self, by: int) -> bool:
        if self._walk is None:
            if by > 0 or not self.history.entries:
                return False
            self._walk = Walk(self.history, self._area.text)
        if self._walk.move(by):
            text = self._walk.text
            wrapped = "\n" in text or len(text) >= self._area.wrap_width
            # So that the next press of the same key goes on walking.
            self._put(text, at_start=by < 0 and wrapped)
            if self._walk.at_draft:
                self._walk = None
        return True

    # --- sending

    async def send(self) -> None:
        self._suggest()
        if self._list.display and (chosen := self._list.chosen) and not self._stands_there(chosen):
            self._take(chosen)
            if not chosen.final:
                return
        if self._mode == "search" or self._continued():
            return
        full = self.get_full()
        if full.strip() and not self._is_command(full):
            await self._send_message(full)

    def _stands_there(self, item: Suggestion) -> bool:
        """What is chosen has been typed in full, so that Enter means the message."""
        found = self._trigger()
        return self._mode != "search" and found is not None and self._area.before_cursor()[found.start :] == item.value.rstrip()

    def _continued(self) -> bool:
        """A backslash at the end of a line: the way to a new line on any terminal."""
        row, column = self._area.cursor_location
        line = self._area.document.get_line(row)
        if column != len(line) or not line.endswith("\\"):
            return False
        self._area.replace("\n", (row, column - 1), (row, column), maintain_selection_offset=False)
        return True

    def _is_command(self, full: str) -> bool:
        found = _COMMAND.match(full) if self._mode == "write" else None
        if found is None:
            return False
        known = [name for name, _, _ in self.commands]
        if found[1] in known:
            self._done(full)
            self.post_message(self.CommandGiven(full.strip()))
            return True
        if not _LIKE_A_COMMAND.fullmatch(full.rstrip()):
            return False
        self.post_message(self.UnknownCommand(found[1], _nearest(found[1], known)))
        return True

    async def _send_message(self, full: str) -> None:
        from tui.prompt.attach import Attached, attached

        text = full.rstrip().lstrip("\n")
        if self._mode == "write" and text.startswith("//"):
            text = text[1:]
        result = Attached(text)
        if "@" in text:
            result = await asyncio.to_thread(attached, text, self.root, self.sees_images, frozenset(self._completed))
        if result.problems:
            self.tell("\n".join(result.problems))
            return
        edited = self._mode == "edit"
        self._done(full)
        self.post_message(self.Sent(text, result, edited))

    def _done(self, full: str) -> None:
        """The text is on its way: remember it, and be empty again, or back at what was being written."""
        if self.history.add(full):
            self.run_worker(partial(self.history.save, full), thread=True, group="history", exit_on_error=False)
        if self._kept:
            self._come_back()
        else:
            self._area.put("")
        self._walk = self._shown_for = self._closed_at = None
        self._pastes.keep(self._area.text)
        self._completed.clear()


def _nearest(word: str, known: Sequence[str]) -> str | None:
    from agent.text.nearest import nearest

    return next((name for name in known if name.startswith(word)), None) or nearest(word, known)
