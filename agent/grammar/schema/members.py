"""The members of an object: declared ones in order, some of them optional, then free ones, with commas in the right places."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from agent.errors import SchemaError
from agent.grammar.automata.dfa import Dfa, negate, words
from agent.grammar.fresh import Fresh, Names
from agent.grammar.leaves import Literal, PlainText
from agent.grammar.nodes import Alt, Node, Seq
from agent.grammar.schema.budget import Budget
from agent.grammar.syntax import FreeForm, restrict

MAX_FREE = 100  # members that are not declared, where no minProperties asks for more: a model could add some without end
_MAX_COUNTED = 2000  # members that minProperties or maxProperties counts exactly


@dataclass(frozen=True, slots=True)
class Writer:
    """How members are written: before KEY between VALUE after, with a comma between two.

    Attributes:
        key: a declared name; None when it cannot be written.
        forms: the ways to write a name that is not declared.
        value: of a schema.
        before, between, after, comma: the texts around.
        trusted: the dialect's own marks are among them.
    """

    key: Callable[[str], Node | None]
    forms: Sequence[FreeForm]
    value: Callable[[Any], Node]
    between: str
    comma: str
    before: str = ""
    after: str = ""
    trusted: bool = False


@dataclass(frozen=True, slots=True)
class Member:
    """A declared member."""

    name: str
    value: Node
    required: bool


Free = tuple[PlainText, Node]  # members that are not declared: which names, which value


def free_kinds(
    patterns: Sequence[tuple[Dfa, Node]], extra: Node | None, declared: Sequence[str], names: PlainText | None
) -> list[Free]:
    """The kinds of members whose name is not declared.

    Args:
        patterns: names that match a pattern, and their value.
        extra: the value of those that match none; None when there are no others.
        declared: the names that are taken.
        names: what all names must fulfil besides.

    Raises:
        TooLargeError: the names are too many to be told apart.
    """
    if not patterns and extra is None:
        return []
    untaken = restrict(names or PlainText(), negate(words(declared)) if declared else None)
    kinds = [(restrict(untaken, dfa), value) for dfa, value in patterns]
    if extra is not None:
        for dfa, _ in patterns:
            untaken = restrict(untaken, negate(dfa))
        kinds.append((untaken, extra))
    return kinds


def members_node(
    members: Sequence[Member], free: Sequence[Free], low: int, high: int | None, writer: Writer, budget: Budget
) -> Node:
    """All ``low`` to ``high`` members of an object: the declared ones in order, then free ones (MAX_FREE without ``high``)."""
    keyed = [(writer.key(m.name), m) for m in members]
    keyed = [(key, m) for key, m in keyed if key is not None or m.required]
    if high is not None and high >= len(keyed) and not free:
        high = None
    # The number of members so far matters up to the greater bound, and whether there is one at all, for the comma.
    counts = min(max(1, low if high is None else high), len(keyed))
    if counts > _MAX_COUNTED:
        raise SchemaError(f"a schema counts more than {_MAX_COUNTED} properties; leave minProperties and maxProperties out")
    budget.spend(len(keyed) * (counts + 1) // 10)
    texts = (writer.before, writer.between, writer.after, writer.comma)
    before, between, after, comma = (Literal(text, writer.trusted) for text in texts)
    kinds = []
    for names, value in free:
        tail = Seq(between, value, after)
        for form in writer.forms:
            mark = Literal(form.mark, trusted=True)
            kinds.append((Seq(before, mark), Names(restrict(names, form.limit), form.leaf), Seq(mark, tail)))
    following: list[Node] = []
    for count in range(counts + 1):
        least, most = max(0, low - count), None if high is None else high - count
        if (most is not None and most < least) or (least and not free):
            following.append(Alt())
        elif not free:
            following.append(Seq())
        else:
            following.append(Fresh(kinds, least, max(least, MAX_FREE) if most is None else most, comma, count > 0))
    for key, member in reversed(keyed):
        text = Alt() if key is None else Seq(before, key, between, member.value, after)
        row: list[Node] = []
        for count in range(counts + 1):
            options: list[Node] = []
            if high is None or count < high:
                options.append(Seq(comma, text, following[min(count + 1, counts)]) if count else Seq(text, following[1]))
            if not member.required:
                options.append(following[count])
            row.append(options[0] if len(options) == 1 else Alt(*options))
        following = row
    return following[0]
