"""One tool call as it lives: it forms, waits for approval, runs, and has a result."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from rich.cells import cell_len
from textual.app import ComposeResult, RenderResult
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Static

from agent.messages import ToolCall
from agent.sessions.records import StoredMessage
from agent.text import display
from agent.text.result_words import bare_result
from tui.widgets.folding import Folded, fit, fold
from tui.widgets.messages.diff import DiffView

CallState = Literal["forming", "ready", "waiting", "running", "done", "failed", "refused"]

_MARKS: dict[CallState, str] = {
    "forming": "…", "ready": "…", "waiting": "?", "running": ">", "done": "✓", "failed": "✗", "refused": "-",
}  # fmt: skip
_TICK = 0.5  # seconds; slow enough to cost nothing
_OPENED = (400, 20_000)  # lines and characters of a text that is opened; the session keeps all of it
_FORMING = 160  # characters of a call that is being written
_NOT_ALLOWED = ("error: not allowed", "error: the user said no")  # how the agent tells a model that a person said no
_MAIN = ("command", "path", "file", "url", "query", "text", "expression", "sql", "name", "topic")
_PATHS = frozenset({"path", "file"})  # of these the end says more than the beginning
_PRETTY = 4_000  # characters of JSON that are laid out on lines
_FIELD = 100_000  # characters of a value that is written as JSON only to be folded
_INTERRUPTED = "interrupted: there is no result"


class _Title(Widget):
    """One line: mark, name, main argument, time. It is cut to the width, the time never."""

    def __init__(self, owner: ToolCallView) -> None:
        super().__init__(classes="title")
        self._owner = owner

    def render(self) -> RenderResult:
        return self._owner.title_line(self.content_size.width)


class ToolCallView(Widget, can_focus=True):
    """A tool call. Enter, Space or a click opens what is folded, and folds it again.

    Attributes:
        state: how far it has come.
        opened: whether everything is shown that there is.
    """

    FOCUS_ON_CLICK = False
    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "fold", "Open or fold", id="call.fold")]
    COMPONENT_CLASSES: ClassVar[set[str]] = {"call--mark", "call--name", "call--quiet"}

    def __init__(self, name: str = "", *, fold_after: int = 6) -> None:
        super().__init__()
        self._tool, self._fold_after = name, fold_after
        self.state: CallState = "forming"
        self._raw = self._result = self._progress = ""
        self._arguments: Mapping[str, Any] = {}
        self._data: Any = None
        self._cut = 0
        self._seconds, self._began = 0.0, 0.0
        self.opened = self._title_only = False
        self._timer: Timer | None = None
        self._dots = 0

    @classmethod
    def of(cls, call: ToolCall, stored: StoredMessage | None, *, fold_after: int = 6) -> Self:
        """A call that is over: ``stored`` is its result, None when it never came to one."""
        view = cls(call.name, fold_after=fold_after)
        view._arguments = call.arguments
        if stored is None:
            view.state, view._result = "refused", _INTERRUPTED
            return view
        ok, text = stored.ok is not False, bare_result(stored.message.text)
        refused = not ok and text.startswith(_NOT_ALLOWED)
        view.state = "done" if ok else "refused" if refused else "failed"
        view._result, view._data, view._seconds = text, stored.data, stored.seconds or 0.0
        return view

    def compose(self) -> ComposeResult:
        yield _Title(self)
        yield Static("", markup=False, classes="arguments")
        yield Static("", markup=False, classes="result")
        diff, cut = _diff_of(self._data)
        if diff:
            yield DiffView(diff, fold_after=2 * self._fold_after, cut=cut)

    def on_mount(self) -> None:
        self._show()

    # Its life.

    def forming(self, name: str, text: str) -> None:
        """The model is writing it; ``text`` is what there is of the arguments, raw."""
        self._tool, self._raw = name or self._tool, text
        if self.is_mounted:
            self._show()

    def ready(self, call: ToolCall) -> None:
        self._tool, self._arguments, self._raw = call.name, call.arguments, ""
        self.become("ready")

    def progress(self, text: str) -> None:
        """A word of the running tool."""
        self._progress = text
        self.become("running")

    def done(self, ok: bool, text: str, seconds: float = 0.0, cut: int = 0, data: Any = None) -> None:
        self._result, self._seconds, self._cut, self._data = text, seconds, cut, data
        self.become("done" if ok else "failed")
        diff, left = _diff_of(data)
        if diff and self.is_mounted:
            self.mount(DiffView(diff, fold_after=2 * self._fold_after, cut=left))

    def refused(self, why: str) -> None:
        """It will not run."""
        self._result = why
        self.become("refused")

    def become(self, state: CallState) -> None:
        """It is in another state, of which there is no more to say."""
        if state == "running" and self.state != "running":
            self._began = time.monotonic()
        self.state = state
        if self.is_mounted:
            self._show()

    # What a person does.

    @property
    def copy_text(self) -> str:
        """The call and its whole result, as they are."""
        arguments = "\n".join(f"{name}: {_value_text(value)}" for name, value in self._arguments.items()) or self._raw
        return "\n\n".join(part for part in (f"{self._tool}\n{arguments}".strip(), self._result) if part)

    def action_fold(self) -> None:
        """Open what is folded; when nothing is, leave only the title; then again as it was."""
        if self.opened or self._title_only:
            self.opened = self._title_only = False
        elif self._folds():
            self.opened = True
        else:
            self._title_only = True
        self._show()

    def on_click(self) -> None:
        if self.text_selection is None:
            self.action_fold()

    def on_resize(self) -> None:
        if self._arguments:
            self._show_arguments()  # which of them the title says depends on the width

    # What is seen.

    def title_line(self, width: int) -> Content:
        """The title in ``width`` cells."""
        end = self._time()
        room = width - cell_len(end) - (1 if end else 0)
        name = fit(self._tool or "a tool call", max(4, room - 2))
        parts = [(_MARKS[self.state], ".call--mark"), (" ", ""), (name, ".call--name")]
        room -= 2 + cell_len(name)
        main = main_argument(self._arguments)
        if main and room > 4:
            value = _value_text(self._arguments[main])
            shown = fit(value, room - 1, keep_end=main in _PATHS)
            parts.append((" " + shown, ""))
            room -= 1 + cell_len(shown)
        if end:
            parts.append((" " * max(1, room + 1) + end, ".call--quiet"))
        return Content.assemble(*parts)

    def _time(self) -> str:
        match self.state:
            case "running":
                dots = "." * (self._dots % 4)
                passed = time.monotonic() - self._began
                return f"{dots:<3} {passed:.0f} s" if passed >= 1 else f"{dots:<3}"
            case "waiting":
                return "asks you"
            case "refused":
                return "did not run" if self._result != _INTERRUPTED else "interrupted"
            case _:
                return duration(self._seconds) if self._seconds > 0.1 else ""

    def _show(self) -> None:
        for state in _MARKS:
            self.set_class(state == self.state, f"-{state}")
        self._spin()
        self.query_one(_Title).refresh()
        self._show_arguments()
        self._show_result()
        for diff in self.query(DiffView):
            diff.display = not self._title_only
            if diff.opened != self.opened:
                diff.opened = self.opened

    def _spin(self) -> None:
        if self.state == "running" and self._timer is None:
            self._timer = self.set_interval(_TICK if self._moves else 1.0, self._tick)
        elif self.state != "running" and self._timer is not None:
            self._timer.stop()
            self._timer = None

    @property
    def _moves(self) -> bool:
        return self.app.animation_level != "none"

    def _tick(self) -> None:
        self._dots += self._moves
        self.query_one(_Title).refresh()

    def _show_arguments(self) -> None:
        if self.state == "forming":
            text = ("… " if len(self._raw) > _FORMING else "") + display(self._raw[-_FORMING:])
        else:
            text = "\n".join(self._argument(name, _value_text(value)) for name, value in self._listed())
        self._put(".arguments", text)

    def _listed(self) -> list[tuple[str, Any]]:
        """The arguments that are listed: until it is opened, without what the title or the diff says already."""
        items = list(self._arguments.items())
        if self.opened:
            return items
        main = main_argument(self._arguments)
        said = {main} if main and self._in_title(_value_text(self._arguments[main])) else set()
        return [(name, value) for name, value in items if name not in said | self._in_diff()]

    def _in_diff(self) -> set[str]:
        return {"content", "old", "new"} & set(self._arguments) if _diff_of(self._data)[0] else set()

    def _in_title(self, value: str) -> bool:
        room = self.size.width - cell_len(self._tool) - 14
        return "\n" not in value and len(value) <= max(0, room) and cell_len(value) <= room

    def _argument(self, name: str, value: str) -> str:
        folded = self._fold(value, 60)
        lead = "\n  " if "\n" in folded.text else " "
        more = f"\n  … {folded.more}" if folded.more else ""
        return f"{display(name)}:{lead}{folded.text.replace(chr(10), chr(10) + '  ')}{more}"

    def _fold(self, text: str, wide: int) -> Folded:
        """A text as much as is shown of it; ``wide`` is what a line of it may hold in a folded one."""
        lines, characters = _OPENED if self.opened else (self._fold_after, wide * max(2, self._fold_after))
        return fold(text, lines, characters)

    def _show_result(self) -> None:
        self._put(".result", "\n".join(self._said()))

    def _said(self) -> list[str]:
        if self.state == "running":
            return [display(self._progress[:200])] if self._progress else []
        if not self._result:
            return []
        folded = self._fold(_result_text(self._result), 80)
        parts = [folded.text]
        if folded.more:
            parts.append(f"… {folded.more}" + ("" if self.opened else " (Enter opens)"))
        if self._cut:
            parts.append(f"{self._cut:,} characters were cut")
        return parts

    def _folds(self) -> bool:
        """Whether opening it would show more."""
        texts = [(_value_text(value), 60) for value in self._arguments.values()] + [(_result_text(self._result), 80)]
        hidden = any(self._fold(text, wide).more for text, wide in texts)
        return hidden or bool(self._in_diff()) or any(diff.folds for diff in self.query(DiffView))

    def _put(self, where: str, text: str) -> None:
        """Lay the screen out anew only when the height may differ: a call that forms comes here eight times a second."""
        static = self.query_one(where, Static)
        if not text or self._title_only:
            static.display = False
            return
        content = Content(text)
        width, height = static.content_size
        same = static.display and width and height == content.get_height({}, width)
        static.display = True
        static.update(content, layout=not same)


def _value_text(value: Any) -> str:
    """A JSON value as text: a string as it is."""
    if isinstance(value, str):
        return value
    try:
        return json.dumps(value, ensure_ascii=False, default=str)[:_FIELD]
    except (ValueError, RecursionError):
        return "(a value that cannot be written down)"


def main_argument(arguments: Mapping[str, Any]) -> str:
    """The name of the argument that says most of a call: by name, else the first short one; empty when there is none."""
    for name in _MAIN:
        if isinstance(arguments.get(name), str) and arguments[name]:
            return name
    short = (k for k, v in arguments.items() if isinstance(v, int | float) or (isinstance(v, str) and 0 < len(v) <= 200))
    return next(short, "")


def _result_text(text: str) -> str:
    """A result as it is read: small JSON on several lines, everything else as it is."""
    if len(text) > _PRETTY or text.lstrip()[:1] not in ("{", "["):
        return text
    try:
        pretty = json.dumps(json.loads(text), ensure_ascii=False, indent=2)
    except (ValueError, RecursionError):
        return text
    return pretty if len(pretty) <= 3 * _PRETTY else text


def _diff_of(data: Any) -> tuple[str, int]:
    """The diff that a tool gave with its result, and how many lines of it were left out; empty when there is none."""
    if not isinstance(data, Mapping) or not isinstance(data.get("diff"), str):
        return "", 0
    cut = data.get("diff_cut", 0)
    return data["diff"], cut if isinstance(cut, int) and cut > 0 else 0


def duration(seconds: float) -> str:
    """Seconds in few letters."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes = round(seconds) // 60
    return f"{minutes} min {round(seconds) % 60} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
