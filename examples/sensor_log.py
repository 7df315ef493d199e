"""Questions about a log of temperatures in SQLite, which the model can read and not change.

    python examples/sensor_log.py MODEL [QUESTION]
"""

from __future__ import annotations

import math
import sqlite3
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from model import chosen_model

from agent import Agent, Limits
from agent.text import display

SYSTEM = (
    "You answer questions about the database log.db with query_sqlite. Its only table is "
    "readings(hour INTEGER, place TEXT, celsius REAL); hour is 0 to 23, place is 'greenhouse' or 'shed'. "
    "For example: SELECT min(celsius) FROM readings WHERE place = 'shed'"
)
QUESTION = "What was the highest temperature in the greenhouse?"


def make_log(path: Path) -> float:
    """A day of readings of two sensors; gives the greenhouse's highest."""
    warmth = {"greenhouse": 24.0, "shed": 16.0}
    swing = [8 * math.sin((hour - 8) * math.pi / 12) for hour in range(24)]
    rows = [(hour, place, round(mean + swing[hour], 1)) for hour in range(24) for place, mean in warmth.items()]
    with closing(sqlite3.connect(path)) as log, log:
        log.execute("CREATE TABLE readings (hour INTEGER, place TEXT, celsius REAL)")
        log.executemany("INSERT INTO readings VALUES (?, ?, ?)", rows)
    return max(celsius for _, place, celsius in rows if place == "greenhouse")


with tempfile.TemporaryDirectory() as folder:
    highest = make_log(Path(folder, "log.db"))
    question = " ".join(sys.argv[2:]) or QUESTION
    limits = Limits(rounds=4, tokens=100, result=1000)
    with Agent(
        chosen_model(), tools=["query_sqlite"], system=SYSTEM, root=folder, limits=limits, sampling={"temperature": 0}
    ) as agent:
        result = agent.run(question, tool_choice="query_sqlite")
    print(f"? {question}")
    for done in result.calls:
        print(f"query: {done.call.arguments.get('sql')}\n{'' if done.ok else 'failed: '}{display(done.text, lines=True)}")
    print(f"answer: {display(result.text, lines=True)}")
    if question == QUESTION:
        print(f"(the log says {highest})")
