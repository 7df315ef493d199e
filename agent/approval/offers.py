"""Which rule to offer when a person says "always": as wide as is harmless, never wider than the call where it is risky."""

from __future__ import annotations

import glob
import re
import shlex

from agent.approval.danger import base_name, programs
from agent.approval.policy import ApprovalRequest, Rule, always_rule
from agent.errors import SprigError
from agent.messages import ToolCall
from agent.text import display, reveal
from agent.text.address import AddressError, read_url
from agent.text.command_line import read_command
from agent.tools.builtin.root import path_parts
from agent.tools.define import Subject, Tool

# Programs that only read, whatever their arguments are, and write nowhere but to their output.
_READERS = frozenset({
    "basename", "cal", "cat", "cmp", "comm", "cut", "df", "diff", "dirname", "du", "echo", "false", "free", "grep", "groups",
    "head", "id", "ls", "lsblk", "lscpu", "md5sum", "nl", "nproc", "ps", "pwd", "readlink", "realpath", "sha256sum", "stat",
    "tail", "tr", "true", "uname", "uptime", "wc", "which", "whoami",
})  # fmt: skip
_GIT_READERS = frozenset({"blame", "describe", "ls-files", "rev-parse", "status"})
# What they do is in their later arguments, or in a file: two words say nothing of it.
_RUNNERS = re.compile(
    r"(python|pypy|perl|ruby|node|deno|bun|php|lua|awk|gawk|mawk|sh|bash|dash|zsh|ksh|ash|fish|find|fd|rg|sed|sort|tar|git|env"
    r"|xargs|busybox|vi|vim|nvim|emacs|ed|ex|make|gdb|sqlite3|ssh|docker|npm|npx|pnpm|yarn|pip|pipx|uv|uvx|cargo|go|java|Rscript"
    r"|julia|expect|script|date|hostname|kubectl|file)[\d.]*"
)
_WORD = re.compile(r"[a-z][a-z0-9_-]*")


class PatternError(SprigError):
    """A pattern that a person wrote does not do; says why in one short line."""


def offer(request: ApprovalRequest) -> Rule | None:
    """The rule to offer first; it allows the call that is asked about. None when no rule can."""
    tool, call = request.tool, request.call
    wide = None if request.decision.risks else _wide(tool, call)
    return next((rule for rule in (wide, always_rule(tool, call)) if rule is not None and _allows(rule, tool, call)), None)


def edited(offered: Rule, pattern: str, tool: Tool, call: ToolCall) -> Rule:
    """The rule that a person made of the offered one. Raises PatternError when it would not allow the very call."""
    pattern = pattern.strip()
    if pattern == offered.pattern:
        return offered
    if offered.argument in (None, "*"):
        raise PatternError("this rule has no pattern")
    if not pattern:
        raise PatternError("write a pattern; * would stand for everything")
    if reveal(pattern) != pattern:
        raise PatternError("the pattern holds characters that cannot be seen")
    rule = Rule("allow", tool.name, offered.argument, pattern)
    if not _allows(rule, tool, call):
        raise PatternError("this pattern does not cover the call above")
    return rule


def editable(rule: Rule) -> bool:
    """Whether a person can see and change the whole pattern in one line."""
    return rule.argument not in (None, "*") and reveal(rule.pattern) == rule.pattern == rule.pattern.strip()


def meaning(rule: Rule, tool: Tool) -> str:
    """What a rule covers, in words."""
    if rule.argument is None:
        return "any arguments of this tool"
    subject: Subject | None = tool.subjects.get(rule.argument)
    if rule.exact:
        very = {"command": "this very command", "path": "this very path", "url": "this host"}
        return very.get(subject or "", "these arguments")
    return {
        "command": "every command that begins so",
        "path": "paths like this: * is any name, ** any folders",
        "url": "every page of this host",
    }.get(subject or "", f"{display(rule.argument)} like this: * is any text")


def _allows(rule: Rule, tool: Tool, call: ToolCall) -> bool:
    try:
        return rule.matches(tool, call.arguments)
    except (TypeError, ValueError, RecursionError):
        return False


def _wide(tool: Tool, call: ToolCall) -> Rule | None:
    for name, subject in tool.subjects.items():
        value = call.arguments.get(name)
        if isinstance(value, str):
            pattern = {"command": _of_command, "path": _of_path, "url": _of_url}[subject](value)
            return Rule("allow", tool.name, name, pattern) if pattern else None
    return None if tool.subjects else Rule("allow", tool.name)


def _of_command(command: str) -> str:
    line = read_command(command)
    if not line.plain or len(list(programs(line))) != 1:
        return ""
    first, second = (*line.argv, "")[:2]
    known = first in _READERS
    runs = _RUNNERS.fullmatch(base_name(first)) is not None
    if not known and (second not in _GIT_READERS if first == "git" else runs or not _WORD.fullmatch(second)):
        return ""
    words = [first] if known else [first, second]
    return "" if any(c in word for word in words for c in "*?[") else shlex.join(words)


def _of_path(path: str) -> str:
    parts = path_parts(path)
    if parts is None or len(parts) < 2 or any(part.startswith(".") for part in parts):
        return ""  # a whole root, or what programs read to know what to do (.git, .ssh, .env), is nothing to offer
    return "/".join([*map(glob.escape, parts[:-1]), "*"])


def _of_url(url: str) -> str:
    try:
        return read_url(url.strip()).netloc
    except AddressError:
        return ""
