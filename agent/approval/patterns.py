"""How an approval rule's pattern is compared with an argument: commands word by word, paths by glob, URLs by host.

What allows is read narrowly and what denies widely: in doubt an allowing rule does not match and a denying one does.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Literal

from agent.approval.arguments import harmless, may_vary
from agent.approval.spellings import mentions
from agent.text.address import AddressError, read_url
from agent.text.command_line import read_command
from agent.text.shell_words import CommandLine
from agent.tools.builtin.root import path_parts


def matches(subject: Literal["command", "path", "url"] | None, value: str, pattern: str, action: str, exact: bool) -> bool:
    """Whether an argument's value matches a rule's pattern. See ``agent.approval.policy.Rule`` for the patterns."""
    match subject:
        case "command":
            return _match_command(value, pattern, action, exact)
        case "path":
            return _match_path(value, pattern, action, exact)
        case "url":
            return _match_url(value, pattern, action, exact)
    return value == pattern if exact else fnmatch.fnmatchcase(value, pattern or "*")


def _match_command(value: str, pattern: str, action: str, exact: bool) -> bool:
    line, wanted = read_command(value), read_command(pattern)
    if exact:
        return value == pattern or (line.plain and wanted.plain and _same(line, wanted))
    if pattern in ("", "*"):
        return action != "allow" or line.plain
    if action == "allow":
        # What a shell would make of more than one command, nobody has allowed.
        return line.plain and wanted.plain and _covers(line.argv, wanted.argv)
    parts = [tuple(word.text for word in part) for part in wanted.parts] or [wanted.argv]
    return all(mentions(line, part) for part in parts)


def _same(line: CommandLine, wanted: CommandLine) -> bool:
    """Whether two commands are the same, word by word; a quoted wildcard is none."""
    return [(w.text, w.wild) for w in line.words] == [(w.text, w.wild) for w in wanted.words]


def _covers(argv: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether a command begins so, and what else it has is known to be harmless."""
    if len(argv) < len(wanted) or not all(fnmatch.fnmatchcase(a, w) for a, w in zip(argv, wanted, strict=False)):
        return False
    guessed = [i for i, (a, w) in enumerate(zip(argv, wanted, strict=False)) if not _spells(w, a)]
    if 0 in guessed:  # any program is none that a person had in mind
        return False
    free = [*guessed, *range(len(wanted), len(argv))]
    return harmless(argv, free) or (free == guessed and may_vary(argv, guessed))


def _spells(pattern: str, word: str) -> bool:
    """Whether a pattern says what a word is: the whole of it, or which option with any value."""
    return pattern == word or (pattern.startswith("-") and "=" in pattern and not set("*?[") & set(pattern.partition("=")[0]))


def _match_path(value: str, pattern: str, action: str, exact: bool) -> bool:
    path, wanted = path_parts(value), path_parts(pattern)
    if path is None or wanted is None:
        return action == "deny"  # leaves the root
    if exact:
        return path == wanted
    if pattern in ("", "*", "**"):
        return True
    if action != "allow":
        path, wanted = (
            tuple(map(str.casefold, path)),
            tuple(map(str.casefold, wanted)),
        )  # some file systems do not tell them apart
    return _glob(path, wanted)


def _glob(path: Sequence[str], wanted: Sequence[str]) -> bool:
    if not wanted:
        return not path
    if wanted[0] == "**":
        return any(_glob(path[i:], wanted[1:]) for i in range(len(path) + 1))
    return bool(path) and fnmatch.fnmatchcase(path[0], wanted[0]) and _glob(path[1:], wanted[1:])


def _match_url(value: str, pattern: str, action: str, exact: bool) -> bool:
    try:
        target = read_url(value.strip())
    except AddressError:
        return action == "deny"
    if pattern in ("", "*"):
        return True
    if exact:
        return pattern == target.url
    pattern = pattern.lower()
    if pattern.startswith(("http://", "https://")):
        scheme, _, pattern = pattern.partition("://")
        if scheme != target.scheme:
            return False
    host, _, port = pattern.rpartition(":") if pattern.rpartition(":")[2].isdigit() else (pattern, "", "")
    if port and int(port) != target.port:
        return False
    if action == "allow" and not port and target.port not in (80, 443):
        return False
    host = host.rstrip("/")
    if host.startswith("*."):
        return target.host.endswith(host[1:]) and len(target.host) > len(host) - 1
    return target.host == host or (action == "deny" and target.host.endswith("." + host))
