"""Schemas as servers and libraries really send them, and numbers as models really write them: what public reports are about."""

from __future__ import annotations

import json
import time
from typing import Any

import jsonschema
import pytest

from agent.dialects.base import CallDone, Dialect
from agent.dialects.constrain import Constraint
from agent.dialects.families import DIALECTS
from agent.dialects.parser import StreamParser
from agent.dialects.write import write_calls
from agent.errors import SchemaError
from agent.grammar.automata.formats import EXAMPLES
from agent.grammar.matcher import Grammar
from agent.grammar.schema.compile import compile_schema
from agent.grammar.schema.members import MAX_FREE
from agent.grammar.schema.validate import validate
from agent.messages import ToolCall, ToolSpec


def fits(schema: Any, text: str) -> bool:
    state = Grammar(compile_schema(schema)[0]).start().advance(text)
    return state is not None and state.complete


NUMBERS = ["1e-9", "1.256e-06", "1E5", "2e10", "6.02214076e+23", "-1.6e-19", "0.000000001", "-0.5", "1.0", "3", "0.1"]
X = {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}
ANY = {"type": "object", "properties": {"x": {}}, "required": ["x"]}


@pytest.mark.parametrize("text", NUMBERS)
@pytest.mark.parametrize("name", sorted(DIALECTS))
def test_a_number_with_an_exponent_is_written_and_read_back_in_every_dialect(name: str, text: str) -> None:
    dialect: Dialect = DIALECTS[name]
    for parameters in (X, ANY):
        tools = {"f": ToolSpec("f", "", parameters)}
        call = ToolCall("f", {"x": 77777}, "a1B2c3D4e")
        whole = "".join(segment.text for segment in write_calls(dialect, [call], tools)).replace("77777", text)
        prefix = dialect.call_open if dialect.text_name else ""
        spec = {"dialect": dialect.to_dict(), "tools": [{"name": "f", "parameters": parameters}], "prefix": prefix}
        at = Constraint.from_spec(spec)
        for byte in whole.removeprefix(prefix).encode():
            assert at.accepts(bytes([byte])), whole
            at.commit(bytes([byte]))
        assert at.may_end()
        parser = StreamParser(dialect, tools, thinking=None, prefix=prefix)
        pieces = [*parser.feed(whole.removeprefix(prefix)), *parser.finish()]
        (read,) = [piece.call for piece in pieces if isinstance(piece, CallDone)]
        assert read.arguments == {"x": json.loads(text)}
        assert type(read.arguments["x"]) is type(json.loads(text))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"minimum": 0}, ["0", "0.0", "0e5", "1e-9", "2E+3"], ["-1e-9", "-0.1", "-3"]),
        ({"exclusiveMinimum": 0}, ["1e-9", "1e-320"], ["0", "0.0", "0e0", "1e-330", "-1e9"]),
        ({"maximum": 1e-6}, ["1e-6", "9.9e-7", "0.000001", "-5e300"], ["1.1e-6", "1e-5", "1"]),
        ({"minimum": 1e20, "maximum": 2e20}, ["1e20", "1.5e20", "150000000000000000000", "0.2e21"], ["2.1e20", "0.9e20"]),
        (
            {"minimum": 1.25e-200, "maximum": 1.26e-200},
            ["1.25e-200", "125.5e-202", "0.1255e-199"],
            ["1.24e-200", "0.0"],
        ),
        ({"multipleOf": 0.25}, ["0.75", "3"], ["0.8", "1e3"]),  # multiples are written without an exponent
        ({"minimum": -1, "maximum": 1}, ["-1.0e0", "10e-1", "-0.01e2"], ["1.01e0", "-1e1"]),
    ],
)
def test_bounds_hold_for_exponents_too(schema: Any, good: list[str], bad: list[str]) -> None:
    schema = {"type": "number", **schema}
    for text in good:
        assert fits(schema, text), text
        jsonschema.validate(json.loads(text), schema)
    for text in bad:
        assert not fits(schema, text), text


@pytest.mark.parametrize(
    ("schema", "most"),
    [
        ({"type": "integer"}, 21), ({"type": "number"}, 26), ({}, 26), ({"type": "integer", "maximum": 10**30}, 31),
        ({"type": "array", "items": {"type": "integer"}, "maxItems": 1}, 22),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "maxProperties": 1}, 29),
        ({"type": "number", "multipleOf": 0.01}, 24), ({"type": "number", "minimum": 0, "maximum": 1}, 25),
        ({"const": 10**40}, 41), ({"enum": [0.1, 10**30]}, 31),
    ],
)  # fmt: skip
def test_no_digit_after_the_other_for_ever(schema: Any, most: int) -> None:
    """Whichever of these a model likes best, it always writes that while it may, and a number ends."""
    for likes in ("3", "0", "9", "-", "03", "30.0", "1.0e0", "0.0e-0", "1e-0"):
        state, text = Grammar(compile_schema(schema)[0]).start(), ""
        begun = {"array": "[", "object": '{"key": '}.get(schema.get("type"), "")
        following = state.advance(begun)
        assert following is not None
        state, text, digits = following, begun, 0
        while (chars := state.next_chars()) and digits < 500:
            wish = next((c for c in likes[min(digits, len(likes) - 1) :] + "130" if c in chars), "")
            if not wish:
                break
            state, text, digits = state.advance(wish) or state, text + wish, digits + 1
        assert len(text) <= most, text


def test_a_free_object_takes_many_keys_but_not_endlessly_many() -> None:
    for schema in ({"type": "object", "additionalProperties": {"type": "integer"}}, {"type": "object"}):
        members = [f'"k{n}": {n}' for n in range(MAX_FREE + 1)]
        assert fits(schema, "{" + ", ".join(members[:-1]) + "}")
        assert not fits(schema, "{" + ", ".join(members) + "}")
    asked = {"type": "object", "minProperties": MAX_FREE + 1}
    assert fits(asked, "{" + ", ".join(members) + "}")


def test_a_whole_number_with_a_point_is_read_as_an_integer_and_never_written() -> None:
    """JSON Schema 2020-12 calls 3.0 an integer; a model gains nothing by writing it so."""
    for text in ("3.0", "1e3"):
        assert not fits({"type": "integer"}, text)
        assert validate(json.loads(text), {"type": "integer"}) is None
        jsonschema.validate(json.loads(text), {"type": "integer"})
    assert validate(3.5, {"type": "integer"}) is not None


OBSIDIAN = {
    "type": "object",
    "properties": {
        "filepath": {"type": "string", "format": "path"},
        "target_type": {"type": "string", "enum": ["heading", "block"]},
        "query": {"type": "object", "description": "JsonLogic"},
    },
    "required": ["filepath"],
    "anyOf": [{"required": ["target_type"]}, {"not": {"required": ["query"]}}],
}
PAGERDUTY = {
    "$defs": {
        "Query": {
            "type": "object",
            "properties": {
                "query": {"type": "string", "default": None},
                "team_ids": {"type": "array", "default": None},
                "limit": {"type": "integer", "default": "20"},
            },
        }
    },
    "type": "object",
    "properties": {"query_model": {"$ref": "#/$defs/Query"}},
    "required": ["query_model"],
}


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (OBSIDIAN, ['{"filepath": "a.md", "target_type": "heading"}', '{"filepath": "a.md"}'], ['{"target_type": "block"}']),
        (PAGERDUTY, ['{"query_model": {"query": "x", "limit": 3}}', '{"query_model": {}}'], ['{"query_model": {"query": null}}']),
        ({"type": "string", "nullable": True}, ['"a"', "null"], ["1"]),
        ({"type": "string", "enum": ["a"], "nullable": True}, ['"a"', "null"], ['"b"']),
        ({"$defs": {"A": {"type": "integer"}}, "nullable": True, "allOf": [{"$ref": "#/$defs/A"}]}, ["1", "null"], ['"a"']),
        ({"type": "string", "nullable": False}, ['"a"'], ["null"]),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": True}, ["1"], ["0"]),
        ({"type": "integer", "minimum": 0, "exclusiveMinimum": False}, ["0"], ["-1"]),
        ({"definitions": {"A b": {"type": "integer"}}, "properties": {"a": {"$ref": "#/definitions/A%20b"}}}, ['{"a": 1}'],
            ['{"a": "x"}']),
        ({"$schema": "http://json-schema.org/draft-07/schema#", "type": "object", "properties": {"a": {"type": "string"}},
            "additionalProperties": {}}, ['{"a": "x", "b": 1}'], ['{"a": 1}']),
        ({"type": "object", "patternProperties": {"^x": {"type": "integer"}}}, ['{"x1": 1}'], ['{"x1": "a"}']),
        ({"enum": ["a", 1, None, True]}, ['"a"', "1", "null", "true"], ["2", "false"]),
        ({"const": None}, ["null"], ["0", '""']),
        ({"type": "string", "contentEncoding": "base64"}, ['"aGVsbG8="', '""'], ['"a"', '"ä==="']),
        ({"type": "string", "format": "duration"}, ['"PT1H30M"', '"P2DT0.5S"'], ['"P"', '"1h"']),
    ],
)  # fmt: skip
def test_schemas_of_servers(schema: Any, good: list[str], bad: list[str]) -> None:
    for text in good:
        assert fits(schema, text), text
        assert validate(json.loads(text), schema) is None
    for text in bad:
        assert not fits(schema, text), text
        assert validate(json.loads(text), schema) is not None


@pytest.mark.parametrize(
    ("schema", "text", "wrong"),
    [
        (OBSIDIAN, '{"filepath": "a.md", "query": {}}', "fits none of 2 alternatives"),
        ({"type": "string", "pattern": "^(?=.*[A-Z]).{3,}$"}, '"abc"', "must match"),
        ({"type": "object", "properties": {"a": {"type": "integer"}}, "if": {"required": ["a"]}, "then": {"required": ["b"]}},
            '{"a": 1}', "lacks 'b'"),
    ],
)  # fmt: skip
def test_what_a_grammar_cannot_say_is_written_and_then_refused(schema: Any, text: str, wrong: str) -> None:
    assert fits(schema, text)
    assert wrong in (validate(json.loads(text), schema) or "")


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_wrong_format_is_told_with_an_example_that_fits(name: str) -> None:
    schema = {"type": "string", "format": name}
    assert fits(schema, json.dumps(EXAMPLES[name]))
    assert validate("a b^", schema) == f"the value is 'a b^'; it must be a {name}, like {EXAMPLES[name]}"


def test_a_reference_to_another_document_is_one_clear_line() -> None:
    with pytest.raises(SchemaError, match=r"refers to https://json-schema\.org/x; only references within it"):
        compile_schema({"$ref": "https://json-schema.org/x"})


def test_one_way_to_write_and_any_to_read() -> None:
    """Members come in the schema's order, on one line: so most of an object is forced and need not be drawn."""
    schema = {"type": "object", "properties": {"a": {"type": "integer"}, "b": {"type": "integer"}}, "required": ["b"]}
    assert fits(schema, '{"a": 1, "b": 2}')
    for text in ('{"b": 1, "a": 2}', '{\n  "a": 1,\n  "b": 2\n}', '{"a":1,"b":2}'):
        assert not fits(schema, text)
        assert validate(json.loads(text), schema) is None
    assert not fits(schema, '{ "a": 1}')


def test_escapes_of_half_characters_are_never_written() -> None:
    assert fits({"type": "string"}, '"\\u00e9"')
    assert fits({"type": "string"}, '"\\ud83d\\ude00"')
    assert not fits({"type": "string"}, '"\\ud83d"')


@pytest.mark.parametrize("name", sorted({dialect.style: name for name, dialect in DIALECTS.items()}.values()))
def test_two_hundred_tools_with_nullable_parameters_are_ready_soon(name: str) -> None:
    nullable = {"anyOf": [{"type": "string"}, {"type": "null"}, {"type": "array", "items": {"type": "integer"}}]}
    parameters = {"type": "object", "properties": {f"p{n}": nullable for n in range(8)}, "required": ["p0"]}
    tools = [{"name": f"t{n}", "parameters": parameters} for n in range(200)]
    begin = time.process_time()
    assert Constraint.from_spec({"dialect": DIALECTS[name].to_dict(), "tools": tools, "choice": "required"}).next_chars() != set()
    assert time.process_time() - begin < 4
