"""What Sprig writes into a settings file: at first all of it, explained; later one change, which leaves the rest as it was.

There are several places for a change, from the one that reads best to the one that works in the oddest file. Each gives a whole
new text. The first text that holds the wanted values, and no others, is taken.
"""

from __future__ import annotations

import contextlib
import re
import textwrap
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Item, Table

from agent.settings.declare import Setting, declared
from agent.text import display

Data = Mapping[str, Any]
_WIDTH = 74  # columns of a comment
_HEAD = """\
# Settings of Sprig: `sprig chat` and `sprig ask` read them, and scripts
# with Agent.from_settings(). What a command line says comes first.
#
# A line that begins with # and no space holds a setting at its default: to
# change it, take the # away. What you delete is at its default again.
# The file is checked whenever it is read; /settings in the chat reads it
# again.
"""


def default_text(form: type) -> str:
    """The whole file. Taking the ``#`` from every line that has no space after it leaves all at its default."""
    parts = declared(form)
    text = [_HEAD, *(_explained(one) for one in parts if one.section is None and not one.free)]
    for one in parts:
        if one.section is not None:
            text += [f"\n# {one.teach}\n[{one.key}]\n", *map(_explained, declared(one.section))]
    return "\n".join([*text, *(one.teach for one in reversed(parts) if one.free)])


def commented(one: Setting) -> str:
    """The line that holds a setting at its default."""
    return f"#{_lines({one.where[-1]: one.kind.write(one.default)})}"


def _explained(one: Setting) -> str:
    lines = (part for line in one.teach.splitlines() for part in textwrap.wrap(line, _WIDTH, break_on_hyphens=False))
    return "".join(f"# {line}\n" for line in lines) + commented(one)


def changed(text: str, where: Sequence[str], value: Any, wanted: Data, one: Setting | None) -> str | None:
    """The text with a value set, or with one more of the ``[[rules]]``; None when no place in the file fits.

    Args:
        text: TOML without errors, its lines ended by newlines alone.
        where: keys from the top.
        wanted: all that the new text must hold.
        one: the setting, whose commented default makes room; None for what has none.
    """
    for new in _texts(text, where, value, commented(one).rstrip() if one is not None else ""):
        with contextlib.suppress(ValueError):
            if tomllib.loads(new) == wanted:
                return new
    return None


def _texts(text: str, where: Sequence[str], value: Any, default: str) -> Iterator[str]:
    *table, last = where
    header = tomlkit.key(where).as_string()
    if where == ["rules"]:
        yield _at_the_end(text, f"[[{header}]]\n{_lines(value)}")
    elif isinstance(value, dict):
        block = f"[{header}]\n{_lines(value)}"
        before, rules, after = text.partition("# Rules:")  # servers come before the comment on rules
        yield f"{before}{block}\n{rules}{after}" if rules else _at_the_end(text, block)
    else:
        line = _lines({last: value})
        mention = re.compile(rf"[ \t]*#[ ]?{re.escape(last)}[ \t]*=")
        lines = re.findall(r"[^\n]*\n|[^\n]+", text)  # str.splitlines would also split at U+2028 and such
        mentions = [i for i, other in enumerate(lines) if mention.match(other)]
        for i in sorted(mentions, key=lambda i: lines[i].strip() != default):  # the default itself makes room
            kept = [] if lines[i].strip() == default else [lines[i]]
            yield "".join([*lines[:i], *kept, line, *lines[i + 1 :]])
        if table and table[0] not in tomllib.loads(text):
            yield _at_the_end(text, f"[{tomlkit.key(table).as_string()}]\n{line}")
    yield from _by_tomlkit(text, where, value)


def _by_tomlkit(text: str, where: Sequence[str], value: Any) -> Iterator[str]:
    *table, last = where
    try:
        document = tomlkit.parse(text)
        holder: Any = document
        for part in table:
            holder = holder.setdefault(part, tomlkit.table())
        # A comment that ends a table speaks of what follows it: a new key comes before it.
        body = holder.value.body if isinstance(holder, Table) and last not in holder else []
        rest = []
        while body and body[-1][0] is None:
            rest.append(body.pop()[1])
        if where == ["rules"]:
            holder[last].append(value)
        else:
            holder[last] = value if isinstance(value, dict) else _item(value)
        for item in reversed(rest):
            holder.add(item)
        yield tomlkit.dumps(document)
    except (TOMLKitError, LookupError, TypeError, ValueError, AttributeError):
        return


def _lines(table: Data) -> str:
    return "".join(f"{tomlkit.key(key).as_string()} = {_item(value).as_string()}\n" for key, value in table.items())


def _item(value: Any) -> Item:
    item: Item = tomlkit.item(value)
    if isinstance(value, dict):
        item = tomlkit.inline_table()
        item.update(value)
    elif isinstance(value, str) and "\n" in value and display(value, lines=True) == value and not re.search(r'"""|\\', value):
        item = tomlkit.value(f'"""\n{value}"""')  # lines that look as they were written
    return item


def _at_the_end(text: str, block: str) -> str:
    return f"{text.rstrip()}\n\n{block}" if text.strip() else block
