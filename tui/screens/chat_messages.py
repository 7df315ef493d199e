"""What can be done with the messages of the chat: copied, edited, answered again, looked at on another branch."""

from __future__ import annotations

from tui.prompt.attach import split
from tui.screens.chat_view import ChatView
from tui.talk.entries import Entry, question_before
from tui.widgets.messages.answer import AnswerMessage
from tui.widgets.messages.entry import EntryView
from tui.widgets.messages.tool_call import ToolCallView


class ChatMessages:
    """Does with a message of the chat what a key or a command asks for."""

    def __init__(self, chat: ChatView) -> None:
        self._chat = chat

    async def want(self, view: EntryView, what: str) -> None:
        """Do with a message what a key asked for."""
        match what:
            case "copy":
                call = self._chat.focused
                await self._chat.copy(call.copy_text if isinstance(call, ToolCallView) else view.text)
            case "code" if isinstance(view, AnswerMessage):
                await self.copy_code(view)
            case "edit":
                self.edit(view.entry)
            case "again":
                await self.again(view)
            case "before" | "next" if view.entry is not None:
                other = view.entry.neighbour(-1 if what == "before" else 1)
                if other is not None and not self._chat.busy:
                    self._chat.sprig.talk.go(other)
            case "thinking" if isinstance(view, AnswerMessage) and view.thinking is not None:
                view.thinking.toggle()

    async def copy_code(self, view: AnswerMessage, number: int | None = None) -> None:
        blocks = view.code_blocks
        if not blocks:
            self._chat.tell("There is no code in this message.", kind="warning")
        elif number is not None and not 1 <= number <= len(blocks):
            self._chat.tell(f"There are {len(blocks)} code blocks in this message.", kind="warning")
        else:
            await self._chat.copy(blocks[(number or len(blocks)) - 1][1])

    def edit(self, entry: Entry | None) -> None:
        """A person's message goes back to the prompt; sent, it begins a branch of its own."""
        if entry is not None and not entry.mine:
            entry = question_before(self._chat.conversation.entries, entry.id)
        if entry is None or self._chat.busy:
            self._chat.tell("Wait for the answer, or stop it with Esc; then the message can be edited.", kind="warning")
            return
        self._chat.edited = (entry.stored.parent,)
        place = 1 + sum(1 for e in self._chat.conversation.entries if e.mine and e.id < entry.id)
        self._chat.prompt.edit(split(entry.stored.message.text)[0], f"Editing message {place}")
        self._chat.prompt.focus()

    async def again(self, view: EntryView | None = None) -> None:
        """Another answer to a message, beside the one that is there."""
        if self._chat.busy:
            self._chat.tell("The agent is answering already; Esc stops it.", kind="warning")
            return
        shown = self._chat.conversation.entries
        last = view.entry if view is not None else (shown[-1] if shown else None)
        question = question_before(shown, last.id) if last is not None else None
        if question is None:
            self._chat.tell("There is nothing to answer yet.", kind="warning")
            return
        self._chat.start()
        self._chat.sprig.talk.again(question.id)

    def last_answer(self) -> AnswerMessage | None:
        """The last answer that has words."""
        answers = [v for v in self._chat.conversation.views() if isinstance(v, AnswerMessage) and v.text]
        return answers[-1] if answers else None

    async def copy_answer(self) -> None:
        """Copy the last answer."""
        answer = self.last_answer()
        if answer is not None:
            await self._chat.copy(answer.text)
        else:
            self._chat.tell("There is no answer yet.", kind="warning")

    def open_thought(self) -> None:
        """Open or fold the last thought."""
        views = [v.thinking for v in self._chat.conversation.views() if isinstance(v, AnswerMessage) and v.thinking is not None]
        if views:
            views[-1].toggle()
        else:
            self._chat.tell("There is no thought to open.")
