"""An architecture that Sprig does not know goes through the script of a llama.cpp checkout, and through nothing else of it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.errors import SourceError, UnsupportedError
from agent.gguf.reader import read_header
from pipeline import Preflight, quantize
from pipeline.quantize import dry_run
from pipeline.sources.foreign import Detour
from tests.fixtures.ggufs import SHAPES, write_bf16
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.fixtures.tokenizers import make_tokenizer

# Stands where convert_hf_to_gguf.py stands: writes down what it was given, then copies a GGUF that the test prepared.
FAKE_SCRIPT = """
import json, os, pathlib, shutil, sys
here = pathlib.Path(__file__).parent
folder, out = sys.argv[1], sys.argv[3]
seen = {"args": sys.argv[2:], "env": dict(os.environ), "files": sorted(p.name for p in pathlib.Path(folder).iterdir())}
(here / "seen.json").write_text(json.dumps(seen))
if (here / "refuse").exists():
    sys.exit("ERROR:hf-to-gguf:Model StrangeForCausalLM is not supported")
shutil.copy(here / "prepared.gguf", out)
"""


@pytest.fixture
def strange(tmp_path: Path) -> Path:
    """A checkpoint of an architecture that nobody knows, with code beside it that nobody may run."""
    folder = write_checkpoint(tmp_path / "strange", SMALL)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"model_type": "strange", "architectures": ["StrangeForCausalLM"]}))
    (folder / "modeling_strange.py").write_text("open('/dev/null')\n")
    return folder


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    (folder / "convert_hf_to_gguf.py").write_text(FAKE_SCRIPT)
    write_bf16(folder / "prepared.gguf", SHAPES[0])
    return folder


def test_its_bf16_goes_on_through_the_one_pass(
    strange: Path, checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    with pytest.raises(UnsupportedError, match=r"'strange' is not supported .*--llama-cpp DIR"):
        quantize(str(strange), "Q4_0", tmp_path / "out.gguf")
    result = quantize(str(strange), "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout)
    assert read_header(result.path).tensors["blk.0.attn_q.weight"].type.name == "Q4_0"
    seen = json.loads((checkout / "seen.json").read_text())
    assert seen["args"][2:] == ["--outtype", "bf16"]
    assert "HF_TOKEN" not in seen["env"]
    assert seen["env"]["HF_HUB_OFFLINE"] == "1"
    assert not [name for name in seen["files"] if name.endswith(".py")]
    assert "model.safetensors" in seen["files"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama.cpp", "out.gguf", "out.md", "strange"], "no BF16 file is left"
    assert read_header(result.path).keys["sprig.source.name"] == "strange", "the checkpoint is the source, not a file on the way"
    assert "`strange`, as Q4_0" in result.card.read_text()
    assert result.to_dict()["model"] == "strange"


def test_a_repository_stays_the_source_of_what_went_the_long_way(strange: Path, checkout: Path, tmp_path: Path) -> None:
    repo = "sprig-test/strange"
    with LoopbackHub({repo: strange}) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        result = quantize(repo, "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout)
    keys = read_header(result.path).keys
    assert keys["sprig.source.name"] == repo
    assert len(keys["sprig.source.commit"]) == 40
    assert f"base_model: {repo}" in result.card.read_text()


def test_a_dry_run_says_that_the_script_comes_first_and_runs_nothing(strange: Path, checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="'strange' is not supported"):
        dry_run(str(strange), "Q4_0", tmp_path / "out.gguf")
    plan = dry_run(str(strange), "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout)
    assert isinstance(plan, Detour)
    assert plan.to_dict()["converter"] == str(checkout / "convert_hf_to_gguf.py")
    assert plan.to_dict()["disk"] == (strange / "model.safetensors").stat().st_size
    text = "\n".join(plan.lines())
    assert "'strange' is not supported" in text
    assert "--llama-cpp" not in text, "it was given"
    known = dry_run(str(checkout / "prepared.gguf"), "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout)
    assert isinstance(known, Preflight), "what Sprig converts takes no detour"
    with pytest.raises(UnsupportedError, match=r"has no convert_hf_to_gguf\.py"):
        dry_run(str(strange), "Q4_0", tmp_path / "out.gguf", llama_cpp=tmp_path)
    with pytest.raises(SourceError, match="leave it out"):
        dry_run(str(strange), "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout, stream=True)
    assert not (checkout / "seen.json").exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["llama.cpp", "strange"]


def test_when_it_refuses_too_its_reason_is_the_message(strange: Path, checkout: Path, tmp_path: Path) -> None:
    (checkout / "refuse").touch()
    with pytest.raises(UnsupportedError, match="StrangeForCausalLM is not supported"):
        quantize(str(strange), "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout)
    with pytest.raises(UnsupportedError, match=r"has no convert_hf_to_gguf\.py"):
        quantize(str(strange), "Q4_0", tmp_path / "out.gguf", llama_cpp=tmp_path)
    assert not list(tmp_path.glob("out.*"))


def test_what_it_cannot_help_with_keeps_its_own_reason(strange: Path, checkout: Path, tmp_path: Path) -> None:
    small = quantize(str(checkout / "prepared.gguf"), "Q4_0", tmp_path / "small.gguf").path
    with pytest.raises(UnsupportedError, match="already quantized"):
        quantize(str(small), "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout)
    repo = "sprig-test/strange"
    with LoopbackHub({repo: strange}) as hub, pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path / "hf-home"))
        with pytest.raises(SourceError, match="leave --stream out"):
            quantize(repo, "Q4_0", tmp_path / "out.gguf", llama_cpp=checkout, stream=True)
    assert not (checkout / "seen.json").exists(), "refused before the work"


@pytest.mark.skipif("SPRIG_LLAMA_CPP" not in os.environ, reason="SPRIG_LLAMA_CPP names no llama.cpp checkout")
def test_the_real_script_converts_a_gemma_1(tmp_path: Path) -> None:
    import torch
    from transformers import GemmaConfig, GemmaForCausalLM

    torch.manual_seed(0)
    config = GemmaConfig(
        vocab_size=512, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        head_dim=16, max_position_embeddings=128,
    )  # fmt: skip
    folder = tmp_path / "gemma"
    GemmaForCausalLM(config).save_pretrained(folder)
    make_tokenizer("llama2-model-only", folder, 512)
    result = quantize(str(folder), "Q8_0", tmp_path / "out.gguf", llama_cpp=Path(os.environ["SPRIG_LLAMA_CPP"]))
    assert read_header(result.path).keys["general.architecture"] == "gemma"
