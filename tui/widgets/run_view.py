"""One run of the agent in the conversation: its events become messages, calls and notices."""

from __future__ import annotations

from agent import events as e
from agent.messages import ToolCall
from tui.widgets.conversation import Conversation
from tui.widgets.messages.answer import AnswerMessage
from tui.widgets.messages.notice import Notice
from tui.widgets.messages.tool_call import ToolCallView

AGAIN = ("again", "Try again")
GO_ON = ("go-on", "Go on")
MODEL = ("model", "Another model")
OPEN = ("open", "Try again")
SMALLER = ("smaller", "A context that fits")

# How a run ended that did not end by itself: what is said, and what is offered.
_ENDED: dict[str, tuple[str, tuple[tuple[str, str], ...]]] = {
    "length": ("The answer was cut off at its limit of tokens (/sampling max_tokens=...).", (GO_ON,)),
    "rounds": ("The model was still calling tools when its rounds were used up.", (GO_ON,)),
    "time": ("The time for this answer was up.", (GO_ON, AGAIN)),
    "context": ("The context is full. A new conversation begins with an empty one.", (("new", "New conversation"), AGAIN)),
    "loop": ("The model repeated itself without end and was stopped.", (AGAIN,)),
    "repeated call": ("The model made the same call again and again and was stopped.", (AGAIN,)),
}


class RunView:
    """Shows one run: takes its events, and adds messages and notices to the conversation."""

    def __init__(self, conversation: Conversation, *, fold_after: int) -> None:
        self._conversation, self._fold_after = conversation, fold_after
        self._answer: AnswerMessage | None = None
        self._by_call: dict[str, AnswerMessage] = {}
        self._results = False  # whether tools have answered since the model last spoke: what comes is another answer
        self._problem = ""

    async def show(self, event: e.Event) -> None:
        """Put an event on the screen. Loading and Prefill are the status line's."""
        if self._problem and not isinstance(event, e.Done):
            await self._say(self._problem, "warning")
            self._problem = ""
        match event:
            case e.Text(text):
                await (await self._current()).write(text)
            case e.Thought(text):
                await (await self._current()).think(text)
            case e.CallForming(index, name, text):
                await (await self._current()).form(index, name, text)
            case e.CallReady(call):
                answer = await self._current()
                await answer.ready(call)
                self._by_call[call.id] = answer
            case e.CallRefused(call, why):
                (await self._view(call)).refused(why)
                self._results = True
            case e.ToolProgress(call, text):
                (await self._view(call)).progress(text)
            case e.ToolDone():
                (await self._view(event.call)).done(event.ok, event.text, event.seconds, event.cut, event.data)
                self._results = True
            case e.Compacted(what, before, after):
                await self._say(f"The context was full: {what} ({before:,} tokens to {after:,}).", "note")
            case e.Problem(text):
                self._problem = text
            case e.Done(result):
                await self._done(result)

    async def stop(self) -> None:
        """A person has stopped it: say so at once, below what was said."""
        await (self._answer or await self._current()).stop()

    def call(self, call: ToolCall) -> ToolCallView | None:
        """The view of a call, if it is shown."""
        answer = self._by_call.get(call.id)
        return answer.call(call.id) if answer is not None else None

    async def _current(self) -> AnswerMessage:
        if self._answer is None or self._results:
            if self._answer is not None:
                self._answer.finish()
            self._answer, self._results = AnswerMessage(fold_after=self._fold_after), False
            await self._conversation.add(self._answer)
        return self._answer

    async def _view(self, call: ToolCall) -> ToolCallView:
        view = self.call(call)
        if view is None:
            answer = self._answer or await self._current()
            view = await answer.ready(call)
            self._by_call[call.id] = answer
        return view

    async def _done(self, result: e.Result) -> None:
        if self._answer is not None:
            self._answer.finish()
        if self._problem and self._problem != result.error:
            await self._say(self._problem, "warning")
        self._problem = ""
        if result.reason == "error":
            await self._conversation.add(Notice(result.error or "it ended with an error", kind="error", offers=(AGAIN, MODEL)))
        elif result.reason in _ENDED:
            text, offers = _ENDED[result.reason]
            await self._conversation.add(Notice(text, kind="warning", offers=offers))

    async def _say(self, text: str, kind: str) -> None:
        await self._conversation.add(Notice(text, kind=kind))
