"""Which model? A list of what there is and whether it fits, the last conversation first; or another file, or one of the Hub."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from textual import on, work
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from agent.errors import SprigError
from agent.files import human_size
from agent.models.choices import ModelChoice
from agent.models.demo import HOW_TO_GET, TITLE
from agent.text import display
from tui.offers import LastTalk, look, named, on_the_hub, why_not
from tui.screens.dialog import BACK, Dialog, KeyHint

if TYPE_CHECKING:
    from pathlib import Path

    from agent.models.reference import HubReference
    from agent.sessions.store import Store

PickerRow = LastTalk | ModelChoice | None  # None stands for a file elsewhere, or on the Hub
_ONE_LINE = 104  # columns from which a model takes one line
_FEW = 60  # columns below which words are left out
_NAME_MOST = 200
_NOTHING = f"""\
No model is here yet. Type the name of one on the Hub, and it is pulled:
  Qwen/Qwen3-0.6B-GGUF

Or make one, here or on a larger machine:
  sprig quantize HuggingFaceTB/SmolLM2-360M-Instruct -q Q4_0

A small demo model comes with:
  {HOW_TO_GET}

Then press Ctrl+R to look again. Or type where a GGUF file is."""


@dataclass(frozen=True, slots=True)
class Picked:
    """A model's file, and the session to go on with ("" for the present one)."""

    model: str
    session: str = ""


class PickerScreen(Dialog[Picked]):
    """Asks which model. The keys go to one of two lines: a filter over the list, or a file's path or name on the Hub."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
        Binding("ctrl+r", "look", "Look again", show=False),
    ]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "move", ""), ("Enter", "choose", "choose"), BACK)
    _PATH_KEYS: ClassVar[tuple[KeyHint, ...]] = (("Enter", "open", "choose"), ("^R", "look again", "look"), BACK)

    def __init__(self, store: Callable[[], Store] | None = None, session: str | None = None) -> None:
        """
        Args:
            store: opens the sessions, so that a conversation is offered too; None leaves conversations out.
            session: id of the conversation to offer; by default the last one.
        """
        super().__init__("Which model?")
        self._store, self._session = store, session
        self._rows: list[PickerRow] = []  # all there is
        self._shown: list[PickerRow] = []  # that the filter lets pass

    def parts(self) -> Iterable[Widget]:
        yield Input(placeholder="type to filter", id="filter", compact=True)
        options = OptionList(markup=False)
        options.can_focus = False
        yield options
        with VerticalScroll(id="nothing", can_focus=False):
            yield Static(_NOTHING, markup=False)
        yield Input(placeholder="path of a GGUF file, or org/name", id="path", compact=True)
        yield Static("looking …", id="about", markup=False)

    def on_mount(self) -> None:
        self._show_list(True)
        self.query_one("#nothing").display = False
        self.action_look()

    # What there is.

    @work(exclusive=True, group="look")
    async def action_look(self) -> None:
        """Look for models, behind the screen."""
        found = await asyncio.to_thread(look, self._store, self._session)
        self._rows = [*found, None]
        self.query_one("#nothing").display = not found
        if found:
            self._show_list(True)
            self._fill()
        else:
            self._show_list(False)
            self.say("")

    def _fill(self, at: int | None = 0) -> None:
        """Show the rows that the filter lets pass, the cursor on the one at ``at`` or on the first."""
        options, words = self.query_one(OptionList), self._filter.value.lower().split()
        self._shown = [row for row in self._rows if row is None or all(word in _searched(row) for word in words)]
        options.styles.max_height = self.list_height(15)
        # The scrollbar takes a column.
        width = self.query_one("#dialog").content_size.width - 1
        options.set_options([Option(_row_content(row, width)) for row in self._shown])
        options.highlighted = at if at is not None and at < len(self._shown) else 0

    def on_resize(self) -> None:
        if self._rows:
            self.call_after_refresh(self._fill, self.query_one(OptionList).highlighted)

    @on(Input.Changed, "#filter")
    def _filtered(self) -> None:
        if self._rows:
            self._fill()

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        if event.option_index < len(self._shown):
            self.say(_about(self._shown[event.option_index]))

    # A choice.

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        row = self._shown[event.option_index]
        if row is None:
            if "/" in self._filter.value:  # a path or a name of the Hub was typed already
                self._path.value, self._filter.value = self._filter.value, ""
                self._path.cursor_position = len(self._path.value)
            self._show_list(False)
            self.say(_about(row))
        elif isinstance(row, LastTalk):
            self.dismiss(Picked(str(row.model.path), row.session))
        elif row.fits:
            self.dismiss(Picked(str(row.path)))
        else:
            self.say(_about(row), wrong=True)

    @on(Input.Submitted)
    def action_choose(self) -> None:
        if self._path.display:
            self._check(self._path.value)
        else:
            self.query_one(OptionList).action_select()

    @work(exclusive=True, group="check")
    async def _check(self, text: str) -> None:
        self.say("looking at it …")
        if (reference := await asyncio.to_thread(on_the_hub, text)) is not None:
            self._pull(reference)
            return
        try:
            found = await asyncio.to_thread(named, text)
        except SprigError as e:
            self.say(display(str(e)), wrong=True)
        else:
            self.dismiss(Picked(str(found.path)))

    def _pull(self, reference: HubReference) -> None:
        from tui.screens.pull import PullScreen

        def pulled(path: Path | None) -> None:
            self.say("")
            if path is not None:
                self._check(str(path))

        self.app.push_screen(PullScreen(reference), pulled)

    @on(Input.Changed, "#path")
    def _typed(self) -> None:
        self.say("")

    # Which of the two is there.

    @property
    def _filter(self) -> Input:
        return self.query_one("#filter", Input)

    @property
    def _path(self) -> Input:
        return self.query_one("#path", Input)

    def _show_list(self, shown: bool) -> None:
        self._filter.display = self.query_one(OptionList).display = shown
        self._path.display = not shown
        (self._filter if shown else self._path).focus()
        self.say_keys(self.KEYS if shown else self._PATH_KEYS)

    def action_move(self, how: str) -> None:
        if not self._path.display:
            getattr(self.query_one(OptionList), f"action_{how}")()

    def action_leave(self) -> None:
        if self._path.display and len(self._rows) > 1:
            self._show_list(True)
            self._fill()
        else:
            self.dismiss(None)


def _row_content(row: PickerRow, width: int) -> Content:
    """A row for so many columns: one line, or two where they are few."""
    if row is None:
        return Content("  Another file, or one of the Hub …")
    if isinstance(row, LastTalk):
        return _last(row, width)
    shade = "" if row.fits else "dim"
    name = Content.assemble("  ", (_shown_name(row), shade or "bold"), (_notes(row), shade))
    verdict, kind, size, context, need, speed = _facts(row)
    if width < _FEW:
        return Content("\n").join([name, Content.styled(f"  {_short_facts(row)}", shade)])
    if width < _ONE_LINE:
        facts = " · ".join(part for part in (verdict, kind, size, context, need, speed) if part)
        return Content("\n").join([name, Content.styled(f"  {facts}", shade)])
    table = f"{kind[:8]:<8} {size:>9}  {context:<13} {need:<15} {speed:<9} {verdict:<12}"
    return Content.assemble(name.truncate(width - len(table) - 2, ellipsis=True, pad=True), "  ", (table, shade))


def _last(row: LastTalk, width: int) -> Content:
    title = display(" ".join(row.title[:_NAME_MOST].split())) or "Untitled"
    model = _shown_name(row.model)
    if width < _ONE_LINE:
        return Content("\n").join([Content.assemble("  ", (f"Go on: {title}", "bold")), Content(f"  {model}")])
    room = max(10, width - len(model) - 5)
    first = Content.styled(f"Go on: {title}", "bold").truncate(room, ellipsis=True)
    return Content.assemble("  ", first, f" · {model}")


def _facts(model: ModelChoice) -> tuple[str, str, str, str, str, str]:
    """Verdict, quantization, size, context, memory, speed; "" for what is not known."""
    verdict = "✓ fits" if model.fits else "✗ too large" if model.need else "✗ not usable"
    context = _tokens(model.context or model.trained)
    need = f"{human_size(model.need)} memory" if model.need else ""
    return verdict, model.type, human_size(model.size), f"{context} context" if context else "", need, _speed(model)


def _short_facts(model: ModelChoice) -> str:
    """The same without the words, for a phone; what it means stands below the list."""
    verdict, kind, size, _, _, speed = _facts(model)
    if not model.fits:
        return " · ".join(part for part in (verdict, kind, size) if part)
    room = f"✓ {kind} · {size} · {_tokens(model.context)} · {human_size(model.need)} RAM"
    return f"{room} · {speed}" if speed else room


def _speed(model: ModelChoice) -> str:
    """Tokens a second, where they can be told."""
    return "" if not model.writes else f"~{model.writes:.0f}/s" if model.writes >= 9.5 else f"~{model.writes:.1f}/s"


def _tokens(n: int) -> str:
    return "" if not n else f"{n // 1024}k" if n % 1024 == 0 else f"{n:,}"


def _notes(model: ModelChoice) -> str:
    words = (["demo, comes with Sprig"] if model.demo else []) + (["used last"] if model.last else [])
    return "".join(f" · {word}" for word in words)


def _shown_name(model: ModelChoice) -> str:
    """What a person calls it, safe to show."""
    return TITLE if model.demo else display(model.name[:_NAME_MOST])


def _about(row: PickerRow) -> str:
    """All about a row in a sentence or two, safe to show."""
    if row is None:
        return "Type the path of a GGUF file, or a name on the Hub: org/name-GGUF, or org/name-GGUF:Q4_K_M."
    if isinstance(row, LastTalk):
        return f"Opens this conversation again, with {_shown_name(row.model)}."
    if not row.fits:
        return f"{_shown_name(row)}: {display(why_not(row))}"
    title = f"{display(row.title[:_NAME_MOST])}: " if row.title else ""
    fast = f" It writes about {_speed(row)[1:-2]} tokens a second." if row.writes else ""
    return f"{title}takes {human_size(row.need)} of memory with a context of {row.context:,} tokens.{fast}"


def _searched(row: PickerRow) -> str:
    """The text that a filter looks in."""
    if row is None:
        return ""
    if isinstance(row, LastTalk):
        return f"go on {row.title} {row.model.name}".lower()
    return f"{row.name} {row.title} {row.type} {_notes(row)}".lower()
