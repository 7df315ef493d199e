"""A turn in which the model calls a tool: ``python -m tests.arm.take_turn MODEL`` prints what came of it, as JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from agent.agent import Agent
from agent.limits import Limits
from agent.sessions.store import Store
from agent.tools.define import tool
from tests.fixtures.fake_engine import FakeEngine, call_text

ARGUMENTS = {"room": "kitchen", "on": True}


@tool
def lamp(room: Literal["kitchen"], on: Literal[True]) -> str:
    """Switch a lamp."""
    return f"the lamp in the {room} is {'on' if on else 'off'}"


def children() -> list[list[str]]:
    """The command lines of the processes that this one has started and that have not ended."""
    numbers = " ".join(place.read_text() for place in Path(f"/proc/{os.getpid()}/task").glob("*/children")).split()
    return [Path(f"/proc/{number}/cmdline").read_text().split("\0") for number in numbers]


def turn(path: str) -> dict[str, Any]:
    """The turn is kept in a session, which is read back. Without a file, the model speaks from a script."""
    settings: dict[str, Any] = {"tools": [lamp], "sampling": {"temperature": 0}}
    if path:
        settings |= {"model": path, "engine": {"threads": 1, "context": 2048}}
    else:
        settings |= {"model": FakeEngine([call_text("lamp", ARGUMENTS), "It is on."])}
    with Store() as store:
        session = store.create(title="lamps")
        with Agent(session=session, **settings) as agent:
            result = agent.run("Light, please", tool_choice="lamp", limits=Limits(rounds=2, tokens=200))
            commands = children()
    with Store() as store:
        kept = [asdict(stored.message) for stored in store.open(session.id).messages()]
    return {"machine": platform.machine(), "error": result.error, "id": session.id, "kept": kept, "children": commands}


if __name__ == "__main__":
    print(json.dumps(turn(sys.argv[1])))
