"""Two processes under ``accelerate launch`` learn what one learns with both their shares of each step."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline import distill
from pipeline.distill.curves import read_points
from pipeline.distill.options import DistillOptions
from tests.fixtures.later import later, needs
from tests.fixtures.learners import models

needs("transformers", "accelerate")
torch = later("torch")
files = later("safetensors.torch")

ROOT = Path(__file__).parents[3]
# --multi_gpu is how accelerate says several processes; with --cpu it starts one, whatever their number.
LAUNCH = (
    "accelerate.commands.launch", "--multi_gpu", "--num_machines", "1", "--num_processes", "2", "--mixed_precision", "no",
    "--dynamo_backend", "no", "--main_process_port", "0", "-m", "sprig",
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(600)  # three Pythons that load torch, on a machine that may have other work
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    teacher, student, text = (str(models() / name) for name in ("teacher", "student", "text.txt"))
    options = DistillOptions(width=16, batch=4, tokens=130, rate=1e-2, bf16=False)
    alone = distill(teacher, student, tmp_path / "one", data=[Path(text)], options=options, threads=1)
    told = subprocess.run(
        [
            *(sys.executable, "-m", *LAUNCH, "distill", teacher, student, "-o", str(tmp_path / "two"), "--data", text, "--json"),
            *("--width", "16", "--batch", "4", "--tokens", "130", "--rate", "1e-2", "--no-bf16", "--threads", "1", "-v"),
        ],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=560,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]]), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert told.returncode == 0, told.stderr[-2000:]
    together = json.loads(told.stdout)  # one of the two speaks
    assert together["steps"] == alone.steps
    assert together["tokens"] == alone.tokens
    one, two = (read_points(tmp_path / name / "runs") for name in ("one", "two"))
    for name in ("train/loss", "train/divergence", "evaluation/loss"):
        assert list(two[name]) == list(one[name])
        assert list(two[name].values()) == pytest.approx(list(one[name].values()), rel=1e-5)
    mine, theirs = (files.load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in mine.items():
        torch.testing.assert_close(theirs[name], weight, rtol=1e-3, atol=2e-5)
    assert any(not torch.equal(theirs[name], weight) for name, weight in mine.items())  # sums were added in another order
