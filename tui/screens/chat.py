"""The chat: a conversation, where a person writes, and a line about the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Footer, Static

from agent.text import display
from tui.screens.sessions_side import SessionsSide
from tui.talk.setup import Setup
from tui.terminal.compositor import RowCompositor
from tui.widgets.conversation import Conversation
from tui.widgets.prompt.prompt import Prompt
from tui.widgets.status_line import StatusLine
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from tui.screens.chat_messages import ChatMessages
    from tui.screens.chat_notes import ChatNotes
    from tui.screens.roles import Sprig
    from tui.talk.notes import AgentFacts
    from tui.talk.work import Work
    from tui.widgets.approval.question import ApprovalView
    from tui.widgets.messages.answer_text import AnswerText
    from tui.widgets.messages.entry import EntryView
    from tui.widgets.messages.notice import Notice


class NotesArrived(Message):
    """What happened since the last ones."""

    def __init__(self, notes: Sequence[Any]) -> None:
        self.notes = notes
        super().__init__()


class ChatScreen(SessionsSide):
    """The screen with the conversation, the prompt and the status line.

    Attributes:
        facts: of the model and the agent; None until it is ready.
        setup: what the agent is made of, or will be.
        session, session_title: of the conversation; "" before its first message.
        busy: whether the agent works on a message.
        queue: messages that wait for their turn.
        edited: the parent of the message that is being edited, in a tuple; None when none is.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "leave", "Stop", id="chat.stop", show=False),
        Binding("ctrl+o", "sessions", "Sessions", id="chat.sessions"),
        Binding("ctrl+n", "new", "New", id="chat.new"),
        Binding("ctrl+l", "model", "Model", id="chat.model"),
        Binding("ctrl+t", "thinking", "Thinking", id="chat.thinking", show=False),
        Binding("ctrl+g", "again", "Again", id="chat.again", show=False),
        Binding("alt+c", "copy_answer", "Copy", id="chat.copy", show=False),
        Binding("ctrl+up,alt+up", "messages", "Messages", id="chat.messages", show=False),
        Binding("pageup", "scroll(-1)", "Page up", id="chat.page_up", show=False, priority=True),
        Binding("pagedown", "scroll(1)", "Page down", id="chat.page_down", show=False, priority=True),
        Binding("alt+v", "voice", "Voice", id="chat.voice", show=False),
        Binding("f1", "help", "Help", id="chat.help"),
    ]

    def __init__(self, sprig: Sprig) -> None:
        super().__init__(sprig)
        self._compositor = RowCompositor()
        self.facts: AgentFacts | None = None
        self.setup = Setup()
        self.queue: list[str] = []
        self.edited: tuple[int | None] | None = None

    def compose(self) -> ComposeResult:
        settings = self.sprig.settings
        with Horizontal(id="body"), Vertical(id="main"):
            yield Static("", id="title", markup=False)
            yield Welcome()
            yield Conversation(fold_after=settings.screen.fold_results)
            yield Static("", id="queue", markup=False)
            with Vertical(id="bottom"):
                yield Prompt(commands=self.sprig.commands, root=self.sprig.root)
        yield StatusLine()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#queue").display = False
        self._show_welcome()
        self.show_title()
        self.query_one(Prompt).focus()

    # What the first paint does not need is loaded when it is first wanted.

    @cached_property
    def work(self) -> Work:
        """What the agent is doing."""
        from tui.talk.work import Work

        return Work()

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

    @property
    def conversation(self) -> Conversation:
        return self.query_one(Conversation)

    # What a person says.

    @on(Prompt.Sent)
    async def _sent(self, event: Prompt.Sent) -> None:
        event.stop()
        self.sprig.settle_voice()
        text, edited = event.attached.text, self.edited
        self.edited = None
        if event.edited and edited is not None:
            self.start()
            self.sprig.talk.edit(edited[0], text)
        else:
            await self.send(text)

    async def send(self, text: str) -> None:
        """A message for the agent: now, or when its turn comes."""
        if self.busy or not self.sprig.begun:
            self.queue.append(text)
            self._show_queue()
        else:
            self.start()  # first: nobody may think meanwhile that the agent has nothing to do
            from tui.widgets.messages.user import UserMessage

            await self.conversation.add(UserMessage(text))
            self._show_welcome()
            self.sprig.talk.ask(text)

    async def send_next(self) -> None:
        """The next message that waits, if the agent has nothing to do."""
        if self.queue and not self.busy:
            text = self.queue.pop(0)
            self._show_queue()
            await self.send(text)

    def start(self) -> None:
        """The agent has been given something to do."""
        self.busy = True
        self.prompt.busy = True
        self.conversation.follow()
        self.work.asked()
        self.show_status()

    @on(Prompt.CommandGiven)
    async def _command(self, event: Prompt.CommandGiven) -> None:
        event.stop()
        await self.sprig.run_command(event.text)

    @on(Prompt.UnknownCommand)
    def _no_command(self, event: Prompt.UnknownCommand) -> None:
        nearest = f"; did you mean /{event.nearest}?" if event.nearest else "; / lists them all"
        self.tell(f"There is no command /{event.word}{nearest}", kind="warning")

    @on(Prompt.Problem)
    def _prompt_problem(self, event: Prompt.Problem) -> None:
        self.tell(event.text, kind="warning")

    @on(Prompt.EditLeft)
    def _leave_edit(self) -> None:
        self.edited = None

    # What the agent tells.

    @on(NotesArrived)
    async def _notes(self, event: NotesArrived) -> None:
        event.stop()
        with self.app.batch_update():
            for note in event.notes:
                self.work.note(note)
                await self.notes.take(note)
            self._show_welcome()
        self.show_status()

    async def on_approval_view_decided(self, event: ApprovalView.Decided) -> None:
        event.stop()
        await self.notes.answered(event)

    # Messages that are there.

    async def on_entry_view_wanted(self, event: EntryView.Wanted) -> None:
        event.stop()
        await self.messages.want(event.view, event.what)

    def on_entry_view_left(self, event: EntryView.Left) -> None:
        event.stop()
        if event.step > 0:
            self.prompt.focus()

    async def on_answer_text_copy_code(self, event: AnswerText.CopyCode) -> None:
        event.stop()
        await self.copy(event.text)

    async def on_answer_text_link_clicked(self, event: AnswerText.LinkClicked) -> None:
        """A model's link is never opened: it goes to the clipboard, where a person sees what it is."""
        event.stop()
        await self.copy(event.href)

    async def copy(self, text: str) -> None:
        """Text to the clipboard, and a word about it."""
        from tui.terminal.clipboard import copy

        self.tell(await copy(self.app, text))

    async def on_notice_offer_taken(self, event: Notice.OfferTaken) -> None:
        event.stop()
        match event.action:
            case "again":
                await self.messages.again()
            case "go-on":
                await self.send("Go on.")
            case "open":
                self.change(self.setup)
            case "smaller":
                self.change(replace(self.setup, context=None))
            case "new":
                self.action_new()
            case "model":
                self.action_model()
            case _:
                pass
        self.prompt.focus()

    async def ask(self, question: ApprovalView) -> None:
        """Put a question into the place of the prompt."""
        self.prompt.display = False
        await self.query_one("#bottom").mount(question)
        question.focus()

    async def end_question(self) -> None:
        """Take the question away; the prompt is back."""
        await self.query("#bottom > ApprovalView").remove()
        self.prompt.display = True
        self.prompt.focus()

    def know(self, facts: AgentFacts | None) -> None:
        """Another agent is there, or none."""
        self.facts = facts  # not the setup: what was changed since is on its way
        self.query_one(Welcome).know(facts)
        self.show_title()

    def change(self, setup: Setup) -> None:
        """Make another agent of the same conversation."""
        self.setup = setup
        self.sprig.talk.open(setup)

    # Keys.

    def action_leave(self) -> None:
        if self.busy:
            self.work.stopping()
            self.show_status()
            self.sprig.talk.stop()
            self.give_queue_back()
        elif self.focused is None or not self.prompt.has_focus_within:
            self.close_sessions()
            self.prompt.focus()

    def action_model(self) -> None:
        self.sprig.pick_model()

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

    async def action_help(self) -> None:
        await self.sprig.run_command("/help")

    def action_voice(self) -> None:
        self.sprig.voice_key()

    # What is shown around.

    @on(StatusLine.DetailsWanted)
    async def _details(self, event: StatusLine.DetailsWanted) -> None:
        event.stop()
        await self.sprig.run_command("/status")

    def _show_welcome(self) -> None:
        empty = not self.conversation.children
        self.query_one(Welcome).display = empty
        self.conversation.display = not empty

    def show_status(self) -> None:
        self.query_one(StatusLine).update(replace(self.work.status(), queued=len(self.queue)))

    def show_title(self) -> None:
        parts = [self.session_title or "New conversation"]
        if self.facts is not None:
            parts.append(self.facts.name)
        self.query_one("#title", Static).update(display("  ·  ".join(parts)))
        self.app.title = f"Sprig: {display(parts[0])}"

    def _show_queue(self) -> None:
        line = self.query_one("#queue", Static)
        line.display = bool(self.queue)
        line.update("\n".join(f"next: {display(text)[:200]}" for text in self.queue))

    def give_queue_back(self) -> None:
        """Put what waits back into the prompt, before what is being written there: nothing is sent unseen."""
        waiting, self.queue = self.queue, []
        self._show_queue()
        texts = [*waiting, self.prompt.text]
        if waiting:
            self.prompt.text = "\n\n".join(t for t in texts if t)
