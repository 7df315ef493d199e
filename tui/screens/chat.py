"""The chat: a conversation, where a person writes, and a line about the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from textual import on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical
from textual.message import Message
from textual.widgets import Footer, Static

from agent import events as e
from agent.text import display
from tui import notes as n
from tui.commands import COMMANDS, run_command
from tui.compositor import RowCompositor
from tui.entries import Entry, question_before
from tui.run_view import MODEL, RunView
from tui.screens.sessions_side import SessionsSide
from tui.setup import Setup
from tui.widgets.answer_message import AnswerMessage
from tui.widgets.answer_text import AnswerText
from tui.widgets.conversation import Conversation
from tui.widgets.entry_view import EntryView
from tui.widgets.notice import Notice
from tui.widgets.prompt import Prompt
from tui.widgets.status_line import StatusLine
from tui.widgets.tool_call import ToolCallView
from tui.widgets.user_message import UserMessage
from tui.widgets.welcome import Welcome
from tui.work import Work

if TYPE_CHECKING:
    from tui.widgets.approval import ApprovalView


class Notes(Message):
    """What happened since the last ones."""

    def __init__(self, notes: Sequence[Any]) -> None:
        self.notes = notes
        super().__init__()


class ChatScreen(SessionsSide):
    """See the module.

    Attributes:
        facts: of the model and the agent; None until it is ready.
        setup: what the agent is made of, or shall be.
        session, title: of the conversation; "" before its first message.
        busy: whether the agent works on a message.
        queue: messages that wait for their turn.
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

    def __init__(self) -> None:
        super().__init__()
        self._compositor = RowCompositor()
        self.facts: n.Facts | None = None
        self.setup = Setup()
        self.queue: list[str] = []
        self.work = Work()
        self._run: RunView | None = None
        self._question: n.Question | None = None
        self._edited: tuple[int | None] | None = None  # the parent of the message that is edited

    def compose(self) -> ComposeResult:
        settings = self.sprig.settings
        with Horizontal(id="body"), Vertical(id="main"):
            yield Static("", id="title", markup=False)
            yield Welcome()
            yield Conversation(fold_after=settings.screen.fold_results)
            yield Static("", id="queue", markup=False)
            with Vertical(id="bottom"):
                yield Prompt(commands=[(c.name, c.about, c.hint) for c in COMMANDS], root=self.sprig.root)
        yield StatusLine()
        yield Footer(compact=True, show_command_palette=False)

    def on_mount(self) -> None:
        self.query_one("#queue").display = False
        self._show_welcome()
        self.show_title()
        self.query_one(Prompt).focus()

    @property
    def conversation(self) -> Conversation:
        return self.query_one(Conversation)

    # What a person says.

    @on(Prompt.Sent)
    async def _sent(self, event: Prompt.Sent) -> None:
        event.stop()
        self.sprig.settle_voice()
        text, edited = event.attached.text, self._edited
        self._edited = None
        if event.edited and edited is not None:
            self.start()
            self.sprig.talk.edit(edited[0], text)
        else:
            await self.send(text)

    async def send(self, text: str) -> None:
        """A message for the agent: now, or when its turn comes."""
        if self.busy:
            self.queue.append(text)
            self._show_queue()
        else:
            await self.conversation.add(UserMessage(text))
            self._show_welcome()
            self.start()
            self.sprig.talk.ask(text)

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
        await run_command(self, event.text)

    @on(Prompt.UnknownCommand)
    def _no_command(self, event: Prompt.UnknownCommand) -> None:
        nearest = f"; did you mean /{event.nearest}?" if event.nearest else "; / lists them all"
        self.tell(f"There is no command /{event.word}{nearest}", kind="warning")

    @on(Prompt.Problem)
    def _prompt_problem(self, event: Prompt.Problem) -> None:
        self.tell(event.text, kind="warning")

    @on(Prompt.EditLeft)
    def _leave_edit(self) -> None:
        self._edited = None

    # What the agent tells.

    @on(Notes)
    async def _notes(self, event: Notes) -> None:
        event.stop()
        with self.app.batch_update():
            for note in event.notes:
                await self._note(note)
            self._show_welcome()
        self.show_status()

    async def _note(self, note: Any) -> None:
        self.work.note(note)
        match note:
            case n.Opened(facts, _):
                await self._opened(facts)
            case n.OpenFailed(why, _):
                self.facts = None
                offers = (("open", "Try again"), MODEL)
                await self.conversation.add(Notice(why, kind="error", offers=offers))
            case n.Shown(session, title, entries, at):
                self.session, self.session_title = session, title
                await self.conversation.show(entries, at)
                self.show_title()
            case n.Began(text):
                self._run = RunView(self.conversation, fold_after=self.sprig.settings.screen.fold_results)
                if text is not None and not self._has_live_question():
                    await self.conversation.add(UserMessage(text))
            case n.Settled(entries, session, title, _):
                await self._settled(entries, session, title)
            case n.NotAsked(text, why):
                await self._not_asked(text, why)
            case n.Question():
                await self._ask_person(note)
            case n.Unanswerable(number):
                if self._question is not None and self._question.number == number:
                    await self._end_question()
            case n.Failed(why):
                await self.conversation.add(Notice(why, kind="error"))
            case n.Opening() | e.Loading() | e.Prefill():
                pass
            case _:
                if self._run is not None:
                    await self._run.show(note)

    def _has_live_question(self) -> bool:
        view = self.conversation.last()
        return isinstance(view, UserMessage) and view.entry is None

    async def _opened(self, facts: n.Facts) -> None:
        self.facts = facts  # not the setup: what was changed since is on its way
        self.query_one(Welcome).know(facts)
        self.show_title()
        self.sprig.opened(facts)
        for problem in facts.problems:
            await self.conversation.add(Notice(problem, kind="warning"))

    async def _settled(self, entries: Sequence[Any], session: str, title: str) -> None:
        self._run = None
        if session:
            self.session, self.session_title = session, title
            await self.conversation.settle(entries)
            self.sprig.kept(session)
        self.busy = self.prompt.busy = False
        self.show_title()
        if self.sprig.settings.screen.bell and not self.app.app_focus:
            self.app.bell()
        if self.queue:
            text = self.queue.pop(0)
            self._show_queue()
            await self.send(text)

    async def _not_asked(self, text: str | None, why: str) -> None:
        """The person gets the text back; the message that was shown for it goes."""
        view = self.conversation.last()
        if text is not None and isinstance(view, UserMessage) and view.entry is None:
            await self.conversation.drop(view)
        if text is not None:
            self.queue.insert(0, text)
        self._give_queue_back()
        await self.conversation.add(Notice(why, kind="error", offers=(MODEL,) if self.facts is None else ()))

    # Questions about tools.

    async def _ask_person(self, question: n.Question) -> None:
        from tui.widgets.approval import ApprovalView

        self._question = question
        view = self._run.call(question.request.call) if self._run is not None else None
        if view is not None:
            view.waiting()
        screen = self.sprig.settings.screen
        self.prompt.display = False
        await self.query_one("#bottom").mount(
            ApprovalView(question.request, grace=screen.approval_grace, reduced_motion=screen.reduced_motion)
        )
        self.query_one(ApprovalView).focus()
        if screen.bell and not self.app.app_focus:
            self.app.bell()

    async def on_approval_view_answered(self, event: ApprovalView.Answered) -> None:
        event.stop()
        question = self._question
        if question is None:
            return
        await self._end_question()
        if event.rule is not None:
            self.sprig.keep_rule(event.rule)
        view = self._run.call(question.request.call) if self._run is not None else None
        if view is not None and event.answer.allowed:
            view.running()
        self.work.answered()
        self.sprig.talk.answer(question.number, event.answer, event.rule)

    async def _end_question(self) -> None:
        self._question = None
        await self.query("ApprovalView").remove()
        self.prompt.display = True
        self.prompt.focus()

    # Messages that are there.

    @on(EntryView.Wanted)
    async def _wanted(self, event: EntryView.Wanted) -> None:
        event.stop()
        view = event.view
        match event.what:
            case "copy":
                call = self.focused
                await self.copy(call.copy_text if isinstance(call, ToolCallView) else view.text)
            case "code" if isinstance(view, AnswerMessage):
                await self.copy_code(view)
            case "edit":
                self.edit(view.entry)
            case "again":
                await self.again(view)
            case "before" | "next" if view.entry is not None:
                other = view.entry.neighbour(-1 if event.what == "before" else 1)
                if other is not None and not self.busy:
                    self.sprig.talk.go(other)
            case "thinking" if isinstance(view, AnswerMessage) and view.thinking is not None:
                view.thinking.toggle()
            case _:
                pass

    @on(EntryView.Left)
    def _left_messages(self, event: EntryView.Left) -> None:
        event.stop()
        if event.step > 0:
            self.prompt.focus()

    @on(AnswerText.CopyCode)
    async def _copy_code(self, event: AnswerText.CopyCode) -> None:
        event.stop()
        await self.copy(event.text)

    @on(AnswerText.LinkClicked)
    async def _link(self, event: AnswerText.LinkClicked) -> None:
        """A model's link is never opened: it goes to the clipboard, where a person sees what it is."""
        event.stop()
        await self.copy(event.href)

    async def copy(self, text: str) -> None:
        """Text to the clipboard, and a word about it."""
        from tui.clipboard import copy

        self.tell(await copy(self.app, text))

    async def copy_code(self, view: AnswerMessage, number: int | None = None) -> None:
        blocks = view.code_blocks
        if not blocks:
            self.tell("There is no code in this message.", kind="warning")
        elif number is not None and not 1 <= number <= len(blocks):
            self.tell(f"There are {len(blocks)} code blocks in this message.", kind="warning")
        else:
            await self.copy(blocks[(number or len(blocks)) - 1][1])

    def edit(self, entry: Entry | None) -> None:
        """A person's message goes back to the prompt; sent, it begins a branch of its own."""
        if entry is not None and not entry.mine:
            entry = question_before(self.conversation.entries, entry.id)
        if entry is None or self.busy:
            self.tell("Wait for the answer, or stop it with Esc; then the message can be edited.", kind="warning")
            return
        from tui.attach import split

        self._edited = (entry.stored.parent,)
        place = 1 + sum(1 for e in self.conversation.entries if e.mine and e.id < entry.id)
        self.prompt.edit(split(entry.stored.message.text)[0], f"Editing message {place}")
        self.prompt.focus()

    async def again(self, view: EntryView | None = None) -> None:
        """Another answer to a message, beside the one that is there."""
        if self.busy:
            self.tell("The agent is answering already; Esc stops it.", kind="warning")
            return
        shown = self.conversation.entries
        last = view.entry if view is not None else (shown[-1] if shown else None)
        question = question_before(shown, last.id) if last is not None else None
        if question is None:
            self.tell("There is nothing to answer yet.", kind="warning")
            return
        self.start()
        self.sprig.talk.again(question.id)

    @on(Notice.Chosen)
    async def _chosen(self, event: Notice.Chosen) -> None:
        event.stop()
        match event.action:
            case "again":
                await self.again()
            case "go-on":
                await self.send("Go on.")
            case "open":
                self.change(self.setup)
            case "new":
                self.action_new()
            case "model":
                self.action_model()
            case _:
                pass
        self.prompt.focus()

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
            self._give_queue_back()
        elif self.focused is None or not self.prompt.has_focus_within:
            self.close_sessions()
            self.prompt.focus()

    def action_model(self) -> None:
        self.sprig.pick_model()

    async def action_again(self) -> None:
        await self.again()

    def last_answer(self) -> AnswerMessage | None:
        """The last answer that has words."""
        answers = [v for v in self.conversation.views() if isinstance(v, AnswerMessage) and v.text]
        return answers[-1] if answers else None

    async def action_copy_answer(self) -> None:
        answer = self.last_answer()
        if answer is not None:
            await self.copy(answer.text)
        else:
            self.tell("There is no answer yet.", kind="warning")

    def action_thinking(self) -> None:
        views = [v.thinking for v in self.conversation.views() if isinstance(v, AnswerMessage) and v.thinking is not None]
        if views:
            views[-1].toggle()
        else:
            self.tell("There is no thought to open.")

    def action_messages(self) -> None:
        view = self.conversation.last()
        if view is not None:
            view.focus()

    def action_scroll(self, pages: int) -> None:
        self.conversation.scroll_relative(y=pages * max(1, self.conversation.size.height - 2), animate=False)

    async def action_help(self) -> None:
        await run_command(self, "/help")

    def action_voice(self) -> None:
        self.sprig.voice_key()

    # What is shown around.

    @on(StatusLine.DetailsWanted)
    async def _details(self, event: StatusLine.DetailsWanted) -> None:
        event.stop()
        await run_command(self, "/status")

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

    def _give_queue_back(self) -> None:
        """What waited goes back to the prompt, before what is being written there: nothing is sent that nobody looks at."""
        waiting, self.queue = self.queue, []
        self._show_queue()
        texts = [*waiting, self.prompt.text]
        if waiting:
            self.prompt.text = "\n\n".join(t for t in texts if t)
