"""What the chat shows, and how things stand in it: all that its parts may look at and change."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from textual.app import ComposeResult
from textual.containers import Horizontal, Vertical
from textual.events import Key, Paste
from textual.widgets import Static

from agent.text import display
from tui.screens.sized import SizedScreen
from tui.talk.setup import Setup
from tui.widgets.conversation import Conversation
from tui.widgets.key_bar import KeyBar
from tui.widgets.prompt.prompt import Prompt
from tui.widgets.status_line import StatusLine
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from agent.approval.policy import Rule
    from agent.sessions.store import Store
    from tui.prompt.along import MessageSize
    from tui.prompt.suggest import KnownCommand
    from tui.settings.values import ChatSettings
    from tui.talk.notes import AgentFacts
    from tui.talk.talk import Talk
    from tui.talk.work import Work
    from tui.widgets.approval.question import ApprovalView


class Sprig(Protocol):
    """What the chat may use of the application, which it need not import then. What a method does is said where it is written."""

    settings: ChatSettings
    settings_path: Path
    root: Path

    @property
    def talk(self) -> Talk: ...
    @property
    def commands(self) -> Sequence[KnownCommand]: ...
    async def run_command(self, text: str) -> None: ...
    def store(self) -> Store: ...
    def remember(self, **what: str) -> None: ...
    def keep_rule(self, rule: Rule) -> None: ...
    def keep(self, key: str, value: Any) -> None: ...
    def apply(self, settings: ChatSettings) -> tuple[list[str], list[str]]: ...
    def action_pick_model(self) -> None: ...
    def settle_voice(self) -> None: ...


class ChatView(SizedScreen[None]):
    """The conversation, the prompt and the status line.

    Attributes:
        sprig: the application that it belongs to.
        session, session_title: of the conversation; "" before its first message.
        busy: whether the agent works on a message.
        facts: of the model and the agent; None until it is ready.
        setup: what the agent is made of, or will be.
        queue: messages that wait for their turn.
        edited: the parent of the message that is being edited, in a tuple; None when none is.
    """

    def __init__(self, sprig: Sprig) -> None:
        super().__init__()
        self.sprig = sprig
        self.session = self.session_title = ""
        self.busy = False
        self.facts: AgentFacts | None = None
        self.setup = Setup()
        self.queue: list[str] = []
        self.edited: tuple[int | None] | None = None

    def compose(self) -> ComposeResult:
        self.take_size()
        conversation, queue = Conversation(fold_after=self.sprig.settings.screen.fold_results), Static(id="queue", markup=False)
        conversation.display = queue.display = False
        with Horizontal(id="body"), Vertical(id="main"):
            yield Static(id="title", markup=False)
            yield Welcome()
            yield conversation
            yield queue
            with Vertical(id="bottom"):
                yield Prompt(commands=self.sprig.commands, root=self.sprig.root, weigh=self._weigh)
        yield StatusLine()
        yield KeyBar()

    def on_mount(self) -> None:
        self.show_title()
        self.prompt.focus()

    @property
    def prompt(self) -> Prompt:
        return self.query_one(Prompt)

    @property
    def conversation(self) -> Conversation:
        return self.query_one(Conversation)

    @cached_property
    def work(self) -> Work:
        """What the agent is doing."""
        from tui.talk.work import Work

        return Work()

    def tell(self, text: str, *, kind: str = "note") -> None:
        """A word from Sprig that does not belong to the conversation. ``kind`` is note, warning or error."""
        severity = {"warning": "warning", "error": "error"}.get(kind, "information")
        self.notify(display(text, lines=True), severity=severity, markup=False, timeout=8)  # type: ignore[arg-type]

    async def copy(self, text: str) -> None:
        """Text to the clipboard, and a word about it."""
        from tui.terminal.clipboard import copy

        self.tell(await copy(self.app, text))

    async def send(self, text: str) -> None:
        """A message for the agent: now, or when its turn comes."""
        if self.busy or not self.setup.model:
            self.queue.append(text)
            self._show_queue()
        else:
            self.start()  # first: nobody may think meanwhile that the agent has nothing to do
            from tui.widgets.messages.user import UserMessage

            await self.conversation.add(UserMessage(text))
            self.show_welcome()
            self.sprig.talk.ask(text)

    async def send_next(self) -> None:
        """The next message that waits, if the agent has nothing to do."""
        if self.queue and not self.busy and self.setup.model:
            text = self.queue.pop(0)
            self._show_queue()
            await self.send(text)

    def start(self) -> None:
        """The agent has been given something to do."""
        self.busy = True
        self.prompt.busy = True
        self.conversation.anchor()  # to the end, and there it stays
        self.work.asked()
        self.show_status()

    def lead_to_prompt(self, event: Key | Paste) -> None:
        """What is written while a message, a button or nothing has the focus goes to the prompt, if it means nothing there."""
        writes = isinstance(event, Paste) or (event.is_printable and event.key not in self.active_bindings)
        at = self.focused
        elsewhere = at is None or at is self.query_one(StatusLine) or self.conversation in at.ancestors
        if writes and elsewhere and self.prompt.display and not self.has_class("-sessions"):
            self.prompt.focus_now()

    async def ask(self, question: ApprovalView) -> None:
        """Put a question into the place of the prompt. Nothing may lie on it."""
        self.app.clear_notifications()
        self.prompt.display = False
        await self.query_one("#bottom").mount(question)
        question.focus()

    async def end_question(self) -> None:
        """Take the question away; the prompt is back."""
        await self.query("#bottom > ApprovalView").remove()
        self.prompt.display = True
        self.prompt.focus()

    def _weigh(self, text: str) -> MessageSize | None:
        return self.sprig.talk.weigh(text)

    def know(self, facts: AgentFacts | None) -> None:
        """Another agent is there, or none."""
        self.facts = facts  # not the setup: what was changed since is on its way
        self.query_one(Welcome).know(facts)
        self.show_title()
        self.prompt.look_soon()

    def change(self, setup: Setup) -> None:
        """Make another agent of the same conversation."""
        self.setup = setup
        self.sprig.talk.open(setup)
        self.call_later(self.send_next)

    def show_welcome(self) -> None:
        empty = not self.conversation.children
        self.query_one(Welcome).display = empty
        self.conversation.display = not empty

    def show_status(self) -> None:
        self.query_one(StatusLine).update(replace(self.work.status(), queued=len(self.queue)))

    def show_title(self) -> None:
        parts = [self.session_title or "New conversation"]
        if self.facts is not None:
            parts.append(self.facts.name)
        self.query_one("#title", Static).update(display("  ·  ".join(parts)), layout=False)
        self.app.title = f"Sprig: {display(parts[0])}"

    def _show_queue(self) -> None:
        line = self.query_one("#queue", Static)
        line.display = bool(self.queue)
        line.update("\n".join(f"next: {display(text)[:200]}" for text in self.queue))

    def give_queue_back(self) -> None:
        """Put what waits back into the prompt, before what is being written there: nothing is sent unseen."""
        waiting, self.queue = self.queue, []
        self._show_queue()
        texts = [*map(self.prompt.written, waiting), self.prompt.text]
        if waiting:
            self.prompt.text = "\n\n".join(t for t in texts if t)
