"""What the agent's tests share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from agent.agent import Agent
from tests.fixtures.fake_engine import FakeEngine, Say
from tests.fixtures.scripted import Make


@pytest.fixture
def make(kept_templates: None) -> Iterator[Make]:
    """Makes agents over scripted engines, and closes them."""
    made: list[Agent] = []

    def new(*script: Say | str, template: str = "hermes", context: int = 100_000, **settings: Any) -> tuple[Agent, FakeEngine]:
        engine = FakeEngine(script, template=template, context=context)
        agent = Agent(engine, **settings)
        made.append(agent)
        return agent, engine

    yield new
    for agent in made:
        agent.close()
