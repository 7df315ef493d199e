"""A turn in which a random model must call a tool: ``python -m tests.arm.take_turn MODEL`` prints what came of it, as JSON."""

from __future__ import annotations

import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from agent.agent import Agent
from agent.limits import Limits
from agent.sessions.store import Store
from agent.tools.define import tool


@tool
def lamp(room: Literal["kitchen"], on: Literal[True]) -> str:
    """Switch a lamp."""
    return f"the lamp in the {room} is {'on' if on else 'off'}"


def turn(path: str) -> dict[str, Any]:
    """The turn is kept in a session, which is read back."""
    with Store() as store:
        session = store.create(title="lamps")
        with Agent(
            path, tools=[lamp], session=session, sampling={"temperature": 0}, engine={"threads": 1, "context": 1024}
        ) as agent:
            result = agent.run("Light, please", tool_choice="lamp", limits=Limits(rounds=2, tokens=60))
            worker = Path(f"/proc/{agent.engine._connection.child.pid}/cmdline").read_text().split("\0")
    with Store() as store:
        kept = [asdict(stored.message) for stored in store.open(session.id).messages()]
    return {
        "machine": platform.machine(), "reason": result.reason, "error": result.error, "id": session.id, "kept": kept,
        "worker": worker,
    }  # fmt: skip


if __name__ == "__main__":
    print(json.dumps(turn(sys.argv[1])))
