"""A whole answer: a thought, then words, calls or a value, as one grammar."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Any

from agent.dialects.base import Dialect, Thinking
from agent.errors import SchemaError
from agent.grammar.automata.dfa import Dfa, avoiding, both, not_starting
from agent.grammar.automata.regex import compile_pattern
from agent.grammar.calls import calls_nodes
from agent.grammar.leaves import Literal, PlainText
from agent.grammar.matcher import Grammar, State
from agent.grammar.nodes import Alt, Node, Seq, settle
from agent.grammar.schema.compile import compile_schema
from agent.grammar.syntax import without

BLANK = " \t\r\n"
_MARK = re.compile(r"<[^<>\s]+>")
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
    if dialect.section_open and (inner := _MARK.match(dialect.call_open)) and inner[0] not in marks:
        marks = (*marks, inner[0])  # a reader takes a call without its section for one
    calls = calls_nodes(dialect, tools, bool(spec.get("parallel", True))) if tools and choice != "none" else []
    if choice not in ("auto", "none"):
        return Seq(space, calls[0][1])
    talk = _talk(dialect, calls, marks, not_first)
    if prefix and dialect.text_name:
        # The prompt ends where a call has begun, so words need a name of their own.
        words = Seq(Literal(prefix + dialect.text_name + dialect.after_name, trusted=True), talk)
        return Alt(words, *(node for _, node in calls))
    return talk
