"""How an approval rule's pattern is compared with an argument: commands word by word, paths by glob, URLs by host.

What allows is read narrowly and what denies widely: in doubt an allowing rule does not match and a denying one does.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence
from typing import Literal

from agent.approval.danger import base_name, programs
from agent.text.address import AddressError, read_url
from agent.text.command_line import CommandLine, read_command
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
        return value == pattern or (line.plain and wanted.plain and line.argv == wanted.argv)
    if pattern in ("", "*"):
        return action != "allow" or line.plain
    if action == "allow":
        # What a shell would make of more than one command, nobody has allowed.
        return line.plain and _begins(line.argv, wanted.argv)
    return _mentions(line, wanted.argv)


def _begins(argv: Sequence[str], wanted: Sequence[str]) -> bool:
    return len(argv) >= len(wanted) > 0 and all(fnmatch.fnmatchcase(a, w) for a, w in zip(argv, wanted, strict=False))


def _mentions(line: CommandLine, wanted: Sequence[str]) -> bool:
    """Whether any command in the line begins so, whatever folder the program is in and whatever starts it."""
    if not wanted:
        return False
    if line.broken:
        return wanted[0] in line.argv or not line.argv  # what cannot be read is not let through
    if len(wanted) == 1 and any(fnmatch.fnmatchcase(name, wanted[0]) for name in programs(line)):
        return True
    for part in line.parts():
        texts = [word.text for word in part]
        for i in range(len(texts)):
            if _begins([base_name(texts[i]), *texts[i + 1 :]], wanted):
                return True
    # A shell's or an interpreter's text may hold it as well.
    return any(" " in word.text and _mentions(read_command(word.text), wanted) for word in line.words)


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
        return pattern == target.netloc
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
