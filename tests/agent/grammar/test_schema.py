"""JSON Schema as a grammar, keyword by keyword; and what becomes of schemas that are wrong, contradictory or hostile."""

from __future__ import annotations

import json
import random
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import SchemaError
from agent.grammar.matcher import Grammar
from agent.grammar.schema.compile import compile_schema
from agent.grammar.schema.validate import validate
from tests.fixtures.generated import runs

TREE = {
    "$defs": {
        "tree": {
            "type": "object",
            "properties": {"v": {"type": "integer"}, "kids": {"type": "array", "items": {"$ref": "#/$defs/tree"}}},
            "required": ["v"],
        }
    },
    "$ref": "#/$defs/tree",
}
CHAIN = {"type": "object", "properties": {"next": {"anyOf": [{"$ref": "#"}, {"type": "null"}]}}, "required": ["next"]}
BASE = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3}}, "required": ["a"]}


def chain(depth: int) -> Any:
    return {"next": chain(depth - 1)} if depth else {"next": None}


def fits(schema: Any, value: Any) -> bool:
    state = Grammar(compile_schema(schema)[0]).start().advance(json.dumps(value, ensure_ascii=False))
    return state is not None and state.complete


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        (TREE, [{"v": 1}, {"v": 1, "kids": [{"v": 2, "kids": []}, {"v": 3}]}], [{}, {"kids": []}, {"v": 1, "kids": [{}]}]),
        (CHAIN, [chain(0), chain(3), chain(59)], [{}, {"next": {}}, chain(60)]),
        ({"type": ["string", "null"], "maxLength": 1}, ["", "x", None], ["xy", 1]),
        ({"type": "integer", "nullable": True}, [1, None], ["1", 1.5]),
        ({"minimum": 3}, [3, 4.5], [2, "x"]),
        ({"allOf": [{"type": "integer", "minimum": 1}, {"maximum": 3}]}, [1, 3], [0, 4]),
        ({"allOf": [BASE, {"properties": {"b": {"type": "null"}}}]}, [{"a": 3}, {"a": 3, "b": None}], [{"a": 2}, {"b": None}]),
        ({"$ref": "#/$defs/x", "maxLength": 2, "$defs": {"x": {"type": "string", "minLength": 2}}}, ["ab"], ["a", "abc"]),
        ({"$ref": "#/$defs/a~1b%25", "$defs": {"a/b%": {"const": 1}}}, [1], [2]),
        (
            {"properties": {"a": {"minimum": 3}, "b": True}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
            [{"a": 3}, {"b": "x"}, {"a": 4, "b": {"k": []}}], [{}, {"a": 1}],
        ),
        ({"enum": [1, "1", None, {"k": [1.5]}]}, [1, "1", None, {"k": [1.5]}], [2, "2", {}]),
        ({"enum": [1, "1", 7], "type": "integer", "maximum": 5}, [1], ["1", 7]),
        ({"type": "string", "enum": ["on", "off"], "pattern": "^o.$"}, ["on"], ["off"]),
        ({"const": {"a": True}}, [{"a": True}], [{"a": 1}, {}]),
        ({"type": "array", "prefixItems": [{"const": 1}, {"const": 2}], "items": False}, [[], [1], [1, 2]], [[2], [1, 2, 3]]),
        ({"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3}, [[1, 2], [1, 2, 3]], [[1], [1, 2, 3, 4]]),
        ({"type": "array", "items": [{"const": 1}], "additionalItems": {"const": 2}}, [[1, 2, 2]], [[2], [1, 1]]),
        ({"type": "object", "properties": {}}, [{}], [{"a": 1}]),
        ({"type": "object"}, [{}, {"a": 1, "": [None]}], [1]),
        ({"type": "object", "properties": {"a": {}}, "additionalProperties": {"const": 0}}, [{"b": 0}], [{"b": 1}]),
        ({"type": "object", "patternProperties": {"^n": {"const": 1}}, "additionalProperties": False}, [{"n1": 1}], [{"m": 1}]),
        ({"type": "object", "minProperties": 1, "maxProperties": 2}, [{"a": 1}], [{}, {"a": 1, "b": 2, "c": 0}]),
        ({"type": "object", "required": ["x"], "properties": {"y": {"const": 1}}}, [{"x": 5}, {"y": 1, "x": []}], [{"y": 1}]),
        ({"type": "string", "pattern": "b", "minLength": 3, "maxLength": 3}, ["abc", "bbb"], ["ab", "aaa", "abcd"]),
        ({"type": "string", "format": "date"}, ["2024-02-29", "1900-12-31"], ["2023-02-29", "2024-13-01", "1900-02-29"]),
        ({"type": "string", "format": "date-time"}, ["2024-02-29T23:59:59Z"], ["2024-02-29", "2024-02-29T24:00:00Z"]),
        ({"type": "string", "format": "ipv4"}, ["0.0.0.0", "255.1.2.3"], ["256.0.0.0", "1.2.3"]),
        ({"type": "string", "format": "ipv6"}, ["::", "1::", "::1", "1:2:3:4:5:6:7::"], ["1", ":::", "1:2:3:4:5:6:7:8:9", "::g"]),
        ({"type": "string", "format": "unheard-of"}, ["anything"], [1]),
        ({"type": "integer", "exclusiveMinimum": True, "minimum": 3}, [4], [3]),
        ({"type": "number", "multipleOf": 0.1, "minimum": 0, "maximum": 1}, [0.3, 1, 0.7], [0.25, 1.1]),
        ({"oneOf": [{"type": "integer"}, {"type": "string"}]}, [1, "a"], [1.5]),
        ({"type": "object", "properties": {"a": False, "b": {"const": 1}}}, [{}, {"b": 1}], [{"a": 1}]),
    ],
)  # fmt: skip
def test_keywords(schema: Any, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert fits(schema, value), value
        assert validate(value, schema) is None
    for value in bad:
        assert not fits(schema, value), value


def test_a_name_comes_only_once() -> None:
    state = Grammar(compile_schema({})[0]).start().advance('{"a": 1, "a')
    assert state is not None
    assert state.advance('": ') is None
    assert state.advance('b": ') is not None
    assert state.advance('\\u0062": ') is not None
    escaped = Grammar(compile_schema({})[0]).start().advance('{"a": 1, "\\u0061')
    assert escaped is not None
    assert escaped.advance('"') is None


def test_names_that_run_out_end_the_object() -> None:
    schema = {"type": "object", "propertyNames": {"pattern": "^[ab]$"}, "additionalProperties": {"const": 0}, "minProperties": 2}
    start = Grammar(compile_schema(schema)[0]).start()
    begun = start.advance('{"b')
    assert begun is not None
    assert begun.forced() == [('": 0, "a": 0}', False)]
    with pytest.raises(SchemaError, match="contradicts"):
        compile_schema({**schema, "minProperties": 3})


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"type": "string", "not": {"const": "x"}}, "not"),
        ({"type": "string", "pattern": "(?=.*a)b"}, "pattern"),
        ({"type": "object", "properties": {"a": {}}, "dependentRequired": {"a": ["b"]}}, "dependentRequired"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "oneOf"),
        ({"type": "integer", "if": {"minimum": 3}, "then": {"multipleOf": 2}}, "if"),
    ],
)
def test_what_the_grammar_cannot_say_is_told(schema: Any, keyword: str) -> None:
    assert keyword in compile_schema(schema)[1]


@pytest.mark.parametrize(
    ("value", "schema", "wrong"),
    [
        ([1, 1.0], {"uniqueItems": True}, "the value holds 1.0 twice; its items must differ"),
        ({"a": {"b": [1, ""]}}, {"properties": {"a": {"properties": {"b": {"items": {"type": "null"}}}}}},
            "a.b[0] is 1; it must be null"),
        ("x", {"not": {"const": "x"}}, "the value is 'x', which is excluded"),
        ({"a": 1}, {"dependentRequired": {"a": ["b"]}}, "the value has 'a' and so needs 'b'"),
        (4, {"if": {"minimum": 3}, "then": {"multipleOf": 3}}, "the value is 4; it must be a multiple of 3"),
        (1, {"oneOf": [{"type": "integer"}, {"type": "number"}]}, "the value fits 2 alternatives; it must fit one"),
        ({"a b": 0}, {"properties": {"a b": {"minimum": 1}}}, "['a b'] is 0; it must be at least 1"),
        ({}, {"required": ["bed"]}, "the value lacks 'bed'"),
        (True, {"type": "integer"}, "the value is True; it must be integer"),
        (1, {"enum": [True, "1"]}, "the value is 1; it must be one of True, '1'"),
        (0.3, {"multipleOf": 0.1}, None),
        ("\x1b[2J", {"maxLength": 1}, "the value has 4 characters; it must have at most 1"),
        ("\x1b", {"const": 1}, "the value is '\\x1b'; it must be 1"),
        (1, {"$ref": "#/nowhere"}, "the value cannot be checked: a schema refers to #/nowhere, which is not in it"),
        (1, {"$ref": "#"}, "the value cannot be checked: the schema leads too deep or too far"),
        ("ab", {"pattern": "(?=b)a"}, "the value is 'ab'; it must match '(?=b)a'"),
        ({"a": 1}, {"additionalProperties": False}, "a is not allowed"),
        ([0] * 300 + ["x"], {"items": {"type": "integer"}}, "[300] is 'x'; it must be integer"),  # a long list is not a deep one
        ([1], {"contains": {"const": 2}}, "the value holds 0 of the items that it must contain"),
    ],
)  # fmt: skip
def test_the_check_afterwards_says_where_and_what(value: Any, schema: Any, wrong: str | None) -> None:
    assert validate(value, schema) == wrong


def deep(levels: int) -> Any:
    out: Any = {"type": "null"}
    for _ in range(levels):
        out = {"type": "array", "items": out}
    return out


def many_refs(count: int) -> Any:
    defs = {f"d{n}": {"anyOf": [{"$ref": f"#/$defs/d{n + 1}"}, {"$ref": f"#/$defs/d{n + 1}"}]} for n in range(count)}
    return {"$defs": {**defs, f"d{count}": {"type": "null"}}, "$ref": "#/$defs/d0"}


@pytest.mark.parametrize(
    "schema",
    [
        deep(5000),
        {"enum": list(range(1_000_000))},
        {"type": "string", "pattern": "a{1000000}"},
        {"type": "string", "pattern": "((a{99}){99}){99}"},
        {"$ref": "#"},
        {"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}, "$ref": "#/$defs/a"},
        {"anyOf": [{"$ref": "#"}, {"type": "null"}]},
        {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
        {"$ref": "http://example.org/schema"},
        {"$ref": "#/$defs/missing"},
        many_refs(40),
        {"allOf": [{"anyOf": [{"minLength": n} for n in range(10)]} for _ in range(8)]},
        {"$defs": {f"d{n}": {"properties": {"p": {"$ref": f"#/$defs/d{n + 1}"}}} for n in range(5000)}, "$ref": "#/$defs/d0"},
        {"type": "array", "minItems": 10**9},
        {"type": "string", "minLength": 10**9},
        {"type": "object", "properties": {f"p{n}": {} for n in range(3000)}, "minProperties": 2999},
        {"type": "integer", "minimum": 3, "maximum": 2},
        {"type": "integer", "exclusiveMinimum": 3, "exclusiveMaximum": 4},
        {"type": "integer", "minimum": 8, "maximum": 13, "multipleOf": 7, "not": {}, "enum": [9]},
        {"type": "string", "pattern": "^a$", "minLength": 2},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
        {"allOf": [{"const": 1}, {"const": 2}]},
        {"type": "number", "minimum": float("nan")},
        {"type": "number", "multipleOf": 0},
        {"type": "thing"},
        {"type": "string", "maxLength": -1},
        {"type": "object", "properties": []},
        {"type": "string", "minLength": "x"},
        {"anyOf": 3},
        {"enum": "abc"},
        {"type": {"a": 1}},
        {"enum": []},
        False,
        7,
        {"type": "object", "properties": {"a": 7}},
        {"type": "string", "pattern": ["x"]},
        {"multipleOf": "2", "allOf": [{"multipleOf": 3}]},
        {"allOf": [{"minimum": "a"}, {"minimum": 1}]},
        {"type": "array", "prefixItems": 3},
        {"type": "object", "required": 3},
        {"type": "object", "required": [["a"]]},
        {"type": "object", "patternProperties": {"(?=a)": {}}},
        {1: 2},
        {"type": "string", "enum": {1, 2}},
    ],
)
def test_a_schema_that_is_wrong_or_hostile_is_refused_in_one_line_and_soon(schema: Any) -> None:
    begin = time.process_time()
    with pytest.raises(SchemaError) as error:
        compile_schema(schema)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    assert time.process_time() - begin < 5


KEYWORDS = [
    "type", "properties", "required", "additionalProperties", "items", "prefixItems", "minItems", "maxItems", "enum", "const",
    "anyOf", "oneOf", "allOf", "$ref", "$defs", "pattern", "format", "minLength", "maxLength", "minimum", "exclusiveMaximum",
    "multipleOf",
    "minProperties", "maxProperties", "patternProperties", "propertyNames", "nullable", "not", "additionalItems", "default",
]  # fmt: skip


def junk(r: random.Random, depth: int) -> Any:
    simple = [None, True, False, 0, 1, -1, 2.5, 10**400, 1e308, "", "a", "string", "object", "#", "#/$defs/a", "[", "^a+$"]
    if depth == 0 or r.random() < 0.3:
        return r.choice(simple)
    if r.random() < 0.3:
        return [junk(r, depth - 1) for _ in range(r.randint(0, 3))]
    keys = r.sample(KEYWORDS, r.randint(0, 5)) if r.random() < 0.8 else ["a", "string", ""]
    return {key: junk(r, depth - 1) for key in keys}


@given(st.integers(0, 2**60))
@settings(max_examples=runs(2000), deadline=None, derandomize=True)
def test_junk_is_refused_or_means_something(seed: int) -> None:
    r = random.Random(seed)
    schema = junk(r, 4)
    validate(junk(r, 3), schema)
    try:
        node, _ = compile_schema(schema)
    except SchemaError:
        return
    assert Grammar(node).start().threads


def test_a_large_but_honest_schema_is_no_bomb() -> None:
    names = [f"property_{n}" for n in range(300)]
    schema = {
        "type": "object",
        "properties": {name: {"type": "string", "enum": [f"{name}_{k}" for k in range(50)]} for name in names},
        "required": names[::3],
    }
    begin = time.process_time()
    value = {name: f"{name}_7" for name in names[::3]}
    assert fits(schema, value)
    assert time.process_time() - begin < 10
