"""`--gate`: a file is compared with its original before it is published; what falls short leaves nothing."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from agent.errors import OutputError, RecipeError
from pipeline import quantize
from pipeline.evaluate import compare
from pipeline.evaluate.gate import FidelityGate, read_gate
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.pipeline.evaluate.models import TEXTS, tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "tiny", SMALL)


@pytest.fixture(autouse=True)
def _short_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare, "domains", lambda: dict(TEXTS))


@pytest.mark.slow
def test_a_file_that_passes_is_published_with_its_figures(checkpoint: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    result = quantize(
        str(checkpoint), "Q8_0", tmp_path / "a.gguf", gate=FidelityGate(kld=0.1), on_progress=lambda p: stages.append(p.stage)
    )
    assert result.fidelity is not None
    assert result.fidelity.line.startswith("mean KLD 0.0")
    assert f"| Fidelity | {result.fidelity.line} |" in result.card.read_text()
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False, default=str))["fidelity"]
    assert 0 < told["kld"]["value"] <= 0.1
    assert told["domains"] == 2
    assert "gate" in stages
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "a.md"]


@pytest.mark.slow
def test_a_file_that_falls_short_is_not_published_and_nothing_is_left(checkpoint: Path, tmp_path: Path) -> None:
    old = tmp_path / "a.gguf"
    old.write_bytes(b"an older one")
    with pytest.raises(OutputError) as told:
        quantize(str(checkpoint), "Q4_0", old, gate=FidelityGate(kld=1e-9, top1=1))
    assert re.fullmatch(
        r"the finished file falls short of --gate and was not published: its mean KLD is 0\.\d+ ± 0\.\d+ nats, and 1e-09 is "
        r"allowed; its share of equal top-1 is 0\.\d+ ± 0\.\d+, and 1 is wanted \(on [\d,]+ tokens of 2 held-out domains\); .*",
        str(told.value),
    )
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]
    assert old.read_bytes() == b"an older one"


@pytest.mark.slow
def test_what_a_killed_run_left_of_its_reference_goes_with_the_next(checkpoint: Path, tmp_path: Path) -> None:
    left = tmp_path / ".a.gguf.part.reference"
    left.mkdir()
    (left / "reference.gguf").write_bytes(b"half of it")
    (tmp_path / f"{left.name}.lock").touch()
    quantize(str(checkpoint), "Q8_0", tmp_path / "a.gguf", gate=FidelityGate(kld=0.1))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.gguf", "a.md"]


@pytest.mark.slow
def test_a_gguf_is_compared_with_itself_as_it_was(tmp_path: Path) -> None:
    source = tiny(tmp_path / "whole.gguf")
    result = quantize(str(source), "Q8_0", tmp_path / "q.gguf", gate=FidelityGate(kld=0.1, top1=0.5))
    assert result.fidelity is not None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["q.gguf", "q.md", "whole.gguf"]


@pytest.mark.slow
@pytest.mark.parametrize("stream", [False, True])
def test_a_model_of_the_hub_is_compared_with_the_commit_that_was_taken(
    stream: bool, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    folder = tmp_path / "out"
    with LoopbackHub({"sprig-test/tiny": checkpoint}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        made = quantize("sprig-test/tiny:Q8_0", None, folder / "a.gguf", stream=stream, gate=FidelityGate(kld=0.1))
    assert made.fidelity is not None
    assert sorted(p.name for p in folder.iterdir()) == ["a.gguf", "a.md"]


def test_without_a_gate_the_card_and_the_result_say_nothing_of_it(checkpoint: Path, tmp_path: Path) -> None:
    result = quantize(str(checkpoint), "Q8_0", tmp_path / "a.gguf")
    assert result.to_dict()["fidelity"] is None
    assert "Fidelity" not in result.card.read_text()


def test_what_writes_no_text_has_no_gate(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "tiny", SMALL)
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_lasttoken": true}')
    with pytest.raises(RecipeError, match="--gate: tiny gives vectors"):
        quantize(str(folder), "Q8_0", tmp_path / "a.gguf", gate=FidelityGate(kld=1))
    assert not (tmp_path / "a.gguf").exists()


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("kld=0.05", FidelityGate(kld=0.05)),
        ("top1=0.9", FidelityGate(top1=0.9)),
        (" kld = 1e-3 , top1=1 ", FidelityGate(0.001, 1.0)),
    ],
)
def test_a_gate_is_read_from_a_text(text: str, gate: FidelityGate) -> None:
    assert read_gate(text) == gate


@pytest.mark.parametrize("text", ["", "0.05", "kld", "kld=", "kld=x", "kld=-1", "kld=nan", "top1=90", "ppl=2", "kld=1,kld=2"])
def test_what_is_no_gate_is_told(text: str) -> None:
    with pytest.raises(RecipeError, match=r"--gate: .* is no bound; kld=0\.05"):
        read_gate(text)
