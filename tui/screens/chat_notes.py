"""What the agent tells, on the chat's screen: another conversation, a run as it goes, a question about a tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from agent import events as e
from tui.prompt.along import MORE_ROOM
from tui.talk import notes as n
from tui.widgets.messages.notice import Notice
from tui.widgets.messages.user import UserMessage
from tui.widgets.run_view import MODEL, OPEN, SMALLER, RunView

if TYPE_CHECKING:
    from tui.screens.chat_view import ChatView
    from tui.talk.entries import Entry
    from tui.widgets.approval.question import ApprovalView


class ChatNotes:
    """Takes note after note. Loaded with the first one: before it there is nothing to tell."""

    def __init__(self, chat: ChatView) -> None:
        self._chat = chat
        self._run: RunView | None = None
        self._stopped = False  # a run was, of whose beginning no note has come yet
        self._question: n.Question | None = None

    async def take(self, note: Any) -> None:
        """Show what has happened."""
        chat = self._chat
        match note:
            case n.Opened(facts, setup):
                if chat.setup.usual_tools:  # now it is known which
                    chat.setup = replace(chat.setup, tools=setup.tools)
                await self._opened(facts)
            case n.OpenFailed(why, _, smaller):
                chat.facts = None
                offers = (SMALLER if smaller else OPEN, MODEL)
                await chat.conversation.add(Notice(why, kind="error", offers=offers))
            case n.Shown(session, title, entries, at):
                chat.session, chat.session_title = session, title
                await chat.conversation.show(entries, at)
                chat.show_title()
            case n.Began(text):
                self._run = RunView(chat.conversation, fold_after=chat.sprig.settings.screen.fold_results)
                if text is not None and self._live_message() is None:
                    await chat.conversation.add(UserMessage(text))
                if self._stopped:
                    self._stopped = False
                    await self._run.stop()
            case n.Settled(entries, session, title, _):
                await self._settled(entries, session, title)
            case n.NotAsked():
                await self._not_asked(note)
            case n.Question():
                await self._ask_person(note)
            case n.QuestionWithdrawn(number):
                if self._question is not None and self._question.number == number:
                    await self._end_question()
            case n.Failed(why):
                await chat.conversation.add(Notice(why, kind="error"))
            case e.Compacted(what, before, after) if self._run is None:
                said = (
                    f"{what} ({before:,} tokens became {after:,}). The next message takes longer once: the prompt is read anew."
                )
                chat.conversation.anchor()
                await chat.conversation.add(Notice(said))
            case n.ToolsNow(tools, what):
                if chat.facts is not None:
                    chat.know(replace(chat.facts, tools=tools))
                if what is not None:
                    look = " /tools shows how; until you accept it there, it is asked for." if what.changed else ""
                    await chat.conversation.add(Notice(f"{what.text[0].upper()}{what.text[1:]}.{look}"))
            case n.Opening() | n.ReadingAhead() | n.ReadAhead() | e.Loading() | e.Prefill():
                pass
            case _:
                if self._run is not None:
                    await self._run.show(note)

    def _live_message(self) -> UserMessage | None:
        """The last message, while it is not kept."""
        view = self._chat.conversation.last()
        return view if isinstance(view, UserMessage) and view.entry is None else None

    async def _opened(self, facts: n.AgentFacts) -> None:
        chat = self._chat
        chat.know(facts)
        chat.sprig.remember(model=facts.path)
        for problem in facts.problems:
            await chat.conversation.add(Notice(problem, kind="warning"))

    async def _settled(self, entries: Sequence[Entry], session: str, title: str) -> None:
        chat = self._chat
        self._run, self._stopped = None, False
        if session:
            chat.session, chat.session_title = session, title
            await chat.conversation.settle(entries)
            chat.sprig.remember(session=session)
        chat.busy = chat.prompt.busy = False
        chat.show_title()
        if chat.sprig.settings.screen.bell and not chat.app.app_focus:
            chat.app.bell()
        await chat.send_next()

    async def _not_asked(self, note: n.NotAsked) -> None:
        """The person gets the text back as it was written; the message that was shown for it goes."""
        chat, text = self._chat, note.text
        why = f"{note.why}. In this chat, {MORE_ROOM}." if note.too_long else note.why
        if text is not None:
            if (view := self._live_message()) is not None:
                await chat.conversation.drop(view)
            chat.queue.insert(0, text)
        chat.give_queue_back()
        await chat.conversation.add(Notice(why, kind="error", offers=(MODEL,) if chat.facts is None else ()))

    # Questions about tools.

    async def _ask_person(self, question: n.Question) -> None:
        from tui.widgets.approval.question import ApprovalView

        chat = self._chat
        self._question = question
        view = self._run.call(question.request.call) if self._run is not None else None
        if view is not None:
            view.become("waiting")
        screen = chat.sprig.settings.screen
        await chat.ask(ApprovalView(question.request, grace=screen.approval_grace, reduced_motion=screen.reduced_motion))
        if screen.bell and not chat.app.app_focus:
            chat.app.bell()

    async def stopping(self) -> None:
        """A person has stopped the run; what was under way may take a moment to end."""
        if self._run is not None:
            await self._run.stop()
        else:
            self._stopped = self._chat.busy

    async def answered(self, event: ApprovalView.Decided) -> None:
        """A person has said whether a tool may run."""
        chat = self._chat
        question = self._question
        if question is None:
            return
        await self._end_question()
        if event.rule is not None:
            chat.sprig.keep_rule(event.rule)
        view = self._run.call(question.request.call) if self._run is not None else None
        if view is not None and event.answer.allowed:
            view.become("running")
        chat.conversation.anchor()  # what comes of it is at the end
        chat.work.answered()
        chat.sprig.talk.answer(question.number, event.answer, event.rule)

    async def _end_question(self) -> None:
        self._question = None
        await self._chat.end_question()
