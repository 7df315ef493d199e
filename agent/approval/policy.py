"""What may run without asking: rules over tools and their arguments, and the question when there is to be one.

Rules decide what is worth a question. They are no wall: what a command can reach is held by agent.children.sandbox.
"""

from __future__ import annotations

import fnmatch
import json
import logging
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from agent.approval.danger import Risk, command_risks
from agent.approval.patterns import matches
from agent.errors import SprigError
from agent.messages import ToolCall
from agent.text import display, reveal, shown_characters
from agent.text.address import AddressError, read_url
from agent.text.command_line import read_command
from agent.tools.define import Approval as Action
from agent.tools.define import Subject, Tool
from agent.tools.preview import Preview
from agent.tools.result import failure_of

log = logging.getLogger(__name__)

_ACTIONS = ("allow", "ask", "deny")
_EVEN = "even-after-untrusted"
_EACH_TIME = "is asked for each time"


class PolicyError(SprigError):
    """A rule or a policy file says something that has no meaning."""


@dataclass(frozen=True, slots=True)
class Rule:
    """What happens to some calls.

    Attributes:
        action: allow, ask or deny.
        tool: name of the tool, or a glob of names.
        argument: the argument that the pattern is about; None, the rule speaks of every call of the tool.
        pattern: for a command, the words it begins with ("git status"), after which a rule that allows lets pass only
            arguments that are known to be harmless; for a path, a glob below the root, where ``*`` stays within a folder and
            ``**`` does not; for a URL, a host or ``*.host``; else a glob of the value's text.
        exact: the value is the pattern, word by word, and nothing more; of a URL, the whole of it.
        even_after_untrusted: it allows also what changes, sends or remembers something when the conversation has read what
            others wrote.
    """

    action: Action
    tool: str = "*"
    argument: str | None = None
    pattern: str = ""
    exact: bool = False
    even_after_untrusted: bool = False

    def __post_init__(self) -> None:
        if self.action not in _ACTIONS:
            raise PolicyError(f"a rule's action is {self.action!r}: use allow, ask or deny")
        if not isinstance(self.tool, str) or not self.tool:
            raise PolicyError("a rule needs a tool's name, or * for every tool")
        if not isinstance(self.argument, str | None) or not isinstance(self.pattern, str):
            raise PolicyError(f"the rule for {self.tool} has an argument or a pattern that is no text")
        if not isinstance(self.exact, bool) or not isinstance(self.even_after_untrusted, bool):
            raise PolicyError(f"the rule for {self.tool} says {self.exact!r} or {self.even_after_untrusted!r}: use true or false")
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
        flags = (("exact", self.exact), (_EVEN, self.even_after_untrusted))
        return data | {name: True for name, said in flags if said}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rule:
        _only(data, {"action", "tool", "argument", "pattern", "exact", _EVEN}, "a rule")
        if "action" not in data:
            raise PolicyError("a rule needs an action: allow, ask or deny")
        return cls(**{name.replace("-", "_"): value for name, value in data.items()})


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

    @property
    def usual(self) -> bool:
        """Whether it is asked only because nothing allows the tool, so that a rule which does would help."""
        return self.action == "ask" and self.reason.endswith(_EACH_TIME)


@dataclass(frozen=True, slots=True)
class ApprovalRequest:
    """A question to a person.

    Attributes:
        tool, call: what would run.
        decision: why it is asked, with the summary and the risks.
        always: the rule that an answer "always" would add for this session.
        preview: what it would change, of tools that can tell; to be shown before the yes.
    """

    tool: Tool
    call: ToolCall
    decision: Decision
    always: Rule
    preview: Preview | None = None


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

    def decide(self, tool: Tool, call: ToolCall, extra: Sequence[Rule] = (), *, untrusted: str = "") -> Decision:
        """What is to happen to a call. Never raises.

        Args:
            extra: rules of this session.
            untrusted: what the conversation has read that others wrote, in words; empty, nothing.
        """
        summary, risks = describe(tool, call)
        action, reason = self._action(tool, call, extra)
        if action == "allow" and untrusted and tool.acts and not self._still_allows(tool, call, extra):
            action, reason = "ask", f"it is allowed, but the conversation has read {untrusted} since"
        if action == "allow" and (line := _shell_line(tool, call)) is not None and not _seen(line, tool, extra):
            action, reason = "ask", "a shell reads this line, so it is asked for as a whole"
        if action == "allow" and (doubt := tool.doubt()):
            action, reason = "ask", doubt
        if action == "allow" and tool.unconfined and not self.unconfined:
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
            reasons = {"allow": "nothing to ask about", "ask": f"{tool.name} {_EACH_TIME}", "deny": ""}
            return tool.approval, reasons[tool.approval]
        rule = max(found, key=lambda r: (r.action == "deny", r.weight, r.action == "ask"))
        about = f" with {rule.argument} {rule.pattern!r}" if rule.argument is not None else ""
        return rule.action, f"a rule says {rule.action} for {rule.tool}{about}"

    def _still_allows(self, tool: Tool, call: ToolCall, extra: Sequence[Rule]) -> bool:
        """Whether a rule allows a call that also holds when what others wrote was read."""
        lasting, more = ([r for r in some if r.action != "allow" or r.even_after_untrusted] for some in (self.rules, extra))
        spoken = any(r.action == "allow" and r.matches(tool, call.arguments) for r in (*lasting, *more))
        return spoken and replace(self, rules=lasting)._action(tool, call, more)[0] == "allow"

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
    """Whether a call may run. ``message`` is for the model when it may not; ``asked`` says whether a person was, and ``shown`` is
    the state of the preview that was shown then."""

    allowed: bool
    decision: Decision
    message: str = ""
    asked: bool = False
    shown: str = ""


@dataclass(slots=True)
class Gate:
    """A policy with somebody to ask, for one session. One question at a time, whatever the threads.

    Attributes:
        policy: the rules.
        approver: is asked; None, and what would be asked is refused.
        session: the rules that "yes, this session" has added; they end with the conversation.
    """

    policy: Policy = field(default_factory=Policy)
    approver: Approver | None = None
    session: list[Rule] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def check(
        self, tool: Tool, call: ToolCall, settled: Callable[[Any], Any] = lambda answer: answer, *, untrusted: str = ""
    ) -> Verdict:
        """Decide, ask if need be, and say so. Never raises: an approver that does means no.

        Args:
            settled: makes an answer of what the approver returns: it awaits a coroutine, for one.
            untrusted: what the conversation has read that others wrote, in words; empty, nothing.
        """
        verdict = self._check(tool, call, settled, untrusted)
        said, by = "allowed" if verdict.allowed else "refused", "a person" if verdict.asked else "the rules"
        log.info("approval of %s: %s by %s", tool.name, said, by)
        return verdict

    def _check(self, tool: Tool, call: ToolCall, settled: Callable[[Any], Any], untrusted: str) -> Verdict:
        decision = self.policy.decide(tool, call, self.session, untrusted=untrusted)
        approver = self.approver
        if decision.action != "deny" and (why := tool.impossible(call.arguments)):
            return Verdict(False, decision, why)
        if decision.action == "ask" and approver is not None:
            with self._lock:
                # The answer before this one may cover it.
                decision = self.policy.decide(tool, call, self.session, untrusted=untrusted)
                if decision.action == "ask":
                    before = self.policy.rules
                    verdict = self._ask(tool, call, decision, lambda request: settled(approver(request)), bool(untrusted))
                    self._keep_new(before, bool(untrusted))
                    return verdict
        if decision.action == "allow":
            return Verdict(True, decision)
        if decision.action == "deny":
            return Verdict(False, decision, f"not allowed: {decision.reason}")
        why = "" if decision.usual else f" ({decision.reason})"
        return Verdict(False, decision, f"not allowed: {tool.name} needs approval{why}, and nobody is there to give it")

    def _keep_new(self, before: Sequence[Rule], untrusted: bool) -> None:
        """Rules that a person made while a question stood there know what was read: they go on in this session."""
        now = self.policy.rules
        if untrusted and list(now[: len(before)]) == list(before):
            made = [rule for rule in now[len(before) :] if rule.action == "allow"]
            self.session += [replace(rule, even_after_untrusted=True) for rule in made]

    def _ask(self, tool: Tool, call: ToolCall, decision: Decision, approver: Approver, untrusted: bool) -> Verdict:
        preview = None
        if tool.preview is not None:
            try:
                preview = tool.preview(call.arguments)
            except Exception as e:  # what cannot be done is no question
                return Verdict(False, decision, failure_of(e).text)
        request = ApprovalRequest(tool, call, decision, always_rule(tool, call), preview)
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
            self.session.append(replace(request.always, even_after_untrusted=untrusted))
        return Verdict(True, decision, asked=True, shown=preview.state if preview is not None else "")


def always_rule(tool: Tool, call: ToolCall) -> Rule:
    """The rule for exactly this again: this command, this URL; for other tools, and for files, these very arguments."""
    for name, subject in tool.subjects.items():
        value = call.arguments.get(name)
        if isinstance(value, str) and subject == "command":
            return Rule("allow", tool.name, name, value, exact=True)
        if isinstance(value, str) and subject == "url":
            try:
                return Rule("allow", tool.name, name, read_url(value.strip()).url, exact=True)
            except AddressError:
                continue
    return Rule("allow", tool.name, "*", _canonical(call.arguments), exact=True)


def _shell_line(tool: Tool, call: ToolCall) -> str | None:
    """A call's command that only a shell can read; None when there is none."""
    for name, subject in tool.subjects.items():
        value = call.arguments.get(name)
        if subject == "command" and isinstance(value, str) and not read_command(value).plain:
            return value
    return None


def _seen(line: str, tool: Tool, extra: Sequence[Rule]) -> bool:
    """Whether a person has allowed this very line in this session."""
    return any(rule.action == "allow" and rule.exact and rule.tool == tool.name and rule.pattern == line for rule in extra)


def describe(tool: Tool, call: ToolCall) -> tuple[str, tuple[tuple[int, int, str], ...]]:
    """Exactly what will run, safe to print and never cut, and where in it the risks are."""
    pieces, risks = [display(tool.name)], []
    at = len(pieces[0])
    for name, value in call.arguments.items():
        subject = tool.subjects.get(name)
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
        lead = ": " if subject and at == len(pieces[0]) else f"\n  {display(str(name))}: "
        # A joiner is part of a text, and nothing that a command, a path or an address needs.
        signs = [one.replace("\n", "\n    ") for one in shown_characters(text)] if subject is None else list(map(reveal, text))
        pieces.append(lead + "".join(signs))
        places = [at + len(lead)]
        for sign in signs:
            places.append(places[-1] + len(sign))
        risks += [(places[risk.start], places[risk.end], risk.why) for risk in _risks(subject, text, signs)]
        at = places[-1]
    return "".join(pieces), tuple(risks)


def _risks(subject: Subject | None, text: str, signs: Sequence[str]) -> tuple[Risk, ...]:
    """``signs`` are how its characters are shown."""
    hidden = [i for i, (char, sign) in enumerate(zip(text, signs, strict=True)) if sign != char and char not in "\n\t"]
    found = [Risk(i, i + 1, "stands for what cannot be seen") for i in hidden[:20]]
    if subject == "command":
        return (*command_risks(text), *found)
    if subject == "url":
        found += _url_risks(text)
    if subject == "path" and (text.startswith(("/", "~")) or ".." in text.split("/")):
        found.append(Risk(0, len(text), "perhaps outside the root"))
    return tuple(found)


def _url_risks(url: str) -> list[Risk]:
    found = []
    if "?" in url:
        found.append(Risk(url.index("?"), len(url), "sends this along"))
    if not url.isascii() or "xn--" in url:
        found.append(Risk(0, len(url), "letters that may look like others"))
    if not url.startswith("https://"):
        found.append(Risk(0, min(len(url), url.find(":") + 3), "not encrypted"))
    return found


def _canonical(arguments: Mapping[str, Any]) -> str:
    return json.dumps(dict(arguments), ensure_ascii=False, sort_keys=True, default=str)


def _only(data: Mapping[str, Any], known: set[str], what: str) -> None:
    if strange := sorted(map(str, set(data) - known)):
        raise PolicyError(f"{what} has no {strange[0]!r}: it has {', '.join(sorted(known))}")
