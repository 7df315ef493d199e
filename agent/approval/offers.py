"""Which rule to offer when a person says "always": for what was seen and no more. What it is widened to, the person writes."""

from __future__ import annotations

from agent.approval.policy import ApprovalRequest, Rule
from agent.errors import SprigError
from agent.messages import ToolCall
from agent.text import display, reveal
from agent.text.command_line import read_command
from agent.tools.define import Subject, Tool

_LONGEST = 2000  # characters of a rule that is kept in a file that a person reads


class PatternError(SprigError):
    """A pattern that a person wrote does not do; says why in one short line."""


def offer(request: ApprovalRequest) -> Rule | None:
    """The rule to offer; it allows the call that is asked about, and nothing else. None when no rule can, or none is kept: a
    line for a shell is asked for in each conversation."""
    tool, call, rule = request.tool, request.call, request.always
    if not allows(rule, tool, call) or len(rule.pattern) > _LONGEST:
        return None
    if tool.subjects.get(rule.argument or "") == "command" and not read_command(rule.pattern).plain:
        return None
    return rule


def edited(offered: Rule, pattern: str, tool: Tool, call: ToolCall) -> Rule:
    """The rule that a person made of the offered one. Raises PatternError when it would not allow the very call."""
    pattern = pattern.strip()
    if pattern == start(offered):
        return offered
    argument = _argument(offered, tool)
    if argument is None:
        raise PatternError("this rule has no pattern")
    if not pattern:
        raise PatternError("write a pattern; * would stand for everything")
    if reveal(pattern) != pattern:
        raise PatternError("the pattern holds characters that cannot be seen")
    rule = Rule("allow", tool.name, argument, pattern)
    if not allows(rule, tool, call):
        raise PatternError("this pattern does not cover the call above")
    return rule


def start(offered: Rule) -> str:
    """The pattern that a person begins to write from; "" stands for the offered rule where that has none to be written."""
    return "" if offered.argument == "*" else offered.pattern


def editable(rule: Rule, tool: Tool) -> bool:
    """Whether a person can see and change the whole pattern in one line."""
    return _argument(rule, tool) is not None and reveal(start(rule)) == start(rule) == start(rule).strip()


def meaning(rule: Rule, tool: Tool) -> str:
    """What a rule covers, in words."""
    if rule.argument is None:
        return "any arguments of this tool"
    subject: Subject | None = tool.subjects.get(rule.argument)
    if rule.exact:
        very = {"command": "this very command", "path": "this very path", "url": "this very address"}
        whole = "exactly this change" if "path" in tool.subjects.values() else "exactly these arguments"
        return very.get(subject or "", whole)
    return {
        "command": "every command that begins so, with harmless arguments",
        "path": "paths like this: * is any name, ** any folders",
        "url": "every page of this host",
    }.get(subject or "", f"{display(rule.argument)} like this: * is any text")


def _argument(rule: Rule, tool: Tool) -> str | None:
    """The argument that a pattern would be about."""
    return rule.argument if rule.argument != "*" else next((name for name, kind in tool.subjects.items() if kind == "path"), None)


def allows(rule: Rule, tool: Tool, call: ToolCall) -> bool:
    """Whether a rule covers a call; False where it cannot be applied to it."""
    try:
        return rule.matches(tool, call.arguments)
    except (TypeError, ValueError, RecursionError):
        return False
