"""``@tool``: a Python function as something a model can call."""

from __future__ import annotations

import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY, dataclass, field, replace
from typing import Any, Literal, overload

from agent.messages import ToolSpec
from agent.tools.convert import convert_fields
from agent.tools.declared import read_declaration
from agent.tools.docstring import parse_docstring
from agent.tools.preview import Preview
from agent.tools.result import ToolContext, ToolDefinitionError, ToolError, ToolResult, failure_of
from agent.tools.run import run_call
from agent.tools.schema import MISSING, Field, SchemaMaker, UndescribableError

Approval = Literal["allow", "ask", "deny"]
Origin = Literal["script", "builtin", "mcp"]
Subject = Literal["command", "path", "url"]
TIMEOUT = 30.0

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


@dataclass(eq=False, repr=False)
class Tool:
    """Something a model can call. Calling it like a function runs the function itself, unchecked and unlimited.

    Attributes:
        spec: what the model is told.
        function: what runs; None of the limits below apply when it is called directly.
        timeout: seconds that a call may take; None, any time.
        approval: what happens when no rule speaks of this tool.
        isolate: whether each call runs in a process of its own.
        origin: where it comes from: the user's script, Sprig, or an MCP server.
        subjects: argument -> what it names, for approval patterns and for what is shown: a command, a path or a URL.
        untrusted: whether what it gives may be the words of others: what a file, a page or a server says.
        acts: whether a call changes, sends or remembers something. Once the conversation has read what others wrote, such a call
            is asked for. When it is not said, a tool acts unless it runs unasked.
        deferred: nothing runs here: a call ends the run, and the script answers it.
        impossible: why a call with these arguments can never run, or ""; then nobody is asked about it.
        unconfined: why nothing confines it on this machine; then no rule can allow it unasked. Empty for most tools.
        version: tells it from another of its name: a mark of all that its server says of it. Empty for most.
        doubt: says why no rule covers the tool for now, whatever the rules say; looked at before each call. Empty for most.
        convert: makes the function's arguments of JSON values; None, they are what they are.
        context: name of the parameter that takes the ToolContext; empty, none does.
        bound: whether no parameter stands for ``self`` any more.
        preview: what a call with these arguments would change, for the question; None where that cannot be told. It raises
            ToolError where the call could not be done, and then nobody is asked.
    """

    spec: ToolSpec
    function: Callable[..., Any]
    _: KW_ONLY
    timeout: float | None = TIMEOUT
    approval: Approval = "allow"
    isolate: bool = False
    origin: Origin = "script"
    subjects: Mapping[str, Subject] = field(default_factory=dict)
    untrusted: bool = False
    acts: bool | None = None
    deferred: bool = False
    impossible: Callable[[Mapping[str, Any]], str] = lambda arguments: ""
    unconfined: str = ""
    version: str = ""
    doubt: Callable[[], str] = str
    convert: Callable[[Mapping[str, Any]], dict[str, Any]] | None = None
    context: str = ""
    bound: bool = True
    preview: Callable[[Mapping[str, Any]], Preview | None] | None = None

    def __post_init__(self) -> None:
        name = self.spec.name
        if not _NAME.fullmatch(name):
            raise ToolDefinitionError(
                f"a tool cannot be called {name[:80]!r}: use letters, digits, _ and -, at most 64, with name=..."
            )
        if self.timeout is not None and not self.timeout > 0:
            raise ToolDefinitionError(f"{name}: a timeout of {self.timeout} s leaves no time; use a positive number or None")
        if self.approval not in ("allow", "ask", "deny"):
            raise ToolDefinitionError(f"{name}: approval is {self.approval!r}; use 'allow', 'ask' or 'deny'")
        if self.acts is None:
            self.acts = self.approval != "allow"
        functools.update_wrapper(self, self.function, updated=())

    @classmethod
    def from_spec(
        cls, spec: ToolSpec, call: Callable[[Mapping[str, Any], ToolContext], Any], *, timeout: float | None = TIMEOUT
    ) -> Tool:
        """A server's tool, which is asked for: ``call(arguments, context)`` gets the JSON values as they are."""

        def run(arguments: Mapping[str, Any], context: ToolContext) -> Any:
            return call(arguments, context)

        return cls(
            spec, run, convert=lambda values: {"arguments": dict(values)}, context="context",
            timeout=timeout, approval="ask", origin="mcp", untrusted=True,
        )  # fmt: skip

    @property
    def name(self) -> str:
        return self.spec.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def __get__(self, instance: Any, owner: type | None = None) -> Tool:
        """A tool made of a method is bound like one."""
        if instance is None or self.bound:
            return self
        return replace(self, function=types.MethodType(self.function, instance), bound=True)

    def __repr__(self) -> str:
        return f"<tool {self.spec.name}>"

    def invoke(self, arguments: Mapping[str, Any], context: ToolContext | None = None) -> ToolResult:
        """Run a model's call. Never raises: whatever happens is in the result, in one line for the model.

        Args:
            arguments: JSON values by name.
            context: of the call; its ``cancelled`` ends the waiting at once.
        """
        context = context or ToolContext()
        try:
            if not self.bound:
                raise ToolDefinitionError(f"{self.name} is a method: offer it through an instance, like thing.{self.name}")
            values = self.convert(arguments) if self.convert else dict(arguments)
        except Exception as e:
            return failure_of(e)
        return run_call(self.function, values, self.context, context, self.timeout, self.isolate)


@overload
def tool(function: Callable[..., Any], /) -> Tool: ...
@overload
def tool(
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = TIMEOUT,
    approval: Approval = "allow",
    isolate: bool = False,
    untrusted: bool = False,
    acts: bool | None = None,
) -> Callable[[Callable[..., Any]], Tool]: ...
def tool(
    function: Callable[..., Any] | None = None,
    /,
    *,
    name: str | None = None,
    description: str | None = None,
    timeout: float | None = TIMEOUT,
    approval: Approval = "allow",
    isolate: bool = False,
    untrusted: bool = False,
    acts: bool | None = None,
) -> Tool | Callable[[Callable[..., Any]], Tool]:
    """Make a tool of a function: its schema comes from the type hints and the docstring (Google, NumPy or Sphinx style).

    Args:
        function: sync or async; also a method, a bound method or any callable.
        name: for the model, instead of the function's.
        description: for the model, instead of the docstring's.
        timeout: seconds that a call may take; None, any time.
        approval: whether a call runs unasked, is asked for, or is refused, when no rule says otherwise.
        isolate: run each call in a forked process of its own, so that a crash or an exit stays there. The function's changes
            to the script's variables stay there as well.
        untrusted: what it returns may be the words of others, such as a mail: see Tool.
        acts: it changes, sends or remembers something: see Tool.

    Raises:
        ToolDefinitionError: the function cannot be described; says which parameter, and what to write instead.
    """
    local = _caller_names(sys._getframe(1))

    def make(target: Callable[..., Any]) -> Tool:
        return _define(
            target, local, name, description,
            timeout=timeout, approval=approval, isolate=isolate, untrusted=untrusted, acts=acts,
        )  # fmt: skip

    return make if function is None else make(function)


def as_tool(thing: Any) -> Tool:
    """A tool as it is; a function or other callable as ``@tool`` would make it; what a dictionary declares.

    A dictionary may have any form that agent.tools.declared reads. What runs it stands beside it, as ``(dictionary, function)``,
    or in it under ``function``; it gets the JSON values as they are. Without that, a call ends the run, and the script answers.

    Raises:
        ToolDefinitionError: it is none of these, or cannot be described.
    """
    if isinstance(thing, Tool):
        return thing
    if isinstance(thing, Mapping):
        return _declared(*read_declaration(thing))
    if isinstance(thing, tuple) and len(thing) == 2 and isinstance(thing[0], Mapping) and callable(thing[1]):
        return _declared(read_declaration(thing[0])[0], thing[1])
    if not callable(thing) or isinstance(thing, type):
        raise ToolDefinitionError(f"{thing!r} is no tool: hand over a function, what @tool made of one, or a dictionary")
    return _define(thing, _caller_names(sys._getframe(1)))


def _declared(spec: ToolSpec, function: Callable[..., Any] | None) -> Tool:
    if isinstance(function, Tool):
        return replace(function, spec=spec)
    if function is None:
        return Tool(spec, _nothing, deferred=True)
    try:
        hints = typing.get_type_hints(function)
    except Exception:  # what it hints at does not matter here
        hints = {}
    return Tool(spec, function, context="context" if hints.get("context") is ToolContext else "")


def _nothing(**arguments: Any) -> Any:
    raise ToolError("nothing runs this tool here; whoever started the run answers the call")


def _caller_names(frame: types.FrameType | None) -> dict[str, Any]:
    """What forward references in a function inside a function may mean."""
    names: dict[str, Any] = {}
    while frame is not None and frame.f_code.co_name != "<module>":
        # Only types: a tool that lives on must not keep everything else that its caller held.
        found = {k: v for k, v in frame.f_locals.items() if isinstance(v, type) or typing.get_origin(v) is not None}
        names = {**found, **names}
        frame = frame.f_back
    return names


def _define(
    target: Callable[..., Any], local: Mapping[str, Any], name: str | None = None, description: str | None = None, **settings: Any
) -> Tool:
    if isinstance(target, staticmethod | classmethod):
        raise ToolDefinitionError(f"{target.__func__.__name__}: put @tool under @{type(target).__name__}, not above it")
    core: Any = target
    while isinstance(core, functools.partial):
        core = core.func
    name = name or getattr(core, "__name__", None) or type(core).__name__
    if not inspect.isroutine(core):
        core = type(core).__call__
    doc = parse_docstring(core.__doc__ or getattr(target, "__doc__", None) if core is not target else target.__doc__)
    fields, context, bound = _fields(target, core, name, doc.parameters, local)
    maker = SchemaMaker(local)
    try:
        parameters = maker.object_of(fields)
    except UndescribableError as e:
        where = f", parameter {e.args[1]!r}" if len(e.args) > 1 else ""
        raise ToolDefinitionError(f"{name}{where}: {e.args[0]}") from None
    if maker.definitions:
        parameters["$defs"] = maker.definitions
    spec = ToolSpec(name, description if description is not None else doc.summary, parameters)
    convert = functools.partial(convert_fields, fields=fields, local=local)
    return Tool(spec, target, convert=convert, context=context, bound=bound, **settings)


def _fields(
    target: Callable[..., Any], core: Callable[..., Any], name: str, docs: Mapping[str, str], local: Mapping[str, Any]
) -> tuple[tuple[Field, ...], str, bool]:
    """The parameters that a model fills, the one that takes the context, and whether none stands for ``self``."""
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (ValueError, TypeError):
        raise ToolDefinitionError(f"{name} does not say its parameters: wrap it in a function with type hints") from None
    try:
        hints = typing.get_type_hints(core, localns=dict(local), include_extras=True)
    except Exception as e:
        raise ToolDefinitionError(f"{name}: a type hint cannot be read ({e}); import the name beside the tool") from None
    bound = not (parameters and parameters[0].name == "self" and "self" not in hints)
    context, fields = "", []
    for parameter in parameters if bound else parameters[1:]:
        if parameter.name == "context" and hints.get("context") is ToolContext:
            context = "context"
            continue
        _check_parameter(name, parameter, hints)
        required = parameter.default is MISSING
        fields.append(Field(parameter.name, hints[parameter.name], required, parameter.default, docs.get(parameter.name, "")))
    return tuple(fields), context, bound


def _check_parameter(name: str, parameter: inspect.Parameter, hints: Mapping[str, Any]) -> None:
    where = f"{name}, parameter {parameter.name!r}"
    if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else "**"
        raise ToolDefinitionError(f"{where}: a model cannot fill {star}{parameter.name}; name each, or take a list or dict")
    if parameter.kind is parameter.POSITIONAL_ONLY:
        raise ToolDefinitionError(f"{where}: arguments come by name; remove the / from the parameters")
    if parameter.name not in hints:
        raise ToolDefinitionError(f"{where}: no type hint; write {parameter.name}: str, or whatever it is")
