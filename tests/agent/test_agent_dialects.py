"""Models that say anything at all: whatever the weights, every call fits its tool's schema, and every run ends.

For each family a tiny random GGUF is the model, in the real engine; a few hundred runs are held to the constraints of their
dialect, and each call is validated once more by an implementation of JSON Schema that is not ours.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal, TypedDict

import jsonschema
import pytest

from agent import events as e
from agent.agent import Agent
from agent.engine.handle import Engine
from agent.limits import Limits
from agent.tools.define import tool
from agent.tools.schema import Bounds
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.chat_templates import TEMPLATES

pytestmark = pytest.mark.slow

TURNS = int(os.environ.get("SPRIG_TEST_TURNS", "8"))  # of each family
WILD = {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
CHOICES = ("auto", "required", "none", "plan")


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Place(TypedDict):
    street: Annotated[str, Bounds(max_length=6)]
    number: Annotated[int, Bounds(ge=1, le=99)]


@tool
def plan(
    size: Size,
    day: Literal["mon", "tue"],
    count: Annotated[int, Bounds(ge=0, le=20)],
    place: Place,
    tags: Annotated[list[Annotated[str, Bounds(max_length=3)]], Bounds(max_length=2)],
    note: Annotated[str, Bounds(max_length=5)] = "",
) -> str:
    """Plan it."""
    return "planned"


@tool
def light(on: bool, share: Annotated[float, Bounds(ge=0, le=1)] = 1.0) -> str:
    """Switch it."""
    return "on" if on else "off"


@tool
def now() -> str:
    """The time."""
    return "noon"


@pytest.fixture(scope="module", params=[name for name in TEMPLATES if name != "odd"])
def agent(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Agent]:
    folder = tmp_path_factory.mktemp(request.param.replace(".", "-"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPRIG_HOME", str(folder / "home"))
        path = chat_model(folder / "m.gguf", request.param, llama__context_length=8192)
        with (
            Engine(path, context=8192, threads=1, batch=512) as engine,
            Agent(engine, tools=[plan, light, now], sampling={**WILD, "seed": 1}) as made,
        ):
            yield made


def validated(agent: Agent, events: list[e.Event]) -> None:
    for event in events:
        if isinstance(event, e.CallReady):
            called: Any = agent.tool(event.call.name)
            jsonschema.validate(dict(event.call.arguments), called.spec.parameters)


def test_every_call_fits_its_schema_and_every_run_ends(agent: Agent) -> None:
    from agent.engine.sampling import Sampling

    called = ended = 0
    for turn, choice in zip(range(TURNS), itertools.cycle(CHOICES), strict=False):
        if turn % 4 == 0:
            agent.reset()
        agent.sampling = Sampling.for_model({}, **WILD, seed=turn)
        events = list(agent.stream(f"Do {turn}", tool_choice=choice, limits=Limits(rounds=2, tokens=240)))
        done = events[-1]
        assert isinstance(done, e.Done)
        result = done.result
        assert result.reason in ("done", "length", "rounds", "loop", "repeated call"), result.error
        validated(agent, events)
        refused = [x for x in events if isinstance(x, e.CallRefused)]
        assert all("was ended" in x.why for x in refused), refused
        ready = [x.call.name for x in events if isinstance(x, e.CallReady)]
        if choice == "none":
            assert not ready
        if choice in ("required", "plan") and not (result.reason == "length" and len(result.messages) == 2):
            assert ready, result
            assert choice == "required" or ready[0] == "plan"
        called += len(ready)
        ended += result.reason in ("done", "rounds")
    assert called >= TURNS // 8  # some think until their tokens are used up
    assert ended or agent.template.profile.thinking is not None
    assert agent.engine.restarts == 0


SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 6}, "size": {"enum": ["small", "large"]}, "n": {"type": "integer",
                   "minimum": 0, "maximum": 99}},
    "required": ["name", "size", "n"], "additionalProperties": False,
}  # fmt: skip


def test_every_object_fits_its_schema(agent: Agent) -> None:
    from agent.engine.sampling import Sampling

    fitting = 0
    for turn in range(max(2, TURNS // 4)):
        agent.reset()
        agent.sampling = Sampling.for_model({}, **WILD, seed=turn)
        # An open thought may go on until the tokens are used up.
        agent.max_thinking = 20
        result = agent.run("An object", schema=SCHEMA, tool_choice="none", limits=Limits(tokens=400))
        assert result.reason in ("done", "length"), result
        if result.reason == "done":
            jsonschema.validate(result.value, SCHEMA)
            fitting += 1
    assert fitting
    assert agent.engine.restarts == 0
