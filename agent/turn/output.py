"""What an answer must be an object of: a schema for the grammar, and the Python value that comes of the JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.errors import SchemaError, SprigError
from agent.grammar.schema.validate import validate
from agent.tools.convert import convert_fields
from agent.tools.schema import Field, SchemaMaker, UndescribableError, is_pydantic


@dataclass(frozen=True, slots=True)
class Output:
    """A kind of answer."""

    schema: Mapping[str, Any]  # JSON Schema
    convert: Callable[[Any], Any]  # JSON value -> Python value

    @classmethod
    def of(cls, kind: Any) -> Output:
        """From a JSON Schema (a mapping), a pydantic model, a dataclass, a TypedDict, or any other type a tool could take.

        Raises SchemaError when it cannot be described.
        """
        if isinstance(kind, Mapping):
            return cls(dict(kind), lambda value: value)
        if is_pydantic(kind):
            return cls(kind.model_json_schema(), kind.model_validate)
        maker = SchemaMaker()
        try:
            schema = maker.of(kind)
        except UndescribableError as e:
            raise SchemaError(f"the answer cannot be described as JSON Schema: {e}") from None
        if maker.definitions:
            schema = {**schema, "$defs": maker.definitions}
        field = Field("answer", kind)
        return cls(schema, lambda value: convert_fields({"answer": value}, [field], {})["answer"])

    def read(self, text: str) -> tuple[Any, str]:
        """The value of an answer, and what is wrong with it, in one line; empty when nothing is."""
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as e:
            return None, f"the answer is not JSON: {e}"
        wrong = validate(value, self.schema)
        if wrong:
            return None, f"the answer does not fit the schema: {wrong}"
        try:
            return self.convert(value), ""
        except (SprigError, ValueError, TypeError) as e:
            return None, f"the answer cannot be converted: {' '.join(str(e).split())[:300]}"

    def instruction(self) -> str:
        """What the model is told: without it, it would be made to write a form whose meaning it does not know."""
        return f"Answer with JSON that fits this schema:\n{json.dumps(self.schema, ensure_ascii=False)}"
