"""What is asked about one session, laid over its row: a question with a key for each answer, or a title to be typed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input


class SessionAsk(Widget, can_focus=True):
    """A question. Its keys answer it, so does a click; Esc, or to turn to something else, means no answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "answer('')", "Back", show=False)]

    class Answered(Message):
        """``answer`` is the key of what was chosen; empty for none."""

        def __init__(self, answer: str) -> None:
            self.answer = answer
            super().__init__()

    def __init__(self, question: str, choices: Sequence[tuple[str, str]], *, grave: bool = False) -> None:
        """``question`` is safe to show; ``choices`` are (key, label); ``grave`` where something would be lost."""
        super().__init__(classes="-grave" if grave else "")
        self._question, self._choices, self._over = question, tuple(choices), False

    def render(self) -> Content:
        parts = [Content.from_markup(f"[@click=answer('{key}')][b u]{key}[/] {label}[/]") for key, label in self._choices]
        return Content("\n").join([Content(self._question), Content("   ").join(parts)])

    def on_key(self, event: events.Key) -> None:
        if event.key in [key for key, _ in self._choices]:
            event.stop()
            self.action_answer(event.key)

    def on_blur(self) -> None:
        if _turned_away(self):
            self.action_answer("")

    def action_answer(self, answer: str) -> None:
        if not self._over:
            self._over = True
            self.post_message(self.Answered(answer))


class SessionTitle(Input):
    """The title of a session, to be changed. Enter keeps it, Esc does not."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Back", show=False)]

    class Named(Message):
        """``title`` is what was typed; empty to leave it as it was."""

        def __init__(self, title: str) -> None:
            self.title = title
            super().__init__()

    def __init__(self, title: str) -> None:
        super().__init__(title, placeholder="Title", max_length=200, compact=True)
        self._over = False

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self._end(self.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()

    def on_blur(self) -> None:
        if _turned_away(self):
            self._end("")

    def action_leave(self) -> None:
        self._end("")

    def _end(self, title: str) -> None:
        if not self._over:
            self._over = True
            self.post_message(self.Named(" ".join(title.split())))


def _turned_away(widget: Widget) -> bool:
    """Whether a widget lost the keyboard to another one, and not the whole terminal to another window."""
    return widget.is_attached and widget.app.app_focus
