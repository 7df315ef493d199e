"""Keys that a person has given to actions: ``[keys]`` of the settings."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from agent.settings.kinds import Kind, Where, WrongSetting, check, name
from agent.text.nearest import nearest

_MODIFIERS = ("ctrl", "shift", "alt", "super", "hyper", "meta")


class KeysKind(Kind):
    """Action id -> "key,key" in Textual's names. An id with dots may be quoted or not."""

    def __init__(self, actions: Collection[str] | None = None) -> None:
        """``actions`` are the ids that there are; None does not check them."""
        self.actions = actions

    def read(self, value: Any, where: Where) -> Mapping[str, str]:
        check(isinstance(value, dict), where, value, "is a table: write its settings below a line with [keys]")
        found: dict[str, str] = {}
        for place, keys in _flat(value, where):
            action = ".".join(str(part) for part in place[1:])
            if self.actions is not None and action not in self.actions:
                meant = nearest(action, self.actions)
                hint = f"did you mean {meant}?" if meant else "the help of the chat (F1) lists them"
                raise WrongSetting(place, f"{name(place)}: there is no such action; {hint}")
            check(isinstance(keys, str), place, keys, 'is a text: "ctrl+q" or, for two keys, "ctrl+q,f10"')
            # A comma is a key as well: alone, or at the end of a key with modifiers it is called comma.
            parts = ["comma"] if keys.strip() == "," else keys.split(",")
            found[action] = ",".join(_key(part.strip(), place) for part in parts)
        return MappingProxyType(found)


def _flat(table: Mapping[str, Any], where: Where) -> Iterator[tuple[Where, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, (*where, key))
        else:
            yield (*where, key), value


def _key(text: str, where: Where) -> str:
    *modifiers, base = text.split("+") if text not in ("+", "") else [text]
    if not base:
        raise WrongSetting(where, f'{name(where)} has an empty key; write "ctrl+q", or "ctrl+q,f10" for two keys')
    for modifier in modifiers:
        if modifier not in _MODIFIERS:
            raise WrongSetting(where, f'{name(where)}: "{name((modifier,))}" is no modifier; there are {", ".join(_MODIFIERS)}')
    return "+".join([*modifiers, _base(base, where)])


def _base(base: str, where: Where) -> str:
    from textual.keys import KEY_NAME_REPLACEMENTS, Keys, key_to_character

    if len(base) == 1 and base.isalnum():
        return base
    if len(base) == 1:
        # Textual knows "?" as question_mark, and a keymap is not translated by it.
        unicode_name = unicodedata.name(base, "").lower().replace(" ", "_").replace("-", "_")
        if unicode_name and base.isprintable():
            return KEY_NAME_REPLACEMENTS.get(unicode_name, unicode_name)
    known = {str(key.value) for key in Keys if not key.value.startswith("<")} | set(KEY_NAME_REPLACEMENTS.values())
    if base in known or key_to_character(base) is not None:
        return base
    meant = nearest(base, known)
    hint = f"did you mean {meant}?" if meant else "keys are called a, f1, enter, pageup, question_mark ..."
    raise WrongSetting(where, f'{name(where)}: there is no key "{name((base,))}"; {hint}')
