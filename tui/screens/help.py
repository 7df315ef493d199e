"""The help: every key as it is now, every command, and how keys are changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from textwrap import wrap
from typing import ClassVar

from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Static

from agent.text import display
from tui.actions import Action, actions
from tui.prompt.suggest import KnownCommand
from tui.screens.dialog import BACK, Dialog, KeyHint

_WIDE = 72  # columns from which ids stand beside the keys
# These keys cannot be changed: a wrong key could run a command.
APPROVAL = (
    ("y, 1", "Yes, once"), ("s, 2", "Yes, for this session"), ("a, 3", "Yes, always for this pattern"), ("n, 4", "No"),
    ("w, 5", "No, with a word to the model"),
)  # fmt: skip
_KEYS, _FEW_KEYS, _ABOUT, _SAID = 24, 11, 30, 36  # columns


class HelpScreen(Dialog[None]):
    """All keys and commands. Arrows scroll; ``k`` shows the names that the settings know the actions by."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "names", "Names", show=False),
        Binding("enter,q,f1", "leave", "Back", show=False),
    ]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("↑↓", "scroll", ""), ("k", "names", "names"), BACK)

    def __init__(self, commands: Sequence[KnownCommand], keys: Mapping[str, str], settings_path: Path) -> None:
        """``keys`` are those of the settings: id of an action -> "key,key"."""
        super().__init__("Keys and commands")
        self._commands, self._given, self._settings_path = commands, keys, settings_path
        self._names: bool | None = None  # as the width says

    def parts(self) -> Iterable[Widget]:
        with VerticalScroll():
            yield Static(id="text")

    def on_resize(self) -> None:
        self.call_after_refresh(self._show)

    def action_names(self) -> None:
        self._names = not self._with_names
        self._show()

    @property
    def _with_names(self) -> bool:
        return self.query_one(VerticalScroll).size.width > _WIDE if self._names is None else self._names

    def _show(self) -> None:
        width = self.query_one(VerticalScroll).size.width - 1
        lines = [
            *_keys(actions(self._given), self._with_names, width),
            *_command_lines(self._commands, width),
            *_remap(str(self._settings_path)),
        ]
        self.query_one("#text", Static).update(Content("\n").join(lines))


def _keys(found: list[Action], names: bool, width: int) -> Iterator[Content]:
    for group, members in groupby(found, key=lambda action: action.group):
        yield Content.styled(group, "bold $text-accent")
        for action in members:
            yield _line(action.shown, action.about, action.id if names else "", width)
        yield Content("")
    yield Content.styled("Questions about a tool", "bold $text-accent")
    for key, about in APPROVAL:
        yield _line(key, about, "", width)
    yield Content("")


def _line(key: str, about: str, name: str, width: int) -> Content:
    """A key and what it does, in columns; with ``name`` beside it, or below where there is no room beside."""
    wide = width >= _WIDE
    column = _KEYS if wide else _FEW_KEYS
    first = Content.assemble("  ", (f"{display(key):<{column}}", "bold"))
    if len(key) >= column:
        first = Content.assemble(first, "\n", " " * (column + 2))
    indent = "\n" + " " * (column + 2)
    text = f"{about:<{_ABOUT}}  " if wide and name else indent.join(wrap(about, max(10, width - column - 2)))
    return Content.assemble(first, text, ("" if wide or not name else indent, ""), (name, "$text-muted"))


def _command_lines(commands: Sequence[KnownCommand], width: int) -> Iterator[Content]:
    yield Content.styled("Commands, written in the prompt", "bold $text-accent")
    for name, about, hint in commands:
        said = f"/{name} {hint}".rstrip()
        if width >= _WIDE:
            yield Content.assemble("  ", (f"{said:<{_SAID}}", "bold"), about)
        else:
            yield Content.assemble("  ", (said, "bold"), "\n    ", "\n    ".join(wrap(about, max(10, width - 4))))
    yield Content("")


def _remap(path: str) -> Iterator[Content]:
    yield Content.styled("Other keys", "bold $text-accent")
    yield Content(f"Below [keys] in {display(path)}, by the names that k shows:")
    yield Content('  chat.new = "ctrl+n,f2"')
