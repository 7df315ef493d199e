"""Running Python as if on an ARM processor, with the parts that `make test-arm` puts into build/arm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.paths import ROOT

PARTS = ROOT / "build" / "arm"
HOST = "host"  # in the place of a processor's name: this machine's own Python

REASON = "build/arm has no emulated ARM processor, or no llama.cpp for it: make test-arm"
needs_python = pytest.mark.skipif(not (PARTS / ".packages").exists(), reason=REASON)
needs_llama = pytest.mark.skipif(not (PARTS / ".wheel").exists(), reason=REASON)


def python(processor: str, *arguments: str, home: Path) -> str:
    """Standard output of a Python on this processor. It finds Sprig, and keeps its files in ``home``."""
    program = sys.executable if processor == HOST else str(PARTS / processor)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPRIG_HOME": str(home)}
    done = subprocess.run([program, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, f"status {done.returncode}: {done.stderr[-2000:]}"
    return done.stdout


def answer(processor: str, *arguments: str, home: Path) -> Any:
    """The same, where it prints JSON."""
    return json.loads(python(processor, *arguments, home=home))
