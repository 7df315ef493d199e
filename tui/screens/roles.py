"""What the parts of the chat may use of its screen and of the application, so that none of them imports either.

Screens, the voice and the commands are typed against these. ``ChatScreen(self)`` in the application, and ``ChatNotes(self)`` in
the chat, are where mypy checks that the two really are what is promised here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from pathlib import Path

    from textual.app import App
    from textual.widget import Widget

    from agent.approval.policy import Rule
    from agent.sessions.store import Store
    from tui.prompt.suggest import KnownCommand
    from tui.settings.values import Settings
    from tui.talk.entries import Entry
    from tui.talk.notes import ModelFacts
    from tui.talk.setup import Setup
    from tui.talk.talk import Talk
    from tui.talk.work import Work
    from tui.widgets.approval.question import ApprovalView
    from tui.widgets.conversation import Conversation
    from tui.widgets.messages.answer import AnswerMessage
    from tui.widgets.messages.entry import EntryView
    from tui.widgets.prompt.prompt import Prompt


class Sprig(Protocol):
    """The application: the settings, the talk with the agent, and what is kept.

    Attributes:
        settings: of the person, from the file; ``settings_path`` is where it is.
        root: the folder of file tools and of ``@file``.
        begun: whether the first paint is over, and the talk has its task.
        talk: the conversation with the agent.
        commands: what can be said with a slash: name, about, hint.
    """

    settings: Settings
    settings_path: Path
    root: Path
    begun: bool

    @property
    def talk(self) -> Talk: ...
    @property
    def commands(self) -> Sequence[KnownCommand]: ...
    async def run_command(self, text: str) -> None:
        """Carry out ``/name arguments``. What goes wrong is one line on the screen."""

    def store(self) -> Store:
        """The sessions. Raises SessionError if they cannot be opened."""

    def opened(self, facts: ModelFacts) -> None:
        """The agent is ready: this model is offered again next time."""

    def kept(self, session: str) -> None:
        """A conversation was kept: it is offered again next time."""

    def keep_rule(self, rule: Rule) -> None:
        """Write an approval rule into the settings file."""

    def keep(self, key: str, value: Any) -> None:
        """Write a setting into the settings file."""

    def apply(self, settings: Settings) -> tuple[list[str], list[str]]:
        """Let changed settings hold. Returns their keys: those that do so now, and those that do from the next start on."""

    def pick_model(self) -> None:
        """Let the person choose a model."""

    async def hand_over(self, path: Path) -> bool:
        """In a browser: offer a written file as a download. Returns whether it was one."""

    def voice_key(self) -> None:
        """The key for speaking was pressed."""

    def settle_voice(self) -> None:
        """A message is on its way: what is heard after it belongs to the next one."""


class Messages(Protocol):
    """What can be done with the messages of the chat."""

    def last_answer(self) -> AnswerMessage | None:
        """The last answer that has words."""

    async def copy_code(self, view: AnswerMessage, number: int | None = None) -> None:
        """Copy a code block of an answer, by default its last."""

    def edit(self, entry: Entry | None) -> None:
        """Put a person's message back into the prompt; sent, it begins a branch of its own."""

    async def again(self, view: EntryView | None = None) -> None:
        """Ask for another answer to a message, beside the one that is there."""


class Chat(Protocol):
    """The screen with the conversation, the prompt and the status line.

    Attributes:
        facts: of the model and the agent; None until it is ready.
        setup: what the agent is made of, or shall be.
        session, session_title: of the conversation; "" before its first message.
        busy: whether the agent works on a message.
        queue: messages that wait for their turn.
        edited: the parent of the message that is being edited, in a tuple; None when none is.
        work: what the agent is doing.
    """

    facts: ModelFacts | None
    setup: Setup
    session: str
    session_title: str
    busy: bool
    queue: list[str]
    edited: tuple[int | None] | None

    @property
    def app(self) -> App[Any]: ...
    @property
    def sprig(self) -> Sprig: ...
    @property
    def focused(self) -> Widget | None: ...
    @property
    def prompt(self) -> Prompt: ...
    @property
    def conversation(self) -> Conversation: ...
    @property
    def messages(self) -> Messages: ...
    @property
    def work(self) -> Work: ...

    def tell(self, text: str, *, kind: str = "note") -> None:
        """Say a word from Sprig that does not belong to the conversation. ``kind`` is note, warning or error."""

    async def copy(self, text: str) -> None:
        """Put a text on the clipboard, and say so."""

    async def send_next(self) -> None:
        """Send the next message that waits, if the agent has nothing to do."""

    def start(self) -> None:
        """Show that the agent has been given something to do."""

    def give_queue_back(self) -> None:
        """Put what waits back into the prompt."""

    async def ask(self, question: ApprovalView) -> None:
        """Put a question into the place of the prompt."""

    async def end_question(self) -> None:
        """Take the question away; the prompt is back."""

    def know(self, facts: ModelFacts | None) -> None:
        """Another agent is there, or none."""

    def change(self, setup: Setup) -> None:
        """Make another agent of the same conversation."""

    def show_title(self) -> None:
        """Show the title of the conversation, which may have changed."""

    def show_status(self) -> None:
        """Bring the status line up to date."""

    def renamed(self, session: str, title: str) -> None:
        """A conversation has another title."""

    def open_sessions(self, search: str = "") -> None:
        """Open the panel of the sessions."""

    def close_sessions(self, *, if_narrow: bool = False) -> None:
        """Close the panel of the sessions; with ``if_narrow`` only where it has no room beside the conversation."""

    def action_new(self) -> None: ...
    def action_sessions(self) -> None: ...
    def action_leave(self) -> None: ...
    def action_voice(self) -> None: ...
    async def action_copy_answer(self) -> None: ...
