"""``make soak`` for a few seconds: agents whose processes are killed, stopped and flooded, and nothing hangs or stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.fixtures.paths import ROOT


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="it looks for what is left in /proc")
def test_agents_live_through_a_bad_time() -> None:
    command = [sys.executable, str(ROOT / "benchmarks" / "soak.py"), "--seconds", "7", "--seed", "7"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=150, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)
    assert found["wrong"] == []
    assert sum(count for what, count in found["happened"].items() if what.startswith("a process:")) > 2
