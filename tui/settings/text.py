"""The settings file as it is when nobody has changed anything: every setting at its default, commented out and explained."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator
from typing import Any

from tui.settings.schema import OPTIONS, Option, default

_WIDTH = 74  # columns of a comment
_HEAD = """\
# Settings of `sprig chat`.
#
# A line that begins with # and no space holds a setting at its default: to
# change it, take the # away. What you delete is at its default again.
# `sprig chat` checks this file when it starts and when /settings saves it.
"""
_TABLES = {
    "sampling": 'How words are drawn. "auto" is what the makers of the model advise.',
    "limits": "What the answer to one message may use.",
    "engine": "How the model is loaded.",
    "screen": "How it looks and behaves.",
}
_TAIL = """\
# Keys. Give an action other keys: its name, then one key or more. The help
# of the chat (F1) lists the actions, their names and their keys. Such as:
#
#     "app.quit" = "ctrl+q,f10"
[keys]

# MCP servers: programs and sites that offer tools. Their tools are called
# NAME__tool. A server that this machine starts:
#
#     [mcp.weather]
#     command = "npx"
#     args = ["-y", "weather-server"]
#     env = { API_KEY = "..." }         # and PATH, HOME, LANG, TMPDIR; no more
#     cwd = "/home/me"                  # its folder
#
# A server on the network:
#
#     [mcp.house]
#     url = "https://house.example/mcp"
#     headers = { Authorization = "Bearer ..." }
#
# Either may also say:
#
#     allow = ["get_*"]                 # offer only these of its tools
#     deny = ["delete_*"]               # never these
#     timeout = 60                      # seconds for a call
#     connect_timeout = 10              # seconds to introduce itself

# Rules: what may run without asking. "Always" in a question adds one here.
# A deny that fits wins; else the rule that says most; else the tool's own
# habit. Commands fit by their first words, paths by patterns below the root
# (* within a folder, ** beyond), addresses by host. Such as:
#
#     [[rules]]
#     action = "allow"                  # or "ask", or "deny"
#     tool = "run_command"              # a name, or a pattern such as "*_file"
#     argument = "command"              # which argument the pattern is about
#     pattern = "git status"
#     exact = true                      # this command and no more words
"""


def default_text() -> str:
    """The whole file. Taking the ``#`` from every line that has no space after it leaves all at its default."""
    return "\n".join([_HEAD, *_settings(), _TAIL])


def _settings() -> Iterator[str]:
    table = ""
    for one in OPTIONS:
        *tables, _ = one.where
        if tables and tables[0] != table:
            table = tables[0]
            yield f"\n# {_TABLES[table]}\n[{table}]\n"
        yield f"{_comment(one)}\n{commented(one)}\n"


def commented(one: Option) -> str:
    """The line that holds a setting at its default."""
    return f"#{one.where[-1]} = {_toml(one.kind.write(default(one)))}"


def _comment(one: Option) -> str:
    wrapped = (part for line in one.teach.splitlines() for part in textwrap.wrap(line, _WIDTH, break_on_hyphens=False))
    return "\n".join(f"# {line}" for line in wrapped)


def _toml(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    # JSON's texts without control characters, its numbers and its true and false are TOML's too.
    return json.dumps(value, ensure_ascii=False)
