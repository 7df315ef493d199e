"""The settings of ``sprig chat``: those of the agent, and those of the screen and its keys, which stand in the same file."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from agent.settings.declare import section, setting, table
from agent.settings.file import SettingsFile
from agent.settings.kinds import NameKind, NumberKind, SwitchKind
from agent.settings.values import Settings
from tui.settings.keys import KeysKind

OWN_THEMES = ("sprig", "sprig-light", "sprig-contrast", "sprig-16")  # known without tui.themes, which needs Textual
_KEYS = """\
# Keys. Give an action other keys: its name, then one key or more. The help
# of the chat (F1) lists the actions, their names and their keys. Such as:
#
#     "app.quit" = "ctrl+q,f10"
[keys]
"""


def _theme_names() -> Sequence[str]:
    from tui.themes import names

    return names()


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """How it looks and behaves."""

    theme: str = setting(
        NameKind("theme", OWN_THEMES, _theme_names),
        "sprig",
        "sprig, sprig-light, sprig-contrast (high contrast), sprig-16 (only the terminal's own 16 colours), "
        "or one of Textual's, such as nord.",
    )
    reduced_motion: bool = setting(SwitchKind(), False, "Nothing moves or blinks by itself.")
    mouse: bool = setting(SwitchKind(), True, "false leaves the mouse to the terminal, for its own way of selecting.")
    line_mode: bool = setting(
        SwitchKind(),
        False,
        "For a slow line, such as SSH over radio: an answer comes line by line, and the screen is drawn rarely.",
    )
    fold_results: int = setting(NumberKind(1, 10_000, whole=True), 8, "A tool's result is folded beyond so many lines.")
    approval_grace: float = setting(
        NumberKind(0, 10),
        0.5,
        "Seconds in which a key does not answer a question that has just appeared, so that what you are typing is never a yes.",
    )
    bell: bool = setting(SwitchKind(), True, "Ring when an answer or a question waits and you are in another window.")


@dataclass(frozen=True, slots=True)
class ChatSettings(Settings):
    """Everything in the file. ``keys``: action id -> its keys, "key,key", as ``App.set_keymap`` takes them."""

    screen: ScreenSettings = section(ScreenSettings, "How it looks and behaves.")
    keys: Mapping[str, str] = table(KeysKind(), lambda: MappingProxyType({}), _KEYS)


def chat_settings(path: Path, actions: Collection[str] | None = None) -> SettingsFile[ChatSettings]:
    """All that a file says; it may not exist yet. ``actions``: ids that ``[keys]`` may name; None does not check them."""
    return SettingsFile(path, ChatSettings, kinds={"keys": KeysKind(actions)})
