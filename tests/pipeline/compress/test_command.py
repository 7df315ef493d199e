"""`sprig compress` as a person runs it: real commands, killed in every stage, and the same bytes in the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.fixtures.command import environment, only_json
from tests.fixtures.generated import SHARE
from tests.fixtures.paths import ROOT
from tests.fixtures.patience import PATIENCE
from tests.fixtures.random_llama import LlamaShape, write_checkpoint

pytestmark = pytest.mark.slow

PLAN = """
model = "tiny"
size = "800kB"
data = ["data.txt"]
threads = 1
[calibrate]
tokens = 512
[evaluate]
windows = 4
context = 64
[quantize]
types = "Q4_0,Q8_0"
[[candidate]]
name = "whole"
[[candidate]]
name = "taught"
prune = { ffn = 256 }
distill = { tokens = 256, width = 32, batch = 2 }
"""
ONE = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    pytest.importorskip("torch", reason="the train extra is not installed")
    pytest.importorskip("transformers", reason="the train extra is not installed")
    write_checkpoint(tmp_path / "tiny", LlamaShape(256, 512, 2, 4, 2, 320))
    (tmp_path / "data.txt").write_text("".join(f"Line {i} of a text, and {i * i} is its square.\n\n" for i in range(1500)))
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def stages_there(work: Path) -> set[str]:
    """The stages that have begun; where only a share of the examples is tried, their kinds: one stands for all of its command."""
    names = {path.parent.name for path in work.glob("*/key")}
    return names if SHARE >= 1 else {name.rpartition(".")[2] for name in names}


def run_until_the_next_stage(plan: Path, out: Path, home: Path) -> int | None:
    """Kill it as soon as a stage begins that had not begun before; None when it was killed, else its exit status."""
    work = out.with_name(f"{out.stem}.compress")
    before = stages_there(work)
    line = [sys.executable, "-m", "sprig", "compress", str(plan), "-o", str(out)]
    child = subprocess.Popen(line, env=environment(home, ONE), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    end = time.monotonic() + 600 * PATIENCE
    while child.poll() is None:
        assert time.monotonic() < end
        if stages_there(work) - before:
            time.sleep(0.5)  # it has begun to work
            child.send_signal(signal.SIGKILL)
        time.sleep(0.02)
    child.communicate()
    return None if child.returncode == -signal.SIGKILL else child.returncode


@pytest.mark.timeout(1200)  # nine stages, each killed once and begun again
def test_killed_in_every_stage_the_bytes_are_the_same(plan: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    line = [sys.executable, "-m", "sprig", "compress", str(plan), "-o", str(tmp_path / "a" / "x.gguf"), "--json"]
    done = subprocess.run(line, env=environment(tmp_path / "home", ONE), cwd=ROOT, capture_output=True, text=True, check=False)
    quiet = only_json(done)
    assert not [stage["error"] for stage in quiet["stages"] if stage["error"]]
    kills = 0
    while (status := run_until_the_next_stage(plan, tmp_path / "b" / "x.gguf", tmp_path / "home")) is None:
        kills += 1
        assert kills <= len(quiet["stages"])
    assert status == 0
    assert kills >= (
        len(quiet["stages"]) - 1 if SHARE >= 1 else len({stage["name"].rpartition(".")[2] for stage in quiet["stages"]})
    )
    assert (tmp_path / "b" / "x.gguf").read_bytes() == (tmp_path / "a" / "x.gguf").read_bytes()
    told = json.loads((tmp_path / "b" / "x.compress" / "report.json").read_text())
    for one, two in zip(told["measured"], quiet["measured"], strict=True):
        assert (one["name"], one["size"], one["kld"]) == (two["name"], two["size"], two["kld"])
    assert (tmp_path / "b" / "x.gguf").samefile(Path(told["work"]) / f"{told['chosen']}.quantize" / "x.gguf")
