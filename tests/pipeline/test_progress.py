"""What the commands tell of how far they are: each stage is counted in a unit that a person would count it in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from agent.progress import Progress, Unit
from pipeline import encoders
from pipeline.budget import divergence, spend
from pipeline.calibrate.calibrate import calibrate
from pipeline.deploy.card import deploy_to_folder
from pipeline.encoders import quantize
from pipeline.evaluate import beside, compare
from pipeline.evaluate.gate import FidelityGate
from pipeline.evaluate.tasks.call_tasks import CALLS, NONE
from pipeline.prune import measure as pruning
from pipeline.prune.prune import prune
from pipeline.recipes import budget
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.pipeline.evaluate.models import TEXTS

pytestmark = pytest.mark.usefixtures("home", "kept_templates")

SHAPE = replace(SMALL, layers=2)
Job = Callable[[Path, Callable[[Progress], None]], object]


def _talker(folder: Path) -> Path:
    return chat_model(folder / "talker.gguf", "hermes")


def _quantize(folder: Path, tell: Callable[[Progress], None]) -> object:
    checkpoint = write_checkpoint(folder / "hf", SHAPE)
    return quantize(str(checkpoint), out=folder / "q.gguf", bpw=6, encoder="ggml", gate=FidelityGate(kld=9), on_progress=tell)


def _encode(folder: Path, tell: Callable[[Progress], None]) -> object:
    return quantize(str(_talker(folder)), "Q4_0", folder / "q.gguf", encoder="gptq", threads=1, on_progress=tell)


def _prune(folder: Path, tell: Callable[[Progress], None]) -> object:
    text = folder / "text.txt"
    text.write_text(TEXTS["bees"] * 9)
    checkpoint = write_checkpoint(folder / "hf", SHAPE)
    return prune(str(checkpoint), folder / "new", ffn=96, depth="50%", text=[text], repair=False, threads=1, on_progress=tell)


def _ask(folder: Path, tell: Callable[[Progress], None]) -> object:
    return beside.measure_beside([_talker(folder)], calls=True, threads=1, on_progress=tell)


def _deploy(folder: Path, tell: Callable[[Progress], None]) -> object:
    (folder / "card").mkdir()
    return deploy_to_folder(_talker(folder), folder / "card", on_progress=tell)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("job", "units"),
    [
        (_quantize, {"measure": "bytes", "quantize": "bytes", "check": "bytes", "gate": "windows"}),
        (
            _encode,
            {"calibrate: write": "tokens", "calibrate: measure": "windows", "quantize": "bytes", "check": "bytes",
             "round again": "bytes"},
        ),
        (_prune, {"model": "", "measure": "windows", "influence": "", "prune": "tensors", "check": ""}),
        (_ask, {"calls": "tool calls"}),
        (_deploy, {"send": "bytes", "read back": "bytes"}),
    ],
)  # fmt: skip
def test_every_stage_is_counted_in_a_unit_that_fits(
    job: Job, units: dict[str, Unit], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "domains", lambda: dict(TEXTS))
    monkeypatch.setattr(spend, "texts", lambda: [TEXTS["bees"] * 30])
    monkeypatch.setattr(divergence, "WINDOWS", 1)
    monkeypatch.setattr(budget, "FAST", ("Q8_0", "Q4_0"))
    monkeypatch.setattr(pruning, "domains", lambda: {name: text * 9 for name, text in TEXTS.items()})
    monkeypatch.setattr(beside, "score_calls", partial(beside.score_calls, tasks=(CALLS[0], NONE[0])))
    monkeypatch.setattr(encoders, "calibrate", partial(calibrate, tokens=1024))
    seen: list[Progress] = []
    job(tmp_path, seen.append)
    assert {step.stage: step.unit for step in seen} == units
    for stage, unit in units.items():
        steps = [step for step in seen if step.stage == stage]
        done = [step.done for step in steps]
        assert done == sorted(done)
        assert {step.total for step in steps} == {steps[-1].total}, "how much there is does not change on the way"
        assert steps[-1].ended or not steps[-1].total
        assert done[0] == 0 or unit != "bytes", "or it would seem to have been there already"
