"""How settings are declared: as fields of a dataclass. Reading, checking, editing and the explained file follow from that."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, TypeVar

from agent.engine.options import ANSWERS, FOREIGN
from agent.settings.kinds import Kind, Where, check, hint, unknown
from agent.text.nearest import nearest

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Setting:
    """A setting as it was declared."""

    where: tuple[str, ...]  # its keys from the top of the file
    default: Any
    teach: str  # a comment that explains it
    kind: Kind = field(default_factory=Kind)
    section: type | None = None  # the dataclass of a [table] with fixed keys
    free: bool = False  # a table whose keys a person chooses; ``teach`` stands in the explained file as it is

    @property
    def key(self) -> str:
        return ".".join(self.where)


def setting(kind: Kind, default: Any, teach: str) -> Any:
    """A field that holds one value."""
    return field(default=default, metadata={"kind": kind, "teach": teach})


def section(form: type, teach: str) -> Any:
    """A field that holds the settings of ``form``, a [table] of the file."""
    return field(default_factory=form, metadata={"section": form, "teach": teach})


def table(kind: Kind, default: Callable[[], Any], teach: str) -> Any:
    """A field that holds tables with free keys; ``teach`` is their part of the explained file."""
    return field(default_factory=default, metadata={"kind": kind, "teach": teach, "free": True})


def declared(form: type) -> tuple[Setting, ...]:
    """The fields of a dataclass, in order."""
    plain = form()
    return tuple(Setting((f.name,), getattr(plain, f.name), **f.metadata) for f in fields(form))


def each_setting(form: type) -> tuple[Setting, ...]:
    """Every setting that holds one value; those in sections with their whole keys."""
    found: list[Setting] = []
    for one in declared(form):
        if one.section is not None:
            found += (Setting((*one.where, *o.where), o.default, o.teach, o.kind) for o in declared(one.section))
        elif not one.free:
            found.append(one)
    return tuple(found)


def find_setting(form: type, key: str) -> Setting | None:
    """The setting with this dotted key, if there is one."""
    return next((o for o in each_setting(form) if o.key == key), None)


def by_key(settings: Any) -> dict[str, Any]:
    """Every value of some settings under its dotted key, tables with free keys as they are."""
    found: dict[str, Any] = {}
    for one in declared(type(settings)):
        value = getattr(settings, one.key)
        found |= {f"{one.key}.{key}": inner for key, inner in by_key(value).items()} if one.section else {one.key: value}
    return found


def read(form: type[S], data: Mapping[str, Any], kinds: Mapping[str, Kind]) -> S:
    """The settings that the tables of a file hold. Raises WrongSetting with the place in ``data`` that is wrong.

    ``kinds`` are used in the place of those declared, for some keys of the top.
    """
    return _read(form, data, (), kinds, form)


def _read(form: type[S], data: Mapping[str, Any], where: Where, kinds: Mapping[str, Kind], top: type) -> S:
    known = {one.where[0]: one for one in declared(form)}
    for key in data:
        if key not in known:
            raise unknown((*where, key), _hint(top, key, tuple(known)))
    found = {}
    for key, one in known.items():
        if key not in data:
            continue
        if one.section is None:
            found[key] = kinds.get(key, one.kind).read(data[key], (*where, key))
        else:
            how = f"is a table: write its settings below a line with [{key}]"
            check(isinstance(data[key], dict), (*where, key), data[key], how)
            found[key] = _read(one.section, data[key], (*where, key), {}, top)
    return form(**found)


def _hint(top: type, key: str, known: tuple[str, ...]) -> str:
    everywhere = {o.where[-1]: o for o in each_setting(top)}
    if key in everywhere:
        home = everywhere[key].where
        return f"{key} belongs {f'below [{home[0]}]' if len(home) > 1 else 'above the first [table]'}"
    if ours := everywhere.get(FOREIGN.get(key, "")):
        return f"here it is {ours.key}"
    if key in ANSWERS:
        return ANSWERS[key]
    if nearest(key, known) is None and (meant := nearest(key, everywhere)):
        return f"did you mean {everywhere[meant].key}?"
    return hint(key, known)
