"""How words are drawn, as a person types it: each value read and checked as in the settings file."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from agent.errors import SprigError
from agent.settings.declare import each_setting, find_setting
from agent.settings.kinds import NumberKind, hint
from agent.settings.values import SamplingSettings
from tui.talk.setup import Setup

NAMES = tuple(one.key for one in each_setting(SamplingSettings))
Values = Mapping[str, float | int | None]  # None leaves it to the model; of max_tokens, to Sprig
DEFAULT_TOKENS = SamplingSettings().max_tokens


def limits(name: str) -> str:
    """From where to where a value goes: "0 to 2"."""
    kind = _kind(name)
    return f"{kind.least:g} to {kind.most:,.0f}".replace(",", " ")


def read(name: str, text: str) -> float | int | None:
    """A value as it was typed; nothing, or "auto", is None. SprigError says in one line what it may be."""
    kind, text = _kind(name), text.strip()
    if text in ("", "auto"):
        return None
    return kind.read(_number(text), (name,))


def read_pairs(text: str) -> Values:
    """``temperature=0.2 seed=7``. SprigError as ``read``, or when it is written otherwise."""
    found: dict[str, float | int | None] = {}
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals:
            raise SprigError(f"{word[:40]!r} is not written as name=value: /sampling temperature=0.2 seed=7")
        found[name] = read(name, value)
    return found


def current(setup: Setup) -> Values:
    """What was chosen."""
    return {**{name: setup.sampling.get(name) for name in NAMES}, "max_tokens": setup.max_tokens}


def changed(setup: Setup, values: Values) -> Setup:
    """The setup with these values; what they do not name stays."""
    now = {**current(setup), **values}
    tokens = now.pop("max_tokens")
    sampling = {name: value for name, value in now.items() if value is not None}
    return replace(setup, sampling=sampling, max_tokens=int(tokens) if tokens is not None else DEFAULT_TOKENS)


def said(setup: Setup) -> str:
    """What was chosen, in a line."""
    chosen = ", ".join(f"{name} {value:g}" for name, value in setup.sampling.items() if value is not None)
    return f"{chosen or 'as the model has it'}; at most {setup.max_tokens:,} tokens"


def _kind(name: str) -> NumberKind:
    one = find_setting(SamplingSettings, name)
    if one is None or not isinstance(one.kind, NumberKind):
        raise SprigError(f"there is no {name[:40]!r} in sampling; {hint(name, NAMES)}")
    return one.kind


def _number(text: str) -> float | int | str:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text
