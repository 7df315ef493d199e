"""The actions that keys are given to: their ids, what they do, and their keys as they are now."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module

# First part of an id -> what a person calls it, in the order of the help.
_GROUPS = {
    "prompt": "Writing",
    "chat": "Conversation",
    "message": "Messages (Ctrl+↑ goes to them)",
    "call": "Tool calls",
    "sessions": "Sessions panel",
    "status": "Status line",
    "app": "Everywhere",
}
# Modules that are loaded when they are first wanted, beside what the application brings with it.
_WITH_KEYS = ("tui.app", "tui.widgets.sessions.panel", "tui.widgets.sessions.list", "tui.widgets.messages.tool_call")
_SIGNS = {
    "up": "↑", "down": "↓", "left": "←", "right": "→", "escape": "Esc", "enter": "Enter", "tab": "Tab", "space": "Space",
    "pageup": "PageUp", "pagedown": "PageDown", "delete": "Del", "backspace": "Backspace", "home": "Home", "end": "End",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Action:
    """Something that a key does.

    Attributes:
        id: as ``[keys]`` of the settings names it.
        about: what it does.
        keys: in Textual's names.
        group: where it can be done.
    """

    id: str
    about: str
    keys: tuple[str, ...]
    group: str

    @property
    def shown(self) -> str:
        """Its keys as they stand on a keyboard."""
        return ", ".join(map(key_name, self.keys))


def actions(given: Mapping[str, str]) -> list[Action]:
    """Every action of the chat, group by group. ``given`` are the keys of the settings: id -> "key,key"."""
    from textual.binding import Binding

    found: dict[str, Action] = {}
    for cls in _bound_classes():
        for binding in Binding.make_bindings(vars(cls)["BINDINGS"]):
            if not binding.id:
                continue
            here = found.get(binding.id)
            keys = tuple(given[binding.id].split(",")) if binding.id in given else (*(here.keys if here else ()), binding.key)
            part = binding.id.partition(".")[0]
            found[binding.id] = Action(binding.id, binding.description, keys, _GROUPS.get(part, part.capitalize()))
    order = list(_GROUPS.values())
    return sorted(found.values(), key=lambda a: order.index(a.group) if a.group in order else len(order))


def action_ids() -> frozenset[str]:
    """The ids, to check settings against."""
    return frozenset(action.id for action in actions({}))


def _bound_classes() -> list[type]:
    """Everything of the chat that has keys of its own, in an order that does not depend on what was loaded first."""
    from textual.dom import DOMNode

    for module in _WITH_KEYS:
        import_module(module)
    found: set[type] = set()
    rest: list[type] = [DOMNode]
    while rest:
        cls = rest.pop()
        if cls not in found:
            found.add(cls)
            rest += cls.__subclasses__()
    ours = [cls for cls in found if cls.__module__.startswith("tui.") and vars(cls).get("BINDINGS")]
    return sorted(ours, key=lambda cls: (cls.__module__, cls.__qualname__))


def key_name(key: str) -> str:
    """A key as a person knows it: "ctrl+o" is "Ctrl+O"."""
    from textual.keys import format_key

    *modifiers, base = key.strip().split("+")
    shown = _SIGNS.get(base) or format_key(base)
    if modifiers or (base.startswith("f") and base[1:].isdigit()):
        shown = shown.upper() if len(shown) == 1 else shown[:1].upper() + shown[1:]
    return "+".join([*(m.capitalize() for m in modifiers), shown])
