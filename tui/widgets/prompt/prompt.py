"""Where a person writes: the next message, a command, or an earlier message again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
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
from tui.prompt.along import LONG
from tui.prompt.history import Draft, History, Mode, Walk
from tui.prompt.pastes import Pastes
from tui.prompt.suggest import KnownCommand, Suggestion, meant, slash_word
from tui.widgets.prompt.area import PromptArea
from tui.widgets.prompt.suggestions import Suggestions

if TYPE_CHECKING:
    from tui.prompt.along import MessageSize
    from tui.prompt.attach import Attached

_NARROW = 60  # columns
_PAUSE = 0.3  # seconds without a key, then the files that are named are looked at
_KEPT = 16  # messages that can come back as they were written
# What the empty field says: where there is room, and where there is little.
_IDLE = ("Ask something, or / for commands", "Ask something, or /")
_BUSY = ("Type the next message; Esc stops the answer", "Next message; Esc stops")
_SEARCH = ("A word of it", "A word of it")
_KEYS: dict[Mode, str] = {
    "write": "",
    "edit": "Enter sends it as a new branch, Esc leaves",
    "search": "Enter takes one, Esc leaves",
}


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
        """A word like a command that does not exist, and the one that was perhaps meant; without slashes. The text stays."""

        def __init__(self, word: str, nearest: str | None) -> None:
            self.word, self.nearest = word, nearest
            super().__init__()

    class Problem(Message):
        """Why a text was not sent or not taken; a line for each reason. What was written stays."""

        def __init__(self, text: str) -> None:
            self.text = text
            super().__init__()

    class EndWanted(Message):
        """A person wants to leave the chat."""

    class EditLeft(Message):
        """An earlier message is not edited any more; what was written before is back."""

    def __init__(
        self,
        *,
        commands: Sequence[KnownCommand] = (),
        root: Path | None = None,
        history: History | None = None,
        weigh: Callable[[str], MessageSize | None] = lambda text: None,
    ) -> None:
        """
        Args:
            commands: (name, about, hint at its arguments).
            root: the folder that ``@`` starts from.
            history: what was sent before.
            weigh: how much of the context a text takes; called in a thread.
        """
        super().__init__()
        known = tuple((name.removeprefix("/"), about, hint) for name, about, hint in commands)
        self._names = [name for name, _, _ in known]
        self._root = Path.cwd() if root is None else root
        self._history = History() if history is None else history
        self.sees_images = False
        self._draft = Draft()
        self._pastes = Pastes()
        self._area = PromptArea(self, self._pastes)
        self._list = Suggestions(self._area, self._draft, known, self._root)
        self._heading = Static(markup=False, classes="title")
        self._heading.display = False
        self._completed: set[str] = set()  # paths that were taken from the list
        self._weigh = weigh
        self._along = Static(markup=False, classes="along")
        self._along.display = False
        self._look_timer: Timer | None = None
        self._written: dict[str, str] = {}  # what was sent -> as it was written, with its marks and its @

    def compose(self) -> ComposeResult:
        yield self._heading
        yield self._list
        yield self._along
        with Horizontal():
            yield Static(">", markup=False, classes="sign")
            yield self._area

    def on_mount(self) -> None:
        self.run_worker(self._history.load, thread=True, group="history", exit_on_error=False)
        self._say()

    @property
    def text(self) -> str:
        """What stands there, pasted texts as marks. Setting it puts the cursor at its end."""
        return self._area.text

    @text.setter
    def text(self, value: str) -> None:
        self._draft.walk = None
        self._area.fill(value)

    def written(self, sent: str) -> str:
        """A message that was sent, as it was written: pastes as marks, files by their names."""
        return self._written.get(sent, sent)

    def get_full(self) -> str:
        """What stands there, with pasted texts in full."""
        return self._pastes.expand(self._area.text)

    def focus(self, scroll_visible: bool = True) -> Self:
        self._area.focus(scroll_visible)
        return self

    # --- writing, editing, searching

    def focus_now(self) -> None:
        """Focus it before the next key is looked at."""
        self.screen.set_focus(self._area, scroll_visible=False)

    def end(self) -> bool:
        """Ask to leave, when nothing stands here; whether that was so."""
        empty = not self._area.text and self._draft.mode == "write"
        if empty:
            self.post_message(self.EndWanted())
        return empty

    def edit(self, text: str, title: str) -> None:
        """Edit an earlier message, "Editing message 3"; what is being written comes back afterwards."""
        while self._draft.covers:
            self._come_back()
        self._begin("edit", title)
        self._area.fill(text)
        self.focus()

    def search(self) -> None:
        """Look for something that was sent before; again, and it is the next one."""
        if self._draft.mode == "search":
            self._list.move(1)
            return
        query = self._area.text if self._draft.walk is None and "\n" not in self._area.text else ""
        self._begin("search", "Search what you sent")
        self._area.put(query)
        self._list.search(self._history.entries)

    def leave(self) -> bool:
        """Leave the search, close the list, or leave the edit, whichever comes first; whether there was one of these."""
        mode = self._draft.mode
        if mode != "search" and self._list.display:
            self._list.dismiss()
            return True
        if not self._draft.covers:
            return False
        self._come_back()
        if mode == "edit":
            self.post_message(self.EditLeft())
        return True

    def _begin(self, mode: Literal["edit", "search"], title: str) -> None:
        self._draft.begin(mode, title, self._area.text)
        self._list.close()
        self._say()

    def _come_back(self) -> None:
        text = self._draft.come_back()
        self._list.close()
        self._area.put(text)
        self._say()

    def tell(self, problem: str) -> None:
        """Say why something was not taken."""
        self.post_message(self.Problem(problem))

    def watch_busy(self) -> None:
        self._say()

    def on_resize(self, event: Resize) -> None:
        self._say()

    def _say(self) -> None:
        """Placeholder and title, as there is room."""
        narrow, mode = 0 < self.size.width < _NARROW, self._draft.mode
        self._area.placeholder = Content((_SEARCH if mode == "search" else _BUSY if self.busy else _IDLE)[narrow])
        self._heading.display = mode != "write"
        if mode != "write":
            self._heading.update(f"{display(self._draft.title)}: {'Esc leaves' if narrow else _KEYS[mode]}")

    @on(TextArea.Changed)
    @on(TextArea.SelectionChanged)
    def _moved(self, event: Message) -> None:
        event.stop()
        self._list.follow_soon()
        if isinstance(event, TextArea.Changed):
            self.look_soon()

    # --- what goes along

    def look_soon(self) -> None:
        """Say, after a pause in the typing, what goes along and whether it fits."""
        if self._look_timer is not None:
            self._look_timer.stop()
        self._look_timer = self.set_timer(_PAUSE, self._look) if self._may_be_much() else None
        if self._look_timer is None:
            self._along.display = False

    def _may_be_much(self) -> bool:
        return "@" in self._area.text or len(self.get_full()) >= LONG

    def _look(self) -> None:
        self.run_worker(self._look_at_files(), group="along", exclusive=True, exit_on_error=False)

    async def _look_at_files(self) -> None:
        from tui.prompt.along import along

        result = await self._attached(self.get_full())
        size = await self._size_of(result)
        if self._may_be_much() and (line := along(result, size)):
            self._along.update(line)
            self._along.set_class("!" in line, "-wrong")
            self._along.display = True
        else:
            self._along.display = False

    async def _attached(self, text: str) -> Attached:
        """The message with the files that it names."""
        from tui.prompt.attach import Attached, attached  # not part of the first paint

        if "@" not in text:
            return Attached(text)
        return await asyncio.to_thread(attached, text, self._root, self.sees_images, frozenset(self._completed))

    async def _size_of(self, message: Attached) -> MessageSize | None:
        """Of a message that may be too long; of others nobody asks."""
        return await asyncio.to_thread(self._weigh, message.text) if message.files or len(message.text) >= LONG else None

    # --- the list

    @on(Suggestions.Taken)
    def _clicked(self, event: Suggestions.Taken) -> None:
        event.stop()
        if self._list.chosen is not None:
            self._take(self._list.chosen)
        self.focus()

    def complete(self) -> bool:
        """Take what is chosen in the list; whether there was a list."""
        self._list.follow()
        chosen = self._list.chosen
        if not self._list.display or chosen is None:
            return False
        self._take(chosen)
        return True

    def _take(self, item: Suggestion) -> None:
        if self._draft.mode == "search":
            self._come_back()
            self._area.fill(item.value)
        elif (path := self._list.insert(item)) is not None:
            self._completed.add(path)

    # --- the history

    def step(self, by: int) -> bool:
        """Choose another line of the list, or walk through the history; whether the key is used up."""
        self._list.follow()
        if self._list.display:
            self._list.move(by)
            return True
        if self._draft.mode == "search" or not self._area.at_edge(by):
            return False
        return self._walk(by)

    def _walk(self, by: int) -> bool:
        walk = self._draft.walk
        if walk is None:
            if by > 0 or not self._history.entries:
                return False
            walk = self._draft.walk = Walk(self._history, self._area.text)
        if walk.move(by):
            wrapped = "\n" in walk.text or len(walk.text) >= self._area.wrap_width
            # So that the next press of the same key goes on walking.
            self._area.fill(walk.text, at_start=by < 0 and wrapped)
            if walk.at_draft:
                self._draft.walk = None
        return True

    # --- sending

    async def send(self) -> None:
        """Take what is chosen in the list; otherwise send the text, or have the command carried out."""
        self._list.follow()
        if chosen := self._list.untaken:
            self._take(chosen)
            if not chosen.final:
                return
        if self._draft.mode == "search" or self._area.continue_line():
            return
        full = self.get_full()
        word = slash_word(full, self._names) if self._draft.mode == "write" else None
        if word is None:
            if full.strip():
                await self._send_message(full)
        elif word in self._names:
            self._done(full)
            self.post_message(self.CommandGiven(full.strip()))
        else:
            self.post_message(self.UnknownCommand(word, meant(word, self._names)))

    async def _send_message(self, full: str) -> None:
        text = full.rstrip().lstrip("\n")
        if self._draft.mode == "write" and text.startswith("//"):
            text = text[1:]
        result = await self._attached(text)
        if result.problems:
            self.tell("\n".join(result.problems))
            return
        size = await self._size_of(result)
        if size is not None and not size.fits:
            from tui.prompt.along import too_long

            self.tell(too_long(size, len(result.files)))
            return
        self._written[result.text] = self._area.text
        if len(self._written) > _KEPT:
            del self._written[next(iter(self._written))]
        edited = self._draft.mode == "edit"
        self._done(full)
        self.post_message(self.Sent(text, result, edited))

    def _done(self, full: str) -> None:
        """The text is on its way: remember it, and be empty again, or back at what was being written."""
        if self._history.add(full):
            self.run_worker(partial(self._history.save, full), thread=True, group="history", exit_on_error=False)
        if self._draft.covers:
            self._come_back()
        else:
            self._area.put("")
        self._draft.walk = None
        self._list.reset()
        self._pastes.keep(self._area.text, *self._written.values())
        self._completed.clear()
