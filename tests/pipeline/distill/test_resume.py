"""A run that is killed goes on where it was and gives the very bytes of one that was not."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import CheckpointError, OutputError, SprigError
from pipeline import Distilled, distill
from pipeline.distill.options import DistillOptions
from tests.fixtures.later import later, needs
from tests.fixtures.learners import models

needs("torch", "transformers")
loop = later("pipeline.distill.loop")
work = later("pipeline.distill.work")

OPTIONS = DistillOptions(width=16, batch=4, tokens=800, rate=3e-3, bf16=False, hidden=0.5)


def run(out: Path, options: DistillOptions = OPTIONS, student: str = "small", **more: Any) -> Distilled:
    folder = models()
    return distill(
        str(folder / "teacher"), str(folder / student), out, data=[folder / "text.txt"], options=options, threads=1, **more
    )


def killed(out: Path, when: Any, options: DistillOptions = OPTIONS, student: str = "small", *, resume: bool = False) -> None:
    """Run in a process of its own, which ends by SIGKILL as soon as ``when`` says so of a step."""

    def watch(step: loop.DistillStep) -> None:
        if when(step):
            os.kill(os.getpid(), signal.SIGKILL)

    if (pid := os.fork()) == 0:
        try:
            run(out, options, student, resume=resume, on_step=watch)
        finally:
            os._exit(1)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_STATES", 0.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["all weights and projections", "low rank", "kept answers"])
def test_kill_9_changes_no_byte(kind: str, tmp_path: Path) -> None:
    options = {
        "all weights and projections": OPTIONS,
        "low rank": replace(OPTIONS, hidden=0.0, lora=3),
        "kept answers": replace(OPTIONS, hidden=0.0, top_k=16),
    }[kind]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    expected = run(whole, options)
    state = tmp_path / "broken.part" / "state.safetensors"
    killed(broken, lambda step: step.step >= 5 and state.exists(), options)
    first = state.read_bytes()
    killed(broken, lambda step: state.read_bytes() != first, options, resume=True)
    asked: list[loop.DistillStep] = []
    found = run(broken, options, resume=True, on_step=asked.append)
    assert asked[0].step > 1
    assert "teacher" not in {step.stage for step in asked}
    assert (found.before, found.after, found.best_step, found.tokens) == (
        expected.before, expected.after, expected.best_step, expected.tokens,
    )  # fmt: skip
    for name in ("model.safetensors", "config.json", "README.md", "tokenizer.json"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes().replace(b"# broken", b"# whole"), name
    assert sorted(p.name for p in tmp_path.iterdir()) == ["broken", "whole"]


@pytest.mark.slow
def test_a_run_that_is_killed_before_its_first_step_goes_on_too(tmp_path: Path) -> None:
    killed(tmp_path / "out", lambda step: step.stage == "evaluate")
    found = run(tmp_path / "out", resume=True)
    assert found.after < found.before


@pytest.mark.slow
def test_an_unfinished_run_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    state = tmp_path / "out.part" / "state.safetensors"
    killed(out, lambda step: state.exists())
    with pytest.raises(OutputError, match=r"out.part holds an unfinished run: go on with it \(--resume\), or remove it"):
        run(out)
    with pytest.raises(SprigError, match=r"is another one \(rate was 0.003 and is 0.001\)"):
        run(out, replace(OPTIONS, rate=1e-3), resume=True)
    with pytest.raises(SprigError, match=r"is another one \(student was"):
        run(out, student="student", resume=True)
    (tmp_path / "out.part" / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match=r"state.safetensors is broken .* remove it to start from the student"):
        run(out, resume=True)
    (tmp_path / "out.part" / "plan.json").write_bytes(b"{")
    with pytest.raises(CheckpointError, match=r"plan.json is broken; remove .*out.part and start again"):
        run(out, resume=True)


@pytest.mark.slow
def test_a_disk_that_fills_up_keeps_what_was_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    whole = run(tmp_path / "whole")
    real, room = work.free_disk, 1 << 40
    monkeypatch.setattr(work, "free_disk", lambda path: min(room, real(path)))

    def fill(step: loop.DistillStep) -> None:
        nonlocal room
        room = 1000 if step.step == 9 else room

    with pytest.raises(OutputError, match=r"needs .* kB, 1 kB free: make room and go on with --resume"):
        run(out, on_step=fill)
    room = 1 << 40
    assert run(out, resume=True).after == whole.after
