"""Regular expressions over the names of modules. A stranger wrote them, so each runs as an automaton, whose time is bounded."""

from __future__ import annotations

import re
from functools import cache

from agent.errors import CheckpointError, SchemaError
from agent.grammar.automata.dfa import Dfa, TooLargeError
from agent.grammar.automata.regex import NotRegularError, compile_pattern

_NAME, _WHOLE_NAME = re.compile(r"[\w.-]+"), re.compile(r"\(\?:([\w.-]+)\)\$")


def matches(pattern: str, module: str) -> bool:
    """Whether the module's name begins with what the pattern means, as of ``re.match``.

    Raises:
        CheckpointError: it is no regular expression, or one that looks around or back, or too large.
    """
    if _NAME.fullmatch(pattern):  # a table may name thousands of modules one by one
        return module.startswith(pattern)
    if name := _WHOLE_NAME.fullmatch(pattern):
        return module == name[1]
    return _automaton(pattern).accepts(module)


@cache
def _automaton(pattern: str) -> Dfa:
    try:
        return compile_pattern(f"^(?:{pattern})")
    except (NotRegularError, TooLargeError, SchemaError):
        raise CheckpointError(
            f"config.json: {pattern[:80]!r} of the quantization is no regular expression that Sprig runs; take the "
            "full-precision checkpoint"
        ) from None
