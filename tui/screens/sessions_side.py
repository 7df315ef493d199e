"""A screen with the panel of the sessions at its side."""

from __future__ import annotations

from typing import TYPE_CHECKING

from textual.screen import Screen

from agent.text import display
from tui.widgets.prompt.prompt import Prompt

if TYPE_CHECKING:
    from tui.screens.roles import Sprig
    from tui.widgets.sessions.panel import SessionsPanel

_BESIDE = 60  # columns from which there is room for the panel beside the conversation


class SessionsSide(Screen[None]):
    """What the panel wants is done here, by the talk.

    Attributes:
        sprig: the application that it belongs to.
        session, session_title: of the conversation; "" before its first message.
        busy: whether the agent works on a message.
    """

    def __init__(self, sprig: Sprig) -> None:
        super().__init__()
        self.sprig = sprig
        self.session = self.session_title = ""
        self.busy = False

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    def tell(self, text: str, *, kind: str = "note") -> None:
        """A word from Sprig that does not belong to the conversation. ``kind`` is note, warning or error."""
        severity = {"warning": "warning", "error": "error"}.get(kind, "information")
        self.notify(display(text, lines=True), severity=severity, markup=False, timeout=8)  # type: ignore[arg-type]

    def show_title(self) -> None:
        """The title has changed."""

    def action_new(self) -> None:
        if self.busy:
            self.tell("The agent is answering; Esc stops it, then a new conversation can begin.", kind="warning")
            return
        self.close_sessions(if_narrow=True)
        self.sprig.talk.load(None)
        self.prompt.focus()

    def action_sessions(self) -> None:
        if self.query("SessionsPanel"):
            self.close_sessions()
            self.prompt.focus()
        else:
            self.open_sessions()

    def open_sessions(self, search: str = "") -> None:
        from tui.widgets.sessions.panel import SessionsPanel

        panel = SessionsPanel(self.sprig.store(), current=self.session or None, search=search)
        self.query_one("#body").mount(panel, before=0)
        self.add_class("-sessions")
        self.call_after_refresh(panel.focus_list)

    def close_sessions(self, *, if_narrow: bool = False) -> None:
        if not if_narrow or self.size.width < _BESIDE:
            self.query("SessionsPanel").remove()
            self.remove_class("-sessions")

    def on_sessions_panel_open_wanted(self, event: SessionsPanel.OpenWanted) -> None:
        event.stop()
        if self.busy:
            self.tell("The agent is answering; Esc stops it, then another conversation can be opened.", kind="warning")
            return
        self.close_sessions(if_narrow=True)
        self.sprig.talk.load(event.session_id, event.message_id)
        if event.message_id is None:
            self.prompt.focus()

    def on_sessions_panel_new_wanted(self, event: SessionsPanel.NewWanted) -> None:
        event.stop()
        self.action_new()

    def on_sessions_panel_deleted(self, event: SessionsPanel.Deleted) -> None:
        event.stop()
        if event.session_id == self.session:
            self.sprig.talk.load(None)

    def on_sessions_panel_renamed(self, event: SessionsPanel.Renamed) -> None:
        event.stop()
        self.renamed(event.session_id, event.title)

    def on_sessions_panel_close_wanted(self, event: SessionsPanel.CloseWanted) -> None:
        event.stop()
        self.close_sessions()
        self.prompt.focus()

    def renamed(self, session: str, title: str) -> None:
        """A conversation has another title."""
        if session == self.session:
            self.session_title = title
            self.show_title()
