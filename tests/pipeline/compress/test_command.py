"""`sprig compress` with all its commands, killed in every stage, and the same bytes in the end."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.children.orphan import end_with_parent
from pipeline.compress import stage
from pipeline.steps import command
from pipeline.steps.command import CommandAnswer
from tests.fixtures.command import only_json, sprig
from tests.fixtures.generated import SHARE
from tests.fixtures.later import needs
from tests.fixtures.random_llama import LlamaShape, write_checkpoint
from tests.pipeline.compress.stage_forks import becomes, launcher

needs("torch", "transformers")
pytestmark = pytest.mark.slow

PLAN = """
model = "tiny"
size = "450kB"
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
    write_checkpoint(tmp_path / "tiny", LlamaShape(256, 512, 1, 4, 2, 320))
    (tmp_path / "data.txt").write_text("".join(f"Line {i} of a text, and {i * i} is its square.\n\n" for i in range(1500)))
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def stages_there(work: Path) -> set[str]:
    """The stages that have begun; where only a share of the examples is tried, their kinds: one stands for all of its command."""
    names = {path.parent.name for path in work.glob("*/key")}
    return names if SHARE >= 1 else {name.rpartition(".")[2] for name in names}


def run_until_the_next_stage(plan: Path, out: Path, home: Path) -> int:
    """Run it in a fork that is killed in the first stage that had not begun before. How it ended."""
    work = out.with_name(f"{out.stem}.compress")
    before = stages_there(work)
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    end_with_parent(signal.SIGKILL, os.getppid())
    command.launch = launcher(lambda: stages_there(work) - before, 0.3)  # type: ignore[assignment]
    becomes(lambda: sys.exit(sprig("compress", plan, "-o", out, home=home, **ONE).returncode))
    raise AssertionError


def undisturbed(plan: Path, out: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What it answers when nothing kills it; its stages are commands in this process."""

    def run_command(command: str, arguments: Sequence[str], scratch: Path, **_: object) -> CommandAnswer:
        return CommandAnswer(only_json(sprig(command, *arguments, "--json", home=home, **ONE)))

    with monkeypatch.context() as patch:
        patch.setattr(stage, "run_command", run_command)
        return only_json(sprig("compress", plan, "-o", out, "--json", home=home, **ONE))


@pytest.mark.timeout(1200)  # nine stages, each killed once and begun again
def test_killed_in_every_stage_the_bytes_are_the_same(plan: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    quiet = undisturbed(plan, tmp_path / "a" / "x.gguf", tmp_path / "home", monkeypatch)
    assert not [told["error"] for told in quiet["stages"] if told["error"]]
    kills = 0
    while (status := run_until_the_next_stage(plan, tmp_path / "b" / "x.gguf", tmp_path / "home")) == -signal.SIGKILL:
        kills += 1
        assert kills <= len(quiet["stages"])
    assert status == 0
    names = {told["name"] for told in quiet["stages"]}
    assert kills == len(names if SHARE >= 1 else {name.rpartition(".")[2] for name in names})
    assert (tmp_path / "b" / "x.gguf").read_bytes() == (tmp_path / "a" / "x.gguf").read_bytes()
    told = json.loads((tmp_path / "b" / "x.compress" / "report.json").read_text())
    for one, two in zip(told["measured"], quiet["measured"], strict=True):
        assert (one["name"], one["size"], one["kld"]) == (two["name"], two["size"], two["kld"])
    assert (tmp_path / "b" / "x.gguf").samefile(Path(told["work"]) / f"{told['chosen']}.quantize" / "x.gguf")
