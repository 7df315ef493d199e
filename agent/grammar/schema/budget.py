"""What a schema may cost: it comes from tools and servers, and is not trusted."""

from __future__ import annotations

from typing import Any

from agent.errors import SchemaError

MAX_NESTING = 100
MAX_VALUES = 50_000  # values of all kinds in one schema
MAX_TEXT = 1_000_000  # characters in one schema
MAX_WORK = 20_000  # schemas that are compiled, merged or tried as one of several


def check_size(schema: Any) -> None:
    """Look at a schema without following anything in it.

    Raises:
        SchemaError: it is too deep, too large, or not made of JSON values.
    """
    values = characters = 0
    stack: list[tuple[Any, int]] = [(schema, 0)]
    while stack:
        value, depth = stack.pop()
        values += 1
        if depth > MAX_NESTING:
            raise SchemaError(f"a schema is nested more than {MAX_NESTING} deep; flatten it or use $defs")
        if isinstance(value, str):
            characters += len(value)
        elif isinstance(value, dict):
            if not all(isinstance(key, str) for key in value):
                raise SchemaError("a schema has a key that is not a string; use JSON")
            characters += sum(map(len, value))
            stack.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, (list, tuple)):
            if values + len(value) <= MAX_VALUES:
                stack.extend((item, depth + 1) for item in value)
            values += len(value) if values + len(value) > MAX_VALUES else 0
        elif value is not None and not isinstance(value, (bool, int, float)):
            raise SchemaError(f"a schema holds a {type(value).__name__}; use JSON")
        if values > MAX_VALUES or characters > MAX_TEXT:
            raise SchemaError(f"a schema holds more than {MAX_VALUES} values or {MAX_TEXT} characters; make it smaller")


class Budget:
    """How much work is left."""

    def __init__(self, work: int = MAX_WORK) -> None:
        self.work = work

    def spend(self, work: int = 1) -> None:
        """Raises SchemaError when nothing is left."""
        self.work -= work
        if self.work < 0:
            raise SchemaError("a schema combines too much (anyOf, allOf, $ref); write it with fewer alternatives")
