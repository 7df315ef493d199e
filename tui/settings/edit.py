"""Writing one change into the text of a settings file, and leaving every other character as its owner wrote it.

There are several ways to write a change, from the one that reads best to the one that works in the oddest file. Each is tried
on the text, and the first whose tables are the old ones with that change, and nothing else, is taken.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from agent.text import display
from tui.settings.schema import option
from tui.settings.text import commented

_HEADER = re.compile(r"\s*\[")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")  # str.splitlines would also split at U+2028 and such
_RULE = re.compile(r"\s*\[\[\s*rules\s*\]\]")


def with_value(text: str, way: list[str], value: Any, wanted: Mapping[str, Any]) -> str | None:
    """The text with a value set.

    Args:
        text: TOML without errors, its lines ended by newlines alone.
        way: keys from the top.
        value: as tomllib would read it.
        wanted: the tables that the new text must hold.

    Returns:
        The new text; None when the file is written in a way that none of ours fits.
    """
    return next((new for new in _ways_to_set(text, way, value) if _says(new, wanted)), None)


def with_rule(text: str, rule: Mapping[str, Any], wanted: Mapping[str, Any]) -> str | None:
    """The text with one more table in ``[[rules]]``, otherwise as ``with_value``."""
    return next((new for new in _ways_to_add(text, rule) if _says(new, wanted)), None)


def _says(text: str, wanted: Mapping[str, Any]) -> bool:
    try:
        return _same(tomllib.loads(text), wanted)
    except ValueError:
        return False


def _same(a: Any, b: Any) -> bool:
    """Equal, and of the same types: 1, 1.0 and true are not."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return type(a) is type(b) and bool(a == b)


def _ways_to_set(text: str, way: list[str], value: Any) -> Iterator[str]:
    """The whole text with the value set: in its place, or where it is commented out, or in its table, or in a new one."""
    *table, last = way
    lines = _LINE.findall(text)
    setting = f"{_key([last])} = {_toml(value)}\n" if not isinstance(value, dict) else ""
    start, end = _section(lines, table)
    if setting and not _is_set(text, way):
        one = option(".".join(way))
        for at in range(start, end):
            if one is not None and lines[at].strip() == commented(one):
                yield _put(lines, at, setting, instead=True)
        mine = re.compile(rf"\s*#\s?{re.escape(last)}\s*=")
        for at in range(start, end):
            if mine.match(lines[at]):
                yield _put(lines, at + 1, setting)
        if at := _after_last(lines, start, end):
            yield _put(lines, at, setting)
        if table:
            yield _end(text, f"[{_key(table)}]\n{setting}")
    elif isinstance(value, dict) and not _is_set(text, way):
        fields = "".join(f"{_key([k])} = {_toml(v)}\n" for k, v in value.items())
        block = f"[{_key(way)}]\n{fields}"
        if at := _rules_begin(lines):
            yield _put(lines, at, f"{block}\n")
        yield _end(text, block)
    yield from _by_tomlkit(text, way, value)


def _ways_to_add(text: str, rule: Mapping[str, Any]) -> Iterator[str]:
    lines = _LINE.findall(text)
    block = "[[rules]]\n" + "".join(f"{k} = {_toml(v)}\n" for k, v in rule.items())
    headers = [i for i, line in enumerate(lines) if _RULE.match(line)]
    if headers:
        start = headers[-1] + 1
        end = next((i for i in range(start, len(lines)) if _HEADER.match(lines[i])), len(lines))
        if (at := _after_last(lines, start - 1, end)) != len(lines):
            yield _put(lines, at, f"\n{block}")
    yield _end(text, block)
    yield from _by_tomlkit(text, ["rules"], rule)


def _by_tomlkit(text: str, way: list[str], value: Any) -> Iterator[str]:
    import tomlkit
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        holder: Any = document
        for part in way[:-1]:
            holder = holder.setdefault(part, tomlkit.table())
        if way == ["rules"]:
            holder["rules"].append(value)
        else:
            holder[way[-1]] = value
        yield tomlkit.dumps(document)
    except (TOMLKitError, LookupError, TypeError, ValueError, AttributeError):
        return


def _toml(value: Any) -> str:
    import tomlkit

    if isinstance(value, dict):
        table = tomlkit.inline_table()
        table.update(value)
        return str(table.as_string())
    plain = isinstance(value, str) and '"""' not in value and "\\" not in value and display(value, lines=True) == value
    if plain and "\n" in value:
        return f'"""\n{value}"""'
    return str(tomlkit.item(value).as_string())


def _key(way: list[str]) -> str:
    import tomlkit

    return ".".join(tomlkit.key(part).as_string() for part in way)


def _is_set(text: str, way: list[str]) -> bool:
    inner: Any = tomllib.loads(text)
    for part in way:
        if not isinstance(inner, dict) or part not in inner:
            return False
        inner = inner[part]
    return True


def _section(lines: list[str], table: list[str]) -> tuple[int, int]:
    """First line of a table's own settings, and the line after its last; an empty range when there is no such header."""
    start = 0
    if table:
        header = re.compile(rf"\s*\[\s*{re.escape('.'.join(table))}\s*\]")
        start = next((i + 1 for i, line in enumerate(lines) if header.match(line)), len(lines))
    return start, next((i for i in range(start, len(lines)) if _HEADER.match(lines[i])), len(lines))


def _after_last(lines: list[str], start: int, end: int) -> int:
    """After the last line of a section that is no comment; its header counts."""
    live = [i for i in range(max(start - 1, 0), end) if lines[i].strip() and not lines[i].lstrip().startswith("#")]
    return live[-1] + 1 if live else 0


def _rules_begin(lines: list[str]) -> int:
    """The line from which the comment before the first rule speaks; 0 when there is no rule and no such comment."""
    at = next((i for i, line in enumerate(lines) if line.startswith(("# Rules:", "[[rules]]"))), 0)
    while at > 1 and lines[at - 1].startswith("#"):
        at -= 1
    return at


def _put(lines: list[str], at: int, new: str, *, instead: bool = False) -> str:
    before = "".join(lines[:at])
    if before and not before.endswith("\n"):
        before += "\n"
    return before + new + "".join(lines[at + instead :])


def _end(text: str, block: str) -> str:
    return f"{text.rstrip()}\n\n{block}" if text.strip() else block
