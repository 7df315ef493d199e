"""A whole answer: a thought, then words, calls or a value, as one grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from agent.dialects.base import Dialect, Thinking
from agent.dialects.styles.json import id_node, mark_nodes
from agent.dialects.table import STYLES
from agent.errors import SchemaError
from agent.grammar.automata.dfa import Dfa, TooLargeError, avoiding, both, not_starting
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.leaves import Literal, PlainText
from agent.grammar.matcher import Grammar, State
from agent.grammar.nodes import IMPOSSIBLE, Alt, Node, Repeat, Seq, settle
from agent.grammar.schema.budget import check_size
from agent.grammar.schema.compile import compile_schema
from agent.grammar.syntax import without
from agent.text import display

BLANK = " \t\r\n"
_MAX_CALLS = 8
_NAME = re.compile(r"[\w.:/\-]{1,128}", re.ASCII)
_MAX_BLANK = 4  # characters of white space before a call or value that must come


def _blank(most: int | None) -> Node:
    return PlainText(compile_pattern("[ \\t\\r\\n]*", whole=True), 0, most)


def _words(dfas: Sequence[Dfa]) -> Node:
    return PlainText(reduce(both, dfas), loose=True, phase="text")


def _talk(dialect: Dialect, calls: Sequence[tuple[str, Node]], marks: tuple[str, ...], not_first: Sequence[Dfa]) -> Node:
    """Words that do not begin as ``not_first`` says and in which none of ``marks`` is ever whole, then perhaps ``calls``."""
    if dialect.only_at_start:
        return Alt(_words([*not_first, not_starting(marks, BLANK)]), *(Seq(_blank(None), node) for _, node in calls))
    options = [_words([*not_first, avoiding(marks)])]
    # Before each way to begin, only words at whose end its mark is whole no earlier than it should be.
    options += [Seq(_words([*not_first, avoiding(marks, mark)]), node) for mark, node in calls]
    return Alt(*options)


def calls_nodes(dialect: Dialect, tools: Sequence[Mapping[str, Any]], parallel: bool) -> list[tuple[str, Node]]:
    """The ways in which calls may begin, each with the text that tells that one has begun, and the grammar of all calls.

    Args:
        dialect: how they are written.
        tools: with ``name`` and ``parameters``; at least one.
        parallel: whether there may be several.

    Raises:
        SchemaError: a tool's parameters cannot be used; the message names the tool.
    """
    identity = (id_node(), _mark(dialect.id_close)) if dialect.id_close else ()
    head = mark_nodes(STYLES[dialect.style].head(dialect), trusted=False)
    body = Seq(*identity, *head, Alt(*(_body(dialect, tool) for tool in tools)))
    one = Seq(_mark(dialect.call_open), body)
    most = _MAX_CALLS if parallel and dialect.parallel else 1
    more = Repeat(Seq(_mark(dialect.separator), one), 0, most - 1)
    close = _mark(dialect.section_close)
    ways: list[tuple[str, Node]] = [(dialect.trigger, Seq(_mark(dialect.section_open), one, more, close))]
    ways += [(alias, Seq(_mark(alias), body, more, close)) for alias in dialect.aliases]
    return ways


def _mark(text: str) -> Literal:
    return Literal(text, trusted=True)


def _body(dialect: Dialect, tool: Mapping[str, Any]) -> Node:
    """A call from its name on."""
    name, parameters = str(tool["name"]), tool.get("parameters") or {}
    shown = display(name[:80])
    if not _NAME.fullmatch(name):
        raise SchemaError(f"the tool {shown!r} has a name that models cannot write; use letters, digits, _ and -")
    try:
        check_size(parameters)
        arguments = STYLES[dialect.style].nodes(dialect, name, parameters)
        node = settle(Seq(Literal(name), *arguments, _mark(dialect.call_close)))
    except (RecursionError, TooLargeError):
        raise SchemaError(f"tool {shown}: its schema's parts lead too deep into one another; make it flatter") from None
    except SchemaError as error:
        raise SchemaError(f"tool {shown}: {error}") from None
    if node.height >= IMPOSSIBLE:
        raise SchemaError(f"tool {shown}: no arguments can be written that fulfil its schema in the {dialect.name} format")
    return node


def answer_start(spec: Mapping[str, Any]) -> State:
    """The state in which an answer begins, in the grammar of the whole answer; see ``Constraint.from_spec``.

    Raises:
        SchemaError: a schema cannot be used, or a tool must be called that is not there.
    """
    dialect = Dialect.from_dict(spec["dialect"])
    thinking = Thinking(**spec["thinking"]) if spec.get("thinking") else None
    prefix = spec.get("prefix") or ""
    root: Node
    if thinking is not None and not prefix:
        opener = not_starting((thinking.open,), BLANK)
        thought = PlainText(without(thinking.close), loose=True, phase="thinking")
        close = Literal(thinking.close, trusted=True)
        if spec.get("started"):
            root = Seq(thought, close, _rest(spec, dialect, "", [], _MAX_BLANK))
        else:
            opened = Seq(_blank(_MAX_BLANK), Literal(thinking.open, trusted=True), thought, close)
            root = Alt(Seq(opened, _rest(spec, dialect, "", [], _MAX_BLANK)), _rest(spec, dialect, "", [opener], 0))
    else:
        root = _rest(spec, dialect, prefix, [], 0)
    start = Grammar(settle(root)).start().advance(prefix)
    if start is None:
        raise SchemaError(f"an answer in the {dialect.name} format cannot go on from what its prompt has written")
    return start


def _rest(spec: Mapping[str, Any], dialect: Dialect, prefix: str, not_first: Sequence[Dfa], blank: int) -> Node:
    """What comes after a thought: words do not begin as ``not_first`` says; ``blank`` characters may precede what must come."""
    space = _blank(blank)
    if spec.get("schema") is not None:
        node, _ = compile_schema(spec["schema"])
        return Seq(space, node)
    choice = spec.get("choice") or "auto"
    tools = list(spec.get("tools") or ())
    if choice not in ("auto", "required", "none"):
        tools = [tool for tool in tools if tool["name"] == choice]
        if not tools:
            raise SchemaError(f"the tool {choice!r} must be called, but there is none of that name")
    if choice == "required" and not tools:
        raise SchemaError("a tool must be called, but there is none")
    marks = (dialect.trigger, *dialect.aliases)
    if dialect.section_open and (inner := dialect.call_mark) and inner not in marks:
        marks = (*marks, inner)  # a reader takes a call without its section for one
    calls = calls_nodes(dialect, tools, bool(spec.get("parallel", True))) if tools and choice != "none" else []
    if choice not in ("auto", "none"):
        return Seq(space, calls[0][1])
    talk = _talk(dialect, calls, marks, not_first)
    if prefix and dialect.text_name:
        # The prompt ends where a call has begun, so words need a name of their own.
        words = Seq(Literal(prefix + dialect.text_name + dialect.after_name, trusted=True), talk)
        return Alt(words, *(node for _, node in calls))
    return talk
