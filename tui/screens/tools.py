"""Which tools the model has: Sprig's own to be switched, and those of servers and scripts to be seen."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from textwrap import wrap
from typing import ClassVar, Protocol

from textual import on, work
from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from agent.errors import SprigError
from agent.text import display
from agent.tools.builtin.catalogue import BUILTIN_NAMES
from tui.screens.dialog import BACK, Dialog, KeyHint
from tui.talk.notes import AgentFacts, ToolFacts
from tui.talk.setup import Setup

_WIDE = 64  # columns of the list from which what a tool is for stands beside its name
_BESIDE = 33  # columns of box, name and whether it asks
_NOTE = "With other tools the model reads the conversation once more."


class ServersTools(Protocol):
    """What is done with a server's tool that changed; said where it is written."""

    def difference(self, tool: str) -> str: ...
    def accept(self, tool: str, version: str) -> None: ...


class ToolsScreen(Dialog[tuple[str, ...]]):
    """The result is the names of the built-in tools that are on."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("space", "switch", "Switch", show=False),
        # The list would take Enter for itself.
        Binding("enter,ctrl+s", "apply", "Use them", show=False, priority=True),
    ]
    KEYS: ClassVar[tuple[KeyHint, ...]] = (("Space", "switch", "switch"), ("Enter", "use", "apply"), BACK)

    def __init__(self, setup: Setup, facts: AgentFacts | None, talk: ServersTools) -> None:
        """``facts`` are of the agent as it is; None while there is none."""
        super().__init__("Which tools may the model call?")
        self._setup, self._talk = setup, talk
        self._on = {name for name in setup.tool_names if name in BUILTIN_NAMES}
        self._others = [t for t in facts.tools if t.origin != "builtin"] if facts is not None else []
        self._known = {tool.name: tool for tool in self._others}

    def parts(self) -> Iterable[Widget]:
        yield OptionList(markup=False)
        yield Static(_NOTE, id="about", markup=False)

    def on_mount(self) -> None:
        self._describe()

    @work
    async def _describe(self) -> None:
        """What each is for is in the tools themselves, which are loaded behind the screen."""
        self._known |= await asyncio.to_thread(described, self._setup.root)
        self._fill()

    def on_resize(self) -> None:
        options = self.query_one(OptionList)
        options.styles.max_height = self.list_height(14)
        self.call_after_refresh(self._fill)

    def _fill(self) -> None:
        options = self.query_one(OptionList)
        at = options.highlighted or 0
        options.set_options([Option(self._row(name)) for name in [*BUILTIN_NAMES, *(t.name for t in self._others)]])
        options.highlighted = at

    def _row(self, name: str) -> Content:
        tool = self._known.get(name) or ToolFacts(name, "", "", "builtin")
        own = name in BUILTIN_NAMES
        box = ("[x] " if name in self._on else "[ ] ") if own else " ·  "
        asks = "changed" if tool.changed else {"ask": "asks first", "deny": "denied"}.get(tool.approval, "")
        about = display(tool.about.partition("\n")[0])[:300]
        wide = self.query_one("#dialog").content_size.width >= _WIDE
        column = _BESIDE if wide else len(box)
        room = self.query_one(OptionList).scrollable_content_region.width - column
        lines = [Content(" " * column + line) for line in wrap(about, max(10, room))]
        if wide:
            name_and_word = Content.assemble(box, (f"{display(name):<16} ", "bold"), f"{asks:<11} ")
            lines[:1] = [Content.assemble(name_and_word, line[column:]) for line in lines[:1]] or [name_and_word]
        else:
            lines.insert(0, Content.assemble(box, (display(name), "bold"), f" · {asks}" if asks else ""))
        return Content("\n").join(lines)

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        at = event.option_index
        if at < len(BUILTIN_NAMES):
            self.say(_NOTE)
            return
        tool = self._known[self._others[at - len(BUILTIN_NAMES)].name]
        if tool.changed:
            self.say("It is not as you knew it, so it is asked for each time. Space shows what changed.")
            return
        server = next((s.name for s in self._setup.mcp if tool.name.startswith(f"{s.name}__")), None)
        self.say(f"From the MCP server {server}; /mcp remove {server} takes it away." if server else "From a script.")

    @on(OptionList.OptionSelected)
    def action_switch(self) -> None:
        options = self.query_one(OptionList)
        at = options.highlighted
        if at is None:
            return
        if at >= len(BUILTIN_NAMES):
            self._look_at(at, self._known[self._others[at - len(BUILTIN_NAMES)].name])
            return
        self._on ^= {BUILTIN_NAMES[at]}
        options.replace_option_prompt_at_index(at, self._row(BUILTIN_NAMES[at]))

    def _look_at(self, at: int, tool: ToolFacts) -> None:
        """Show what changed of a server's tool."""
        if not tool.changed:
            return
        from tui.screens.change import ChangeScreen

        def decided(accepted: bool | None) -> None:
            if accepted:
                self._talk.accept(tool.name, tool.changed)
                self._known[tool.name] = replace(tool, changed="")
                options = self.query_one(OptionList)
                options.replace_option_prompt_at_index(at, self._row(tool.name))
                self.say("Accepted: your rules cover it again.")

        self.app.push_screen(ChangeScreen(tool.name, self._talk.difference(tool.name)), decided)

    def action_apply(self) -> None:
        self.dismiss(tuple(name for name in BUILTIN_NAMES if name in self._on))


def described(root: Path) -> dict[str, ToolFacts]:
    """What is known of the built-in tools; nothing if the root is not a folder."""
    from agent.tools.builtin.catalogue import builtin

    try:
        return {t.name: ToolFacts(t.name, t.spec.description, t.approval, t.origin) for t in builtin(root=root)}
    except SprigError:
        return {}
