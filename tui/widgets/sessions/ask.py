"""What is asked about one session, laid over its row: a question with a key for each answer, or a title to be typed.

To turn to something else means no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from textual import events
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.message import Message
from textual.widget import Widget
from textual.widgets import Input


class SessionAnswered(Message):
    """``answer`` is the key of what was chosen, or the title that was typed; empty for none."""

    def __init__(self, answer: str) -> None:
        self.answer = answer
        super().__init__()


class _Asks(Widget):
    """Gives one answer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "answer('')", "Back", show=False)]
    _over = False

    def on_blur(self) -> None:
        # The keyboard went to another widget, and not with the whole terminal to another window.
        if self.is_attached and self.app.app_focus:
            self.action_answer("")

    def action_answer(self, answer: str) -> None:
        if not self._over:
            self._over = True
            self.post_message(SessionAnswered(" ".join(answer.split())))


class SessionAsk(_Asks, can_focus=True):
    """A question. Its keys answer it, so does a click."""

    def __init__(self, question: str, choices: Sequence[tuple[str, str]], *, grave: bool = False) -> None:
        """``question`` is safe to show; ``choices`` are (key, label); ``grave`` where something would be lost."""
        super().__init__(classes="-grave" if grave else "")
        self._question, self._choices = question, tuple(choices)

    def render(self) -> Content:
        parts = [Content.from_markup(f"[@click=answer('{key}')][b u]{key}[/] {label}[/]") for key, label in self._choices]
        return Content("\n").join([Content(self._question), Content("   ").join(parts)])

    def on_key(self, event: events.Key) -> None:
        if event.key in [key for key, _ in self._choices]:
            event.stop()
            self.action_answer(event.key)


class SessionTitle(Input, _Asks):
    """The title of a session, to be changed. Enter keeps it, Esc does not."""

    def __init__(self, title: str) -> None:
        super().__init__(title, placeholder="Title", max_length=200, compact=True)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        event.stop()
        self.action_answer(self.value)

    def on_input_changed(self, event: Input.Changed) -> None:
        event.stop()
