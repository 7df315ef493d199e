"""What the model said: its thought, its words and the tools that it called, in one message."""

from __future__ import annotations

from textual.app import ComposeResult
from textual.widget import Widget
from textual.widgets import Static

from agent.messages import ToolCall
from agent.text import display
from tui.talk.entries import Entry
from tui.widgets.messages.answer_text import AnswerText
from tui.widgets.messages.entry import EntryView
from tui.widgets.messages.thinking import ThinkingView
from tui.widgets.messages.tool_call import ToolCallView


class AnswerMessage(EntryView):
    """One answer; built from what is kept, or growing while it is written."""

    def __init__(self, entry: Entry | None = None, *, fold_after: int = 6) -> None:
        super().__init__(entry)
        self._fold_after = fold_after
        self.thinking: ThinkingView | None = None
        self._words: AnswerText | None = None
        self._calls: dict[str, ToolCallView] = {}  # by id, those that are whole
        self._forming: dict[int, ToolCallView] = {}  # by their place in the answer, until they are whole

    def compose(self) -> ComposeResult:
        if self.entry is not None:
            yield from self._kept(self.entry)
        yield self.branch()

    def _kept(self, entry: Entry) -> ComposeResult:
        message = entry.stored.message
        if message.thinking:
            self.thinking = ThinkingView(message.thinking)
            yield self.thinking
        if message.text:
            self._words = AnswerText(message.text)
            yield self._words
        for call in message.calls:
            yield ToolCallView.of(call, entry.results.get(call.id), fold_after=self._fold_after)
        if entry.stored.state == "partial":
            yield self._broken(nothing=not (message.text or message.calls or message.thinking))

    @staticmethod
    def _broken(*, nothing: bool) -> Static:
        return Static("(stopped before the first word)" if nothing else "(stopped)", markup=False, classes="broken")

    @property
    def text(self) -> str:
        if self._words is not None:
            return self._words.source
        if self.entry is None:
            return ""
        from tui.export.files import message_markdown

        return message_markdown(self.entry.stored)  # calls alone

    @property
    def code_blocks(self) -> list[tuple[str, str]]:
        """(language, code) of each block."""
        return self._words.code_blocks if self._words is not None else []

    # While it is written.

    async def write(self, text: str) -> None:
        if self._words is None:
            self._end_thought()
            self._words = AnswerText("", streaming=True)
            await self._add(self._words)
        self._words.append(text)

    async def think(self, text: str) -> None:
        if self.thinking is None:
            self.thinking = ThinkingView("", done=False)
            await self._add(self.thinking)
        self.thinking.append(text)

    async def form(self, index: int, name: str, text: str) -> None:
        self._end_thought()
        view = self._forming.get(index)
        if view is None:
            view = self._forming[index] = ToolCallView(display(name), fold_after=self._fold_after)
            await self._add(view)
        view.forming(display(name), text)

    async def ready(self, call: ToolCall) -> ToolCallView:
        """A call is whole; its view."""
        view = self._forming.pop(min(self._forming), None) if self._forming else None
        if view is None:
            view = ToolCallView(display(call.name), fold_after=self._fold_after)
            await self._add(view)
        view.ready(call)
        self._calls[call.id] = view
        return view

    def call(self, id: str) -> ToolCallView | None:
        return self._calls.get(id)

    def finish(self) -> None:
        """Nothing more comes."""
        self._end_thought()
        if self._words is not None:
            self._words.finish()
        for view in self._forming.values():
            view.refused("broken off")
        self._forming.clear()
        for view in self._calls.values():
            if view.state in ("ready", "waiting", "running"):  # the run was ended while it ran; nothing more is told of it
                view.refused("ended with the answer")

    async def stop(self) -> None:
        """It was stopped, and ends with that."""
        if not self.query(".broken"):
            nothing = self._words is None and self.thinking is None and not self.query(ToolCallView)
            await self._add(self._broken(nothing=nothing))

    def _end_thought(self) -> None:
        if self.thinking is not None and not self.thinking.done:
            self.thinking.finish()

    async def _add(self, widget: Widget) -> None:
        await self.mount(widget, before=self.query_one(".broken, .branch"))
