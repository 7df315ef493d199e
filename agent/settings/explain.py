"""The settings file as it is when nobody has changed anything: every setting at its default, commented out and explained."""

from __future__ import annotations

import textwrap

from agent.settings.declare import Setting, declared
from agent.settings.edit import written

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
    values = [_explained(one) for one in parts if one.section is None and not one.free]
    sections = [text for one in parts if one.section is not None for text in _section(one, one.section)]
    tables = [one.teach for one in reversed(parts) if one.free]
    return "\n".join([_HEAD, *values, *sections, *tables])


def commented(one: Setting) -> str:
    """The line that holds a setting at its default."""
    return f"#{one.where[-1]} = {written(one.kind.write(one.default))}"


def _section(one: Setting, form: type) -> list[str]:
    return [f"\n# {one.teach}\n[{one.key}]\n", *map(_explained, declared(form))]


def _explained(one: Setting) -> str:
    lines = (part for line in one.teach.splitlines() for part in textwrap.wrap(line, _WIDTH, break_on_hyphens=False))
    return "".join(f"# {line}\n" for line in lines) + f"{commented(one)}\n"
