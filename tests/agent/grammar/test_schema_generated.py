"""What the grammar of a schema lets through fulfils it, and every value that fulfils it can be written."""

from __future__ import annotations

import json
import random

import jsonschema
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.dialects.families import GEMMA4
from agent.dialects.styles.gemma import Gemma
from agent.dialects.styles.python import Python
from agent.errors import SchemaError
from agent.grammar.matcher import Grammar
from agent.grammar.schema.compile import compile_schema
from agent.grammar.schema.validate import validate
from tests.agent.grammar import schemas
from tests.fixtures.generated import runs

pytestmark = pytest.mark.slow

SEEDS = st.integers(0, 2**60)


@given(SEEDS)
@settings(max_examples=runs(1250), deadline=None, derandomize=True)
def test_a_random_way_through_a_schema_ends_in_a_value_that_fulfils_it(seed: int) -> None:
    r = random.Random(seed)
    schema = schemas.schema(r)
    node, deferred = compile_schema(schema)
    assert deferred == []
    check = jsonschema.Draft202012Validator(schema)
    start = Grammar(node).start()
    for _ in range(2):
        written = schemas.walk(start, r, soon=r.choice([5, 60]))
        value = json.loads(written)
        check.validate(value)
        assert validate(value, schema) is None
        written.encode()  # no half of a surrogate pair
        json.dumps(value, ensure_ascii=False).encode()


@given(SEEDS)
@settings(max_examples=runs(1250), deadline=None, derandomize=True)
def test_every_value_that_fulfils_a_schema_can_be_written(seed: int) -> None:
    r = random.Random(seed)
    schema = schemas.schema(r)
    start = Grammar(compile_schema(schema)[0]).start()
    check = jsonschema.Draft202012Validator(schema)
    for _ in range(2):
        value = schemas.value(r, schema)
        check.validate(value)
        assert validate(value, schema) is None
        state = start.advance(schemas.dumps(value))
        assert state is not None, f"{schemas.dumps(value)} in {schema}"
        assert state.complete


@given(SEEDS)
@settings(max_examples=runs(1250), deadline=None, derandomize=True)
def test_the_check_afterwards_agrees_with_jsonschema_on_values_of_other_schemas(seed: int) -> None:
    r = random.Random(seed)
    schema, other = schemas.schema(r), schemas.schema(r)
    value = schemas.value(r, other)
    try:
        jsonschema.Draft202012Validator(schema).validate(value)
    except jsonschema.ValidationError:
        assert validate(value, schema) is not None
    else:
        # A format is a comment to jsonschema, but not here.
        assert validate(value, schema) is None or '"format"' in json.dumps(schema)


@given(SEEDS)
@settings(max_examples=runs(750), deadline=None, derandomize=True)
def test_a_value_that_does_not_fulfil_a_schema_cannot_be_written(seed: int) -> None:
    r = random.Random(seed)
    schema, other = schemas.schema(r), schemas.schema(r)
    value = schemas.value(r, other)
    state = Grammar(compile_schema(schema)[0]).start().advance(schemas.dumps(value))
    if state is not None and state.complete:
        assert validate(value, schema) is None


@given(SEEDS)
@settings(max_examples=runs(500), deadline=None, derandomize=True)
def test_what_is_forced_is_what_alone_may_come(seed: int) -> None:
    r = random.Random(seed)
    state = Grammar(compile_schema(schemas.schema(r))[0]).start()
    written = schemas.walk(state, r, soon=20)
    for at, char in enumerate(written):
        forced = "".join(text for text, _ in state.forced())
        assert written.startswith(forced, at), f"{forced!r} is forced, but {written[at:]!r} came"
        following = state.advance(char)
        assert following is not None
        state = following


@given(SEEDS)
@settings(max_examples=runs(500), deadline=None, derandomize=True)
def test_the_same_in_the_syntaxes_of_lfm_and_gemma(seed: int) -> None:
    r = random.Random(seed)
    schema = schemas.schema(r)
    for syntax in (Python(), Gemma(GEMMA4)):
        try:
            node, _ = compile_schema(schema, syntax)
        except SchemaError:
            assert isinstance(syntax, Gemma)  # names that it cannot write
            continue
        written = schemas.walk(Grammar(node).start(), r, soon=40, pool='<|"|>')
        assert written
        if type(syntax) is Python:
            value = eval(written, {"__builtins__": {}})
            assert validate(value, schema) is None
