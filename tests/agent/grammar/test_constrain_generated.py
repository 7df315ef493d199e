"""In every dialect: what a model can be brought to write is a valid call, and every valid call can be written."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dialects.base import CallBroken, CallDone, Dialect, TextPiece
from agent.dialects.constrain import Constraint
from agent.dialects.families import DIALECTS
from agent.dialects.parser import StreamParser
from agent.dialects.write import write_calls
from agent.errors import SchemaError
from agent.grammar.schema.validate import validate
from agent.messages import ToolCall, ToolSpec
from tests.agent.grammar import schemas
from tests.fixtures.generated import runs

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**60)
NAMES = sorted(DIALECTS)


def tool(r: random.Random, name: str) -> ToolSpec:
    names = r.sample(["bed", "be", "seconds", "when", "note", "value_2"], r.randint(0, 4))
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": {n: schemas.schema(r, 2) for n in names},
        "required": [n for n in names if r.random() < 0.5],
    }
    return ToolSpec(name, "", parameters)


def prefix(dialect: Dialect) -> str:
    return dialect.call_open if dialect.text_name else ""


def constraint(dialect: Dialect, tools: list[ToolSpec], **more: Any) -> Constraint:
    spec = {"dialect": dialect.to_dict(), "tools": [{"name": t.name, "parameters": t.parameters} for t in tools], **more}
    return Constraint.from_spec({"prefix": prefix(dialect), **spec})


def read(dialect: Dialect, tools: list[ToolSpec], written: str) -> list[Any]:
    parser = StreamParser(dialect, {t.name: t for t in tools}, thinking=None, prefix=prefix(dialect))
    return [*parser.feed(written), *parser.finish()]


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS)
@settings(max_examples=runs(40), deadline=None, derandomize=True)
def test_a_random_way_through_an_answer_is_read_as_valid_calls(name: str, seed: int) -> None:
    r = random.Random(seed)
    dialect = DIALECTS[name]
    tools = [tool(r, "water"), tool(r, "water_all")]
    try:
        at = constraint(dialect, tools, choice=r.choice(["required", "required", "water"]), parallel=r.random() < 0.5)
    except SchemaError:
        assert dialect.style in ("tagged", "gemma")  # a constant that the dialect cannot write
        return
    written = schemas.walk(at._state, r, soon=r.choice([20, 150]), pool=dialect.quote + dialect.parameter_close)
    pieces = read(dialect, tools, written)
    calls = [piece for piece in pieces if isinstance(piece, CallDone)]
    assert not [piece for piece in pieces if isinstance(piece, (CallBroken, TextPiece))], written
    assert calls
    for call in calls:
        schema = next(t.parameters for t in tools if t.name == call.call.name)
        assert validate(dict(call.call.arguments), {**schema, "additionalProperties": False}) is None, written


@pytest.mark.parametrize("name", NAMES)
@given(SEEDS)
@settings(max_examples=runs(40), deadline=None, derandomize=True)
def test_every_valid_call_can_be_written(name: str, seed: int) -> None:
    r = random.Random(seed)
    dialect = DIALECTS[name]
    tools = [tool(r, "water"), tool(r, "water_all")]
    ids = "a1B2c3D4e"
    calls = [ToolCall(t.name, schemas.value(r, t.parameters), ids) for t in r.choices(tools, k=3 if dialect.parallel else 1)]
    written = "".join(segment.text for segment in write_calls(dialect, calls, {t.name: t for t in tools}))
    marks = (dialect.quote if dialect.style == "gemma" else dialect.parameter_close.strip(), "]]>")
    texts = [text for call in calls for text in strings(call.arguments)]
    if any(mark and mark in text for mark in marks for text in texts):
        return  # what a dialect has no way to write
    try:
        at = constraint(dialect, tools, choice="auto")
    except SchemaError:
        assert dialect.style in ("tagged", "gemma")
        return
    data = written.removeprefix(prefix(dialect)).encode()
    start = 0
    while start < len(data):  # tokens of one to six bytes
        size = r.randint(1, 6)
        piece = data[start : start + size]
        assert at.accepts(piece, False), f"{piece!r} after {data[:start]!r}"
        at.commit(piece, False)
        start += size
    assert at.may_end()


def strings(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        return [text for key, item in value.items() for text in (key, *strings(item))]
    return [text for item in value for text in strings(item)] if isinstance(value, list) else []


@given(SEEDS)
@settings(max_examples=runs(50), deadline=None, derandomize=True)
def test_random_bytes_never_get_an_answer_stuck(seed: int) -> None:
    r = random.Random(seed)
    dialect = DIALECTS[r.choice(NAMES)]
    try:
        at = constraint(dialect, [tool(r, "water")], choice="required")
    except SchemaError:
        return
    pieces = [*(bytes([b]) for b in range(256)), "ü".encode(), "字".encode(), b'"}', b'", "', b"}]", b"12"]
    r.shuffle(pieces)
    for _ in range(150):
        if at.phase == "done":
            break
        turn = r.randrange(len(pieces))
        piece = next((piece for piece in pieces[turn:] + pieces[:turn] if at.accepts(piece, False)), None)
        assert piece is not None or at.may_end()
        if piece is None:
            break
        at.commit(piece, False)
