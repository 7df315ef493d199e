"""What a script that configures logging sees of a run, and that one which does not sees nothing."""

from __future__ import annotations

import logging
import subprocess
import sys

import pytest

from agent.limits import Limits
from tests.fixtures.fake_engine import Say, call_text
from tests.fixtures.paths import ROOT
from tests.fixtures.scripted import RAIN, Make, delete, weather

pytestmark = pytest.mark.usefixtures("module_home")


@pytest.mark.parametrize("level", [logging.INFO, logging.DEBUG])
def test_a_run_is_told_step_by_step_and_nothing_of_what_was_said(
    make: Make, caplog: pytest.LogCaptureFixture, level: int
) -> None:
    caplog.set_level(level, logger="agent")
    calls = RAIN + "\n" + call_text("delete", {"path": "/home/ada/diary"})
    agent, _ = make(calls, "It rains, my secret.", tools=[weather, delete], system="You know the secret.")
    agent.run("A secret question")
    lines = [f"{record.name} {record.getMessage()}" for record in caplog.records if record.levelno >= logging.INFO]
    steps = [
        "agent.turn.run run began: fake, 2 tools, 0 tokens so far", "agent.turn.run prompt: ",
        "agent.approval.policy approval of weather: allowed by the rules", "agent.turn.run tool weather: done in 0.",
        "agent.approval.policy approval of delete: refused", "agent.turn.run tool delete: the call was refused",
        "agent.turn.run prompt: ", "agent.turn.run run ended (done) after ",
    ]  # fmt: skip
    assert [line[: len(step)] for line, step in zip(lines[-len(steps) :], steps, strict=True)] == steps
    everything = caplog.text + repr([record.args for record in caplog.records])
    assert not [word for word in ("secret", "Bern", "diary", "rain in") if word in everything]
    assert ("tool weather: called" in everything) == (level == logging.DEBUG)


def test_how_a_run_failed_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="agent")
    agent, _ = make(Say("A long answer", reason="length"), tools=[weather])
    agent.run("x", limits=Limits(tokens=3))
    assert "run ended (length)" in caplog.text


def test_the_library_installs_no_handler_and_prints_nothing_by_itself() -> None:
    program = (
        "import sys, agent\n"
        "print('logging' in sys.modules)\n"  # a child process would pay for it
        "agent.Agent, agent.Limits\n"
        "import logging\n"
        "logging.getLogger('agent.turn.run').warning('not shown')\n"
        "print(logging.getLogger().handlers, [type(h).__name__ for h in logging.getLogger('agent').handlers])\n"
        "logging.basicConfig(level=logging.INFO, format='%(name)s %(message)s')\n"
        "logging.getLogger('agent.turn.run').info('shown')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.splitlines() == ["False", "[] ['NullHandler']"]
    assert done.stderr == "agent.turn.run shown\n"
