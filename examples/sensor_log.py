"""Questions about a log of temperatures in SQLite, which the model can read and not change.

    python examples/sensor_log.py MODEL [QUESTION]

The built-in tool query_sqlite takes any SELECT. A small model writes SQL that is wrong, so here a pattern says what it can ask;
give a larger one query_sqlite itself: Agent(model, tools=["query_sqlite"], root=folder).
"""

from __future__ import annotations

import math
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Annotated

from model import chosen_model

from agent import Agent, Bounds, Limits, ToolResult, tool
from agent.text import display
from agent.tools.builtin.catalogue import builtin

QUESTION = "What was the highest temperature in the greenhouse?"
SYSTEM = "You answer questions about a log of temperatures in degrees Celsius, in the greenhouse and in the shed."
SQL = r"SELECT (max|min|avg)\(celsius\) FROM readings WHERE place = '(greenhouse|shed)'( AND hour (<|>) [0-9]{1,2})?"
folder = tempfile.TemporaryDirectory()


@tool
def query(sql: Annotated[str, Bounds(pattern=SQL)]) -> ToolResult:
    """Query the log of temperatures, like SELECT min(celsius) FROM readings WHERE place = 'shed'"""
    return builtin(["query_sqlite"], root=Path(folder.name))[0].invoke({"path": "log.db", "sql": sql})


def make_log(path: Path) -> float:
    """A day of readings of two sensors; gives the greenhouse's highest."""
    warmth = {"greenhouse": 24.0, "shed": 16.0}
    swing = [8 * math.sin((hour - 8) * math.pi / 12) for hour in range(24)]
    rows = [(hour, place, round(mean + swing[hour], 1)) for hour in range(24) for place, mean in warmth.items()]
    with closing(sqlite3.connect(path)) as log, log:
        log.execute("CREATE TABLE readings (hour INTEGER, place TEXT, celsius REAL)")
        log.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
    return max(celsius for _, place, celsius in rows if place == "greenhouse")


with folder:
    highest = make_log(Path(folder.name, "log.db"))
    question = " ".join(sys.argv[2:]) or QUESTION
    limits = Limits(rounds=3, tokens=80)
    with Agent(chosen_model(), tools=[query], system=SYSTEM, limits=limits, sampling={"temperature": 0}) as agent:
        result = agent.run(question, tool_choice="required")
print(f"? {question}")
for done in result.calls:
    print(f"query: {done.call.arguments['sql']}\n{'' if done.ok else 'failed: '}{display(done.text, lines=True)}")
print(f"answer: {display(result.text, lines=True)}")
if question == QUESTION:
    print(f"(the log says {highest})")
