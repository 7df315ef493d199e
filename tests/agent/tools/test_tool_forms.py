"""Types that JSON has none for, as parameters, answers and results: which schema, which value, which words when it is wrong."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.grammar.matcher import Grammar
from agent.grammar.schema.compile import compile_schema
from agent.grammar.schema.validate import validate
from agent.tools.convert import convert_fields
from agent.tools.define import as_tool, tool
from agent.tools.forms import form_of, read_duration, write_duration
from agent.tools.result import to_result
from agent.tools.schema import Bounds, Field
from agent.turn.output import Output
from tests.agent.tools.test_tool import schema_of
from tests.agent.tools.test_tool_convert import received
from tests.fixtures.generated import runs

ID = "12345678-1234-5678-1234-567812345678"
BASE64 = {"type": "string", "contentEncoding": "base64"}


@pytest.mark.parametrize(
    ("annotation", "schema"),
    [
        (Decimal, {"type": "number"}),
        (timedelta, {"type": "string", "format": "duration"}),
        (bytes, BASE64),
        (bytearray, BASE64),
        (time, {"type": "string", "format": "time"}),
        (Annotated[Decimal, Bounds(ge=Decimal("0.01"), lt=100)], {"type": "number", "minimum": 0.01, "exclusiveMaximum": 100}),
        (Annotated[bytes, Bounds(max_length=10)], {**BASE64, "maxLength": 16}),
        (dict[str, Decimal], {"type": "object", "additionalProperties": {"type": "number"}}),
    ],
)
def test_their_schemas(annotation: Any, schema: dict[str, Any]) -> None:
    assert schema_of(annotation) == schema


@pytest.mark.parametrize(
    ("annotation", "default", "said"),
    [
        (Decimal, Decimal("0.5"), 0.5), (Decimal, Decimal(3), 3), (timedelta, timedelta(minutes=90), "PT1H30M"),
        (date, date(2026, 3, 1), "2026-03-01"), (bytes, b"hello", "aGVsbG8="), (Path, Path("a"), "a"), (UUID, UUID(ID), ID),
    ],
)  # fmt: skip
def test_their_defaults_are_told_in_the_form_that_is_read(annotation: Any, default: Any, said: Any) -> None:
    schema = schema_of(annotation, default)
    assert schema["default"] == said
    assert received(annotation, said) == default


@pytest.mark.parametrize(
    ("annotation", "value", "made"),
    [
        (Decimal, 19.9, Decimal("19.9")), (Decimal, "19.90", Decimal("19.90")), (Decimal, 5, Decimal(5)),
        (Decimal, 1e-9, Decimal("1e-9")), (Decimal, 12345678901234567890, Decimal("12345678901234567890")),
        (Annotated[Decimal, Bounds(ge=Decimal("0.1"))], 0.1, Decimal("0.1")),
        (Annotated[Decimal, Bounds(le=0.1)], 0.1, Decimal("0.1")),
        (timedelta, "PT1H30M", timedelta(hours=1.5)), (timedelta, "P2DT0.5S", timedelta(days=2, seconds=0.5)),
        (timedelta, "P1W", timedelta(weeks=1)), (timedelta, "-PT5M", timedelta(minutes=-5)),
        (timedelta, 90, timedelta(seconds=90)),
        (bytes, "aGVsbG8=", b"hello"), (bytes, "aGVsbG8", b"hello"), (bytes, "_-8=", b"\xff\xef"), (bytes, "", b""),
        (bytearray, "aA==", bytearray(b"h")), (time, "12:30:00", time(12, 30)), (UUID, ID.upper(), UUID(ID)),
        (datetime, "2026-03-01T12:30:00Z", datetime(2026, 3, 1, 12, 30, tzinfo=UTC)),
    ],
)  # fmt: skip
def test_what_a_model_writes_becomes_the_value(annotation: Any, value: Any, made: Any) -> None:
    got = received(annotation, value)
    assert got == made
    assert type(got) is type(made)
    assert str(got) == str(made)


@pytest.mark.parametrize(
    ("annotation", "value", "said"),
    [
        (Decimal, "ten", "x: a number is needed, not 'ten'"),
        (Decimal, True, "x: a number is needed, not True"),
        (Decimal, "1e9999999", "x: a number is needed, not '1e9999999'"),
        (Annotated[Decimal, Bounds(gt=0.1)], 0.1, "x: must be more than 0.1, not 0.1"),
        (timedelta, "1:30", "x: a duration like PT1H30M or P2D is needed, not '1:30'"),
        (timedelta, "P1M", "x: a duration like PT1H30M or P2D is needed, not 'P1M' (years and months have no fixed length, "
            "write days, and minutes behind a T, like PT5M)"),
        (timedelta, "P999999999999D", "x: a duration like PT1H30M or P2D is needed, not 'P999999999999D' (that is too long)"),
        (timedelta, "PT", "x: a duration like PT1H30M or P2D is needed, not 'PT'"),
        (bytes, "ä", "x: base64 like aGVsbG8= is needed, not 'ä'"),
        (bytes, 5, "x: base64 like aGVsbG8= is needed, not 5"),
        (Annotated[bytes, Bounds(max_length=4)], "aGVsbG8=", "x: at most 4 bytes are allowed, not 5"),
        (UUID, "x", "x: a UUID is needed, not 'x'"),
        (date, "tomorrow", "x: a date like 2026-03-01 is needed, not 'tomorrow'"),
        (list[timedelta], ["PT5S", "x"], "x[1]: a duration like PT1H30M or P2D is needed, not 'x'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_told_with_an_example(annotation: Any, value: Any, said: str) -> None:
    assert received(annotation, value) == said


@given(st.timedeltas())
@example(timedelta(hours=1, milliseconds=100))
@example(timedelta(hours=1, seconds=5))
@example(timedelta(days=1, hours=2, minutes=3, seconds=4, microseconds=5))
@settings(max_examples=runs(200), deadline=None, derandomize=True)
def test_a_duration_is_read_back_as_it_was_written(length: timedelta) -> None:
    text = write_duration(length)
    assert abs(read_duration(text) - length) <= timedelta(microseconds=1 if abs(length.days) > 10_000 else 0)
    if length >= timedelta(0):
        assert validate(text, {"type": "string", "format": "duration"}) is None


@given(st.one_of(
    st.decimals(allow_nan=False, places=3, min_value=-10**9, max_value=10**9), st.binary(max_size=30), st.dates(),
    st.uuids(), st.datetimes(timezones=st.just(UTC)), st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=9000)),
))  # fmt: skip
@settings(max_examples=runs(200), deadline=None, derandomize=True)
def test_every_value_can_be_written_under_its_schema_and_is_read_back(value: Any) -> None:
    kind = type(value)
    form = form_of(kind)
    assert form is not None
    written = form.write(value)
    assert validate(written, form.schema) is None
    state = Grammar(compile_schema(dict(form.schema))[0]).start().advance(json.dumps(written))
    assert state is not None
    assert state.complete
    assert convert_fields({"x": json.loads(json.dumps(written))}, [Field("x", kind)], {}) == {"x": value}


@dataclass
class Order:
    price: Decimal
    lead: timedelta = timedelta(days=1)


def test_they_are_answers_too() -> None:
    output = Output.of(Order)
    assert output.read('{"price": 19.90, "lead": "PT2H"}') == (Order(Decimal("19.9"), timedelta(hours=2)), "")
    assert output.read('{"price": 1.5e-3}') == (Order(Decimal("0.0015")), "")
    assert Output.of(list[UUID]).read(f'["{ID}"]') == ([UUID(ID)], "")
    value, wrong = output.read('{"price": 1, "lead": "P1M"}')
    assert value is None
    assert "years and months have no fixed length" in wrong


@pytest.mark.parametrize(
    ("value", "text", "data"),
    [
        (Decimal("19.90"), "19.90", 19.9),
        ({"price": Decimal("19.90"), "n": Decimal(3)}, '{"price":19.9,"n":3}', {"price": 19.9, "n": 3}),
        ([Decimal("0.1234567890123456789")], '["0.1234567890123456789"]', ["0.1234567890123456789"]),
        ([Decimal("NaN"), Decimal("1e999")], '["NaN","1E+999"]', ["NaN", "1E+999"]),
        (timedelta(minutes=90), "PT1H30M", "PT1H30M"),
        ({"id": UUID(ID), "at": datetime(2026, 3, 1, 12)}, f'{{"id":"{ID}","at":"2026-03-01T12:00:00"}}',
            {"id": ID, "at": "2026-03-01T12:00:00"}),
        (memoryview(b"\x89PNG\r\n"), "PNG image, 6 bytes", None),
    ],
)  # fmt: skip
def test_they_are_results(value: Any, text: str, data: Any) -> None:
    result = to_result(value)
    assert (result.ok, result.text, result.data) == (True, text, data)
    json.dumps(result.data, allow_nan=False)


def test_an_argument_of_every_kind_in_one_call() -> None:
    @tool
    def plan(cost: Decimal, length: timedelta, start: datetime, key: bytes, file: Path = Path("plan.txt")) -> str:
        """Plan it."""
        return f"{cost + 1} {start + length:%H:%M} {key!r} {file.name}"

    values = {"cost": 0.1, "length": "PT45M", "start": "2026-03-01T12:30:00Z", "key": "aGk="}
    assert validate(values, plan.spec.parameters) is None
    assert as_tool(plan).invoke(values).text == "1.1 13:15 b'hi' plan.txt"
