"""The chat: a conversation, where a person writes, and a line about the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.binding import Binding, BindingType
from textual.message import Message

from tui.screens.chat_view import ChatView
from tui.widgets.prompt.prompt import Prompt
from tui.widgets.status_line import StatusLine

if TYPE_CHECKING:
    from tui.screens.chat_messages import ChatMessages
    from tui.screens.chat_notes import ChatNotes
    from tui.widgets.approval.question import ApprovalView
    from tui.widgets.messages.answer_text import AnswerText
    from tui.widgets.messages.entry import EntryView
    from tui.widgets.messages.notice import Notice
    from tui.widgets.sessions.panel import SessionsPanel

_BESIDE = 60  # columns from which there is room for the panel of the sessions beside the conversation


@dataclass
class NotesArrived(Message):
    """What happened since the last ones."""

    notes: Sequence[Any]


class ChatScreen(ChatView):
    """Does what keys and messages ask for, itself or by the talk. What it gets goes no further: nobody above asks for it."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Stop", id="chat.stop", show=False),
        Binding("ctrl+o", "sessions", "Sessions", id="chat.sessions"),
        Binding("ctrl+n", "new", "New", id="chat.new"),
        Binding("ctrl+l", "app.pick_model", "Model", id="chat.model"),
        Binding("ctrl+t", "thinking", "Thinking", id="chat.thinking", show=False),
        Binding("ctrl+g", "again", "Again", id="chat.again", show=False),
        Binding("alt+c", "copy_answer", "Copy", id="chat.copy", show=False),
        Binding("alt+e", "command('/editor')", "Editor", id="chat.editor", show=False),
        Binding("ctrl+up,alt+up", "messages", "Messages", id="chat.messages", show=False),
        Binding("pageup", "scroll(-1)", "Page up", id="chat.page_up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "Page down", id="chat.page_down", show=False, priority=True),
        Binding("alt+v", "app.voice", "Voice", id="chat.voice", show=False),
        Binding("f1", "command('/help')", "Help", id="chat.help"),
    ]

    # What the first paint does not need is loaded when it is first wanted.

    @cached_property
    def notes(self) -> ChatNotes:
        """Shows what the agent tells."""
        from tui.screens.chat_notes import ChatNotes

        return ChatNotes(self)

    @cached_property
    def messages(self) -> ChatMessages:
        """What can be done with messages."""
        from tui.screens.chat_messages import ChatMessages

        return ChatMessages(self)

    # What a person says.

    @on(Prompt.Sent)
    async def _sent(self, event: Prompt.Sent) -> None:
        self.sprig.settle_voice()
        text, edited = event.attached.text, self.edited
        self.edited = None
        if event.edited and edited is not None:
            self.start()
            self.sprig.talk.edit(edited[0], text)
        else:
            await self.send(text)

    @on(Prompt.CommandGiven)
    async def _command(self, event: Prompt.CommandGiven) -> None:
        await self.sprig.run_command(event.text)

    @on(Prompt.UnknownCommand)
    def _no_command(self, event: Prompt.UnknownCommand) -> None:
        nearest = f"; did you mean /{event.nearest}?" if event.nearest else "; / lists them all"
        self.tell(f"There is no command /{event.word}{nearest}", kind="warning")

    @on(Prompt.Problem)
    def _prompt_problem(self, event: Prompt.Problem) -> None:
        self.tell(event.text, kind="warning")

    @on(Prompt.EndWanted)
    def _end(self) -> None:
        self.app.exit()

    @on(Prompt.EditLeft)
    def _leave_edit(self) -> None:
        self.edited = None

    # What the agent tells.

    @on(NotesArrived)
    async def _notes(self, event: NotesArrived) -> None:
        with self.app.batch_update():
            for note in event.notes:
                self.work.note(note)
                await self.notes.take(note)
            self.show_welcome()
        self.show_status()

    async def on_approval_view_decided(self, event: ApprovalView.Decided) -> None:
        await self.notes.answered(event)

    @on(StatusLine.DetailsWanted)
    async def _details(self) -> None:
        await self.sprig.run_command("/status")

    # Messages that are there.

    async def on_entry_view_wanted(self, event: EntryView.Wanted) -> None:
        await self.messages.want(event.view, event.what)

    def on_entry_view_left(self, event: EntryView.Left) -> None:
        if event.step > 0:
            self.prompt.focus()

    async def on_answer_text_copy_code(self, event: AnswerText.CopyCode) -> None:
        await self.copy(event.text)

    async def on_answer_text_link_clicked(self, event: AnswerText.LinkClicked) -> None:
        """A model's link is never opened: it goes to the clipboard, where a person sees what it is."""
        await self.copy(event.href)

    async def on_notice_offer_taken(self, event: Notice.OfferTaken) -> None:
        match event.action:
            case "again":
                await self.messages.again()
            case "go-on":
                await self.send("Go on.")
            case "open":
                self.change(self.setup)
            case "smaller":
                self.change(replace(self.setup, engine=replace(self.setup.engine, context=None)))
            case "new":
                self.action_new()
            case "model":
                self.sprig.action_pick_model()
        self.prompt.focus()

    # The panel of the sessions.

    def on_sessions_panel_open_wanted(self, event: SessionsPanel.OpenWanted) -> None:
        if self.busy:
            self.tell("The agent is answering; Esc stops it, then another conversation can be opened.", kind="warning")
            return
        self.close_sessions(if_narrow=True)
        self.sprig.talk.load(event.session_id, event.message_id)
        if event.message_id is None:
            self.prompt.focus()

    def on_sessions_panel_new_wanted(self) -> None:
        self.action_new()

    def on_sessions_panel_deleted(self, event: SessionsPanel.Deleted) -> None:
        if event.session_id == self.session:
            self.sprig.talk.load(None)

    def on_sessions_panel_renamed(self, event: SessionsPanel.Renamed) -> None:
        self.renamed(event.session_id, event.title)

    def on_sessions_panel_close_wanted(self) -> None:
        self.close_sessions()
        self.prompt.focus()

    def renamed(self, session: str, title: str) -> None:
        """A conversation has another title."""
        if session == self.session:
            self.session_title = title
            self.show_title()

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

    # Keys.

    def action_leave(self) -> None:
        if self.busy:
            self.work.stopping()
            self.show_status()
            self.sprig.talk.stop()
            self.give_queue_back()
            self.call_later(self.notes.stopping)
        if not self.prompt.has_focus_within:
            self.close_sessions()
            self.prompt.focus()

    async def action_again(self) -> None:
        await self.messages.again()

    async def action_copy_answer(self) -> None:
        await self.messages.copy_answer()

    def action_thinking(self) -> None:
        self.messages.open_thought()

    def action_messages(self) -> None:
        view = self.conversation.last()
        if view is not None:
            view.focus()

    def action_scroll(self, pages: int) -> None:
        self.conversation.scroll_relative(y=pages * max(1, self.conversation.size.height - 2), animate=False)

    async def action_command(self, text: str) -> None:
        await self.sprig.run_command(text)

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
