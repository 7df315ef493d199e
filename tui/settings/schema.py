"""The one list of settings: what each is called, what it takes, what it is good for. Reading, checking and teaching follow it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from tui.settings.keys import read_keys
from tui.settings.kinds import Choice, Items, Kind, Known, Number, Switch, Text, Where, WrongSetting, name, nearest, wrong
from tui.settings.parts import read_rules, read_servers
from tui.settings.values import OWN_THEMES, Settings


def _builtin_names() -> Sequence[str]:
    from agent.tools.builtin.catalogue import BUILTIN_NAMES

    return BUILTIN_NAMES


def _theme_names() -> Sequence[str]:
    from tui.themes import names

    return names()


@dataclass(frozen=True, slots=True)
class Option:
    """A setting: its key from the top of the file, its kind, and a comment that teaches it."""

    key: str
    kind: Kind
    teach: str

    @property
    def where(self) -> tuple[str, ...]:
        return tuple(self.key.split("."))


OPTIONS: tuple[Option, ...] = (
    Option(
        "model",
        Text(),
        'The model to open: a file, or a name that `sprig models` lists. "" asks when the chat starts.',
    ),
    Option(
        "system",
        Text(lines=True),
        'The system prompt: who the model is and how it should answer. "" leaves it to the model. Three quotes hold many lines:\n'
        '"""You are ...\nAnswer in one sentence."""',
    ),
    Option(
        "root",
        Text(folder=True),
        'The folder that file tools and commands never leave, such as "~/notes". "" is where you start the chat.',
    ),
    Option(
        "tools",
        Items(Known("built-in tool", Settings().tools, _builtin_names)),
        "Tools the model may use. Each takes a part of the context, so a small model is better off with few. "
        "Also there: write_file, edit_file, run_command, fetch_url, query_sqlite, remember, recall, set_timer, list_timers, "
        "device_status.",
    ),
    Option(
        "thinking",
        Choice(("auto", "on", "off")),
        'Thinking before an answer, where the model can: "on", "off", or "auto" for the model\'s own habit.',
    ),
    Option(
        "unconfined",
        Switch(),
        "Let rules (see the end of this file) allow commands also on a machine where nothing keeps a command from files outside "
        "the root.",
    ),
    Option("sampling.temperature", Number(0, 2, word="auto"), "0 always takes the likeliest word; 1 is lively; 2 is the most."),
    Option("sampling.top_k", Number(0, 100_000, whole=True, word="auto"), "Draw among so many words; 0 for all."),
    Option("sampling.top_p", Number(0, 1, word="auto"), "Draw among the likeliest that make up this probability."),
    Option("sampling.min_p", Number(0, 1, word="auto"), "Leave out what is less likely than this part of the likeliest."),
    Option(
        "sampling.repeat_penalty", Number(0.5, 2, word="auto"), "Above 1, words among the last 64 become less likely; 1 is none."
    ),
    Option(
        "sampling.seed",
        Number(0, 2**32 - 1, whole=True, word="auto"),
        'A number makes the draws the same each time; "auto" does not.',
    ),
    Option("sampling.max_tokens", Number(1, 1_000_000, whole=True), "Tokens after which an answer is cut off."),
    Option("limits.rounds", Number(1, 1000, whole=True), "Answers to one message; tools are called between them."),
    Option(
        "limits.seconds",
        Number(1, 604_800, word="none"),
        'Time for one message, tools included; "none" for as long as it takes.',
    ),
    Option(
        "engine.context",
        Number(256, 16_777_216, whole=True, word="auto"),
        'Tokens that a conversation may hold; more take more memory. "auto" takes what is usual, as far as it fits.',
    ),
    Option(
        "engine.cache",
        Choice(("f16", "q8_0")),
        '"q8_0" keeps the context in half the memory of "f16"; slower on some processors.',
    ),
    Option("engine.threads", Number(1, 1024, whole=True, word="auto"), '"auto" takes every core there is.'),
    Option(
        "screen.theme",
        Known("theme", OWN_THEMES, _theme_names),
        "sprig, sprig-light, sprig-contrast (high contrast), sprig-16 (only the terminal's own 16 colours), "
        "or one of Textual's, such as nord.",
    ),
    Option("screen.reduced_motion", Switch(), "Nothing moves or blinks by itself."),
    Option("screen.mouse", Switch(), "false leaves the mouse to the terminal, for its own way of selecting."),
    Option(
        "screen.line_mode",
        Switch(),
        "For a slow line, such as SSH over radio: an answer comes line by line, and the screen is drawn rarely.",
    ),
    Option("screen.fold_results", Number(1, 10_000, whole=True), "A tool's result is folded beyond so many lines."),
    Option(
        "screen.approval_grace",
        Number(0, 10),
        "Seconds in which a key does not answer a question that has just appeared, so that what you are typing is never a yes.",
    ),
    Option("screen.bell", Switch(), "Ring when an answer or a question waits and you are in another window."),
)

_TABLES = tuple(f.name for f in fields(Settings) if any(o.key.startswith(f"{f.name}.") for o in OPTIONS))
_TOP = (*(o.key for o in OPTIONS if "." not in o.key), *_TABLES, "keys", "mcp", "rules")


def option(key: str) -> Option | None:
    """The setting with this dotted key, if there is one."""
    return next((o for o in OPTIONS if o.key == key), None)


def default(one: Option) -> Any:
    """Its default, as the program has it."""
    value: Any = Settings()
    for part in one.where:
        value = getattr(value, part)
    return value


def read(data: Mapping[str, Any], known_actions: Collection[str] | None = None) -> Settings:
    """Settings from the tables of a file.

    Args:
        data: as tomllib gives them.
        known_actions: ids of the actions that keys may be given to; None does not check them.

    Raises:
        WrongSetting: with the place in ``data`` that is wrong.
    """
    _no_others(data, (), _TOP)
    for table in _TABLES:
        part = data.get(table, {})
        if not isinstance(part, dict):
            raise wrong((table,), part, f"is a table: write its settings below a line with [{table}]")
        _no_others(part, (table,), [o.where[1] for o in OPTIONS if o.where[0] == table])
    found: dict[str, dict[str, Any]] = {"": {}}
    for one in OPTIONS:
        *tables, last = one.where
        holder: Any = data.get(tables[0], {}) if tables else data
        if last in holder:
            found.setdefault(".".join(tables), {})[last] = one.kind.read(holder[last], one.where)
    plain = Settings()
    parts = {table: replace(getattr(plain, table), **values) for table, values in found.items() if table}
    return replace(
        plain,
        **found[""],
        **parts,
        keys=read_keys(data.get("keys", {}), known_actions),
        mcp=read_servers(data.get("mcp", {})),
        rules=read_rules(data.get("rules", [])),
    )


def _no_others(table: Mapping[str, Any], where: Where, known: Sequence[str]) -> None:
    for key in table:
        if key in known:
            continue
        raise WrongSetting((*where, key), f"{name((*where, key))} is unknown; {_hint(key, where, known)}")


def _hint(key: str, where: Where, known: Sequence[str]) -> str:
    home = next((o for o in OPTIONS if o.where[-1] == key), None)
    if home is not None:
        place = f"below [{home.where[0]}]" if len(home.where) > 1 else "above the first [table]"
        return f"{key} belongs {place}"
    if meant := nearest(key, known):
        return f"did you mean {meant}?"
    everywhere = {o.where[-1]: o.key for o in OPTIONS}
    if meant := nearest(key, everywhere):
        return f"did you mean {everywhere[meant]}?"
    return f"there are {', '.join(known)}"
