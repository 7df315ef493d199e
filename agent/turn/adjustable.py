"""What a script may change of an agent at any time. All of it takes effect at the next run; rules and who approves, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from inspect import get_annotations
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.approval.policy import Approver, Gate, Policy
from agent.engine.sampling import Sampling
from agent.errors import SprigError
from agent.events import Problem, ToolsChanged
from agent.limits import Limits
from agent.tools.define import Tool
from agent.tools.source import Given, read_tools, tools_now, what_changed
from agent.turn.options import read_limits, read_sampling, read_stop


class Adjustable:
    """The arguments of Agent that are attributes too, checked whenever they are set.

    After a change of ``tools``, ``system``, ``thinking`` or ``template_options`` the conversation stays and is rendered anew: the
    next run computes again what stands behind the first token that differs.
    """

    _root: Path
    _gate: Gate
    _embedding_model: str | Path
    _advised: Sampling  # by the model's makers
    _given: tuple[Given, ...]
    _tools: tuple[Tool, ...]
    _system: str
    _limits: Limits
    _sampling: Sampling
    _stop: tuple[str, ...]
    _constrain: bool
    _max_thinking: int | None
    _thinking: bool | None
    _template_options: Mapping[str, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        # What nobody reads would be ignored in silence; a class that is made of this one declares what it adds.
        kin = type(self).__mro__
        if not name.startswith("_") and not any(name in vars(c) or name in get_annotations(c) for c in kin):
            raise AttributeError(f"an agent has no {name!r} that could be set; see the arguments of Agent, and of run")
        super().__setattr__(name, value)

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools, in the order in which the model sees them. Set it to what ``Agent(tools=...)`` takes."""
        return self._tools

    @tools.setter
    def tools(self, wanted: Iterable[Any]) -> None:
        given = read_tools(wanted, self._root, self._embedding_model)
        self._given, self._tools = given, tools_now(given)

    def renew_tools(self, stopped: Callable[[], bool] = lambda: False) -> ToolsChanged | Problem | None:
        """Take up the tools that MCP servers have now, as each run does before it begins; none is waited for once ``stopped``.

        Returns:
            What is other than before; None when nothing is; a Problem, and all is as before, when they cannot be taken up.
        """
        if all(isinstance(one, Tool) for one in self._given):
            return None
        try:
            now = tools_now(self._given, stopped)
        except SprigError as e:
            return Problem(f"the tools stay as they were: {e}")
        changed = what_changed(self._tools, now)
        if changed is not None:  # the same in another order would only cost the prompt's cache
            self._tools = now
        return changed

    def tool(self, name: str) -> Tool | None:
        """The tool of this name."""
        return next((tool for tool in self.tools if tool.name == name), None)

    @property
    def system(self) -> str:
        """The system prompt; empty for the model's own default."""
        return self._system

    @system.setter
    def system(self, text: str) -> None:
        if not isinstance(text, str):
            raise SprigError(f"system is {text!r:.80} and must be a text; an empty one leaves it to the model")
        self._system = text

    @property
    def sampling(self) -> Sampling:
        """How tokens are drawn. Set to a dictionary, what it leaves out is as the model's makers advise."""
        return self._sampling

    @sampling.setter
    def sampling(self, chosen: Sampling | Mapping[str, Any] | None) -> None:
        self._sampling = read_sampling({} if chosen is None else chosen, self._advised)

    @property
    def limits(self) -> Limits:
        """What a run may use."""
        return self._limits

    @limits.setter
    def limits(self, limits: Limits | None) -> None:
        self._limits = Limits() if limits is None else read_limits(limits)

    @property
    def stop(self) -> tuple[str, ...]:
        """Texts that end an answer."""
        return self._stop

    @stop.setter
    def stop(self, stop: str | Sequence[str] | None) -> None:
        self._stop = read_stop(stop)

    @property
    def constrain(self) -> bool:
        """Whether calls are held to their tools' schemas while they are written."""
        return self._constrain

    @constrain.setter
    def constrain(self, constrain: bool) -> None:
        self._constrain = _switch("constrain", constrain)

    @property
    def max_thinking(self) -> int | None:
        """Tokens after which a thought is ended."""
        return self._max_thinking

    @max_thinking.setter
    def max_thinking(self, tokens: int | None) -> None:
        if tokens is not None and (isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0):
            raise SprigError(f"max_thinking is {tokens!r:.80} and must be a number of tokens, or None for no limit")
        self._max_thinking = tokens

    @property
    def thinking(self) -> bool | None:
        """Whether the model thinks, where that can be switched; None leaves it as the model has it."""
        return self._thinking

    @thinking.setter
    def thinking(self, thinking: bool | None) -> None:
        self._thinking = None if thinking is None else _switch("thinking", thinking)

    @property
    def template_options(self) -> Mapping[str, Any]:
        """Further variables for the chat template; to change one, set them all."""
        return self._template_options

    @template_options.setter
    def template_options(self, options: Mapping[str, Any] | None) -> None:
        if options is not None and not isinstance(options, Mapping):
            raise SprigError(f"template_options is {options!r:.80} and must be a dictionary of the template's variables")
        self._template_options = MappingProxyType(dict(options or {}))

    @property
    def policy(self) -> Policy:
        """The rules of what may run unasked."""
        return self._gate.policy

    @policy.setter
    def policy(self, policy: Policy | None) -> None:
        if policy is not None and not isinstance(policy, Policy):
            raise SprigError(f"policy is {policy!r:.80}; use Policy(rules=(...))")
        self._gate.policy = policy if policy is not None else Policy()

    @property
    def approve(self) -> Approver | None:
        """Who answers for what must be asked; without one, ask means deny."""
        return self._gate.approver

    @approve.setter
    def approve(self, approve: Approver | None) -> None:
        if approve is not None and not callable(approve):
            raise SprigError(f"approve is {approve!r:.80} and must be a function: ApprovalRequest in, Answer out")
        self._gate.approver = approve

    # What stays as it was made.

    @property
    def gate(self) -> Gate:
        """Rules, and who approves."""
        return self._gate

    @property
    def root(self) -> Path:
        """The folder that built-in tools and commands are kept to."""
        return self._root


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SprigError(f"{name} is {value!r:.80} and must be True or False")
    return value
