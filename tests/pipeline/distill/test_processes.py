"""Two processes under ``accelerate launch`` learn what one learns with both their shares of each step."""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from pipeline import distill
from pipeline.distill.curves import read_points
from pipeline.distill.options import DistillOptions
from tests.fixtures.later import later, needs
from tests.fixtures.learners import models

needs("transformers", "accelerate")
torch = later("torch")
files = later("safetensors.torch")

# --multi_gpu is how accelerate says several processes; with --cpu it starts one, whatever their number.
LAUNCH = (
    "--multi_gpu", "--num_machines", "1", "--num_processes", "2", "--mixed_precision", "no", "--dynamo_backend", "no",
    "--main_process_port", "0", "-m", "sprig",
)  # fmt: skip


def launched(arguments: Sequence[str], out: Path) -> int:
    """The exit status of ``accelerate launch -m sprig`` in a fork of this process, which has loaded torch already."""
    if child := os.fork():
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    status = 1
    try:
        for number, path in ((1, out), (2, out.with_suffix(".log"))):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
        sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", closefd=False)
        handler = import_module("torch.distributed.elastic.multiprocessing.subprocess_handler.subprocess_handler")
        handler.Popen = forked  # type: ignore[attr-defined]
        launch = import_module("accelerate.commands.launch")
        launch.launch_command(launch.launch_command_parser().parse_args([*LAUNCH, *arguments]))
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def forked(args: Sequence[str], env: dict[str, str], **_: object) -> Any:
    """What subprocess.Popen would give of ``python -u -m sprig``, and it is a fork too."""
    process = get_context("fork").Process(target=run_sprig, args=(args[args.index("-m") + 1 :], env))
    process.start()
    return process._popen


def run_sprig(line: Sequence[str], env: dict[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(env)
    sys.argv = list(line)
    import_module(line[0]).main()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_two_processes_learn_what_one_does(tmp_path: Path) -> None:
    teacher, student, text = (str(models() / name) for name in ("teacher", "student", "text.txt"))
    options = DistillOptions(width=16, batch=4, tokens=130, rate=1e-2, bf16=False)
    alone = distill(teacher, student, tmp_path / "one", data=[Path(text)], options=options, threads=1)
    line = (
        *("distill", teacher, student, "-o", str(tmp_path / "two"), "--data", text, "--json", "--width", "16", "--batch", "4"),
        *("--tokens", "130", "--rate", "1e-2", "--no-bf16", "--threads", "1", "-v"),
    )
    said = tmp_path / "said"
    assert launched(line, said) == 0, said.with_suffix(".log").read_text()[-2000:]
    together = json.loads(said.read_text())  # one of the two speaks
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
