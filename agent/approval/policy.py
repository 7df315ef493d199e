"""What may run without asking: rules over tools and their arguments, and the question when there is to be one.

Rules decide what is worth a question. They are no wall: what a command can reach is held by agent.children.sandbox.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.approval.danger import Risk, command_risks
from agent.approval.patterns import matches
from agent.errors import SprigError
from agent.messages import ToolCall
from agent.text import display
from agent.text.address import AddressError, read_url
from agent.tools.define import Approval as Action
from agent.tools.define import Subject, Tool

log = logging.getLogger(__name__)

_STRICT = {"deny": 2, "ask": 1, "allow": 0}


class PolicyError(SprigError):
    """A rule or a policy file says something that has no meaning."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some calls.

    Attributes:
        action: allow, ask or deny.
        tool: name of the tool, or a glob of names.
        argument: the argument that the pattern is about; None, the rule speaks of every call of the tool.
        pattern: for a command, the words it begins with ("git status"); for a path, a glob below the root, where ``*`` stays
            within a folder and ``**`` does not; for a URL, a host or ``*.host``; else a glob of the value's text.
        exact: the value is the pattern, word by word, and nothing more.
    """

    action: Action
    tool: str = "*"
    argument: str | None = None
    pattern: str = ""
    exact: bool = False

    def __post_init__(self) -> None:
        if self.action not in _STRICT:
            raise PolicyError(f"a rule's action is {self.action!r}: use allow, ask or deny")
        if not isinstance(self.tool, str) or not self.tool:
            raise PolicyError("a rule needs a tool's name, or * for every tool")
        if self.argument is None and self.pattern:
            raise PolicyError(f"the rule for {self.tool} has a pattern but names no argument that it is about")

    def matches(self, tool: Tool, arguments: Mapping[str, Any]) -> bool:
        if not fnmatch.fnmatchcase(tool.name, self.tool):
            return False
        if self.argument is None:
            return True
        if self.argument == "*":
            return _canonical(arguments) == self.pattern
        if self.argument not in arguments:
            # The default holds. A rule that restricts must not be avoided by leaving the argument out.
            return self.action == "deny" and self.pattern in ("", "*", "**")
        value = arguments[self.argument]
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
        return matches(tool.subjects.get(self.argument), text, self.pattern, self.action, self.exact)

    @property
    def weight(self) -> tuple[int, int, int, int]:
        """How special it is: a named tool before a glob, a pattern before none, more of a pattern before less."""
        literal = len(self.pattern.replace("*", "").replace("?", ""))
        return (self.argument is not None, self.exact, literal, not any(c in self.tool for c in "*?["))

    def to_dict(self) -> dict[str, Any]:
        data: dict[str, Any] = {"action": self.action, "tool": self.tool}
        if self.argument is not None:
            data |= {"argument": self.argument, "pattern": self.pattern}
        return data | ({"exact": True} if self.exact else {})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        _only(data, {"action", "tool", "argument", "pattern", "exact"}, "a rule")
        if "action" not in data:
            raise PolicyError("a rule needs an action: allow, ask or deny")
        return cls(**data)


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to happen to a call.

    Attributes:
        action: allow, ask or deny.
        reason: why, in one line.
        summary: exactly what will run, whole, safe to print.
        risks: places in ``summary`` that deserve a look: start, end, why.
    """

    action: Action
    reason: str
    summary: str
    risks: tuple[tuple[int, int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A question to a person.

    Attributes:
        tool, call: what would run.
        decision: why it is asked, with the summary and the risks.
        always: the rule that an answer "always" would add for this session.
    """

    tool: Tool
    call: ToolCall
    decision: Decision
    always: Rule


@dataclass(frozen=True, slots=True)
class Answer:
    """A person's word: whether it may run, whether that holds for the session, and something to tell the model."""

    allowed: bool
    always: bool = False
    message: str = ""

    @classmethod
    def yes(cls) -> Answer:
        return cls(True)

    @classmethod
    def always_yes(cls) -> Answer:
        """Yes, and the same again for as long as this session lasts."""
        return cls(True, always=True)

    @classmethod
    def no(cls, message: str = "") -> Answer:
        return cls(False, message=message)


Approver = Callable[[ApprovalRequest], "bool | Answer | Awaitable[bool | Answer]"]


@dataclass(frozen=True, slots=True)
class Policy:
    """Rules, and what happens where none speaks: then a tool's own ``approval`` decides.

    Attributes:
        rules: any deny that matches wins; else the most special rule; between equals the stricter.
        unconfined: let rules allow commands also where nothing keeps them from files outside their root.
    """

    rules: Sequence[Rule] = ()
    unconfined: bool = False

    def decide(self, tool: Tool, call: ToolCall, extra: Sequence[Rule] = ()) -> Decision:
        """What is to happen to a call; ``extra`` are rules of this session. Never raises."""
        summary, risks = describe(tool, call)
        action, reason = self._action(tool, call, extra)
        if action == "allow" and (doubt := tool.doubt()):
            action, reason = "ask", doubt
        elif action == "allow" and tool.unconfined and not self.unconfined:
            action, reason = "ask", tool.unconfined
        return Decision(action, reason, summary, risks)

    def _action(self, tool: Tool, call: ToolCall, extra: Sequence[Rule]) -> tuple[Action, str]:
        try:
            found = [rule for rule in (*self.rules, *extra) if rule.matches(tool, call.arguments)]
        except (TypeError, ValueError, RecursionError):
            return "ask", f"the rules cannot be applied to this call of {tool.name}"
        if tool.approval == "deny" and not any(r.action == "allow" and r.tool == tool.name for r in found):
            return "deny", f"{tool.name} is switched off"
        if not found:
            reasons = {"allow": "nothing to ask about", "ask": f"{tool.name} is asked for each time", "deny": ""}
            return tool.approval, reasons[tool.approval]
        rule = max(found, key=lambda r: (r.action == "deny", r.weight, _STRICT[r.action]))
        about = f" with {rule.argument} {rule.pattern!r}" if rule.argument is not None else ""
        return rule.action, f"a rule says {rule.action} for {rule.tool}{about}"

    def to_dict(self) -> dict[str, Any]:
        return {"rules": [rule.to_dict() for rule in self.rules], "unconfined": self.unconfined}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Policy:
        """From a configuration file's table. Raises PolicyError in one line."""
        if not isinstance(data, Mapping):
            raise PolicyError("a policy is a table with rules")
        _only(data, {"rules", "unconfined"}, "a policy")
        rules, unconfined = data.get("rules", ()), data.get("unconfined", False)
        if not isinstance(rules, list | tuple) or not all(isinstance(r, Mapping) for r in rules):
            raise PolicyError("a policy's rules are a list of tables")
        if not isinstance(unconfined, bool):
            raise PolicyError("a policy's unconfined is true or false")
        return cls(tuple(Rule.from_dict(rule) for rule in rules), unconfined)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a call may run. ``message`` is for the model when it may not; ``asked`` says whether a person was."""

    allowed: bool
    decision: Decision
    message: str = ""
    asked: bool = False


@dataclass(slots=True)
class Gate:
    """A policy with somebody to ask, for one session. One question at a time, whatever the threads.

    Attributes:
        policy: the rules.
        approver: is asked; None, and what would be asked is refused.
        session: the rules that "always" has added.
    """

    policy: Policy = field(default_factory=Policy)
    approver: Approver | None = None
    session: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def check(self, tool: Tool, call: ToolCall, settled: Callable[[Any], Any] = lambda answer: answer) -> Verdict:
        """Decide, ask if need be, and say so. Never raises: an approver that does means no.

        ``settled`` makes an answer of what the approver returns: it awaits a coroutine, for one.
        """
        verdict = self._check(tool, call, settled)
        said, by = "allowed" if verdict.allowed else "refused", "a person" if verdict.asked else "the rules"
        log.info("approval of %s: %s by %s", tool.name, said, by)
        return verdict

    def _check(self, tool: Tool, call: ToolCall, settled: Callable[[Any], Any]) -> Verdict:
        decision = self.policy.decide(tool, call, self.session)
        approver = self.approver
        if decision.action == "ask" and approver is not None:
            with self._lock:
                decision = self.policy.decide(tool, call, self.session)  # the answer before this one may cover it
                if decision.action == "ask":
                    return self._ask(tool, call, decision, lambda request: settled(approver(request)))
        if decision.action == "allow":
            return Verdict(True, decision)
        if decision.action == "deny":
            return Verdict(False, decision, f"not allowed: {decision.reason}")
        return Verdict(False, decision, f"not allowed: {tool.name} needs approval, and nobody is there to give it")

    def _ask(self, tool: Tool, call: ToolCall, decision: Decision, approver: Approver) -> Verdict:
        request = ApprovalRequest(tool, call, decision, always_rule(tool, call))
        try:
            answer = approver(request)
        except Exception as e:
            return Verdict(False, decision, f"not allowed: the question could not be asked ({type(e).__name__})", asked=True)
        if answer is True:
            answer = Answer.yes()
        if not isinstance(answer, Answer) or answer.allowed is not True:
            said = answer.message.strip() if isinstance(answer, Answer) else ""
            return Verdict(False, decision, f"the user said no: {said}" if said else "the user said no", asked=True)
        if answer.always:
            self.session.append(request.always)
        return Verdict(True, decision, asked=True)


def always_rule(tool: Tool, call: ToolCall) -> Rule:
    """The rule for exactly this again: this command, this path, this host; for other tools, these very arguments."""
    for name, subject in tool.subjects.items():
        value = call.arguments.get(name)
        if isinstance(value, str):
            if subject == "url":
                try:
                    value = read_url(value.strip()).netloc
                except AddressError:
                    continue
            return Rule("allow", tool.name, name, value, exact=True)
    return Rule("allow", tool.name, "*", _canonical(call.arguments), exact=True)


def describe(tool: Tool, call: ToolCall) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """Exactly what will run, safe to print and never cut, and where in it the risks are."""
    pieces, risks = [display(tool.name)], []
    at = len(pieces[0])
    for name, value in call.arguments.items():
        subject = tool.subjects.get(name)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        lead = ": " if subject and at == len(pieces[0]) else f"\n  {display(str(name))}: "
        shown = display(text, lines=subject is None)
        if subject is None:
            shown = shown.replace("\n", "\n    ")
        pieces.append(lead + shown)
        for risk in _risks(subject, text):
            start, end = at + len(lead) + len(display(text[: risk.start])), at + len(lead) + len(display(text[: risk.end]))
            risks.append((start, end, risk.why))
        at += len(lead) + len(shown)
    return "".join(pieces), tuple(risks)


def _risks(subject: Subject | None, text: str) -> tuple[Risk, ...]:
    if subject == "command":
        return command_risks(text)
    hidden = [i for i, char in enumerate(text) if display(char) != char and char not in "\n\t"]
    found = [Risk(i, i + 1, "a character that is not shown") for i in hidden[:20]]
    if subject == "url":
        found += _url_risks(text)
    if subject == "path" and (text.startswith(("/", "~")) or ".." in text.split("/")):
        found.append(Risk(0, len(text), "perhaps outside the root"))
    return tuple(found)


def _url_risks(url: str) -> list[Risk]:
    found = []
    if "?" in url:
        found.append(Risk(url.index("?"), len(url), "sends this along"))
    if any(ord(char) > 127 for char in url) or "xn--" in url:
        found.append(Risk(0, len(url), "letters that may look like others"))
    if not url.startswith("https://"):
        found.append(Risk(0, min(len(url), url.find(":") + 3), "not encrypted"))
    return found


def _canonical(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), ensure_ascii=False, sort_keys=True, default=str)


def _only(data: Mapping[str, Any], known: set[str], what: str) -> None:
    if strange := sorted(map(str, set(data) - known)):
        raise PolicyError(f"{what} has no {strange[0]!r}: it has {', '.join(sorted(known))}")
