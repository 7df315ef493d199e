"""LoRA from end to end: merged in the pass, or written as a GGUF adapter, it says what the model with the adapter says."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from typer.testing import CliRunner

from agent.errors import SprigError
from agent.gguf.adapter import check_adapter, check_fits
from agent.gguf.reader import read_header
from pipeline import quantize
from pipeline.cli.quantize import quantize_app
from pipeline.inspect_model import inspect_model
from pipeline.lora import write_adapter as write_gguf_adapter
from pipeline.quantize import dry_run
from tests.fixtures.adapters import PREFIX, Floats, products, random_matrix, write_adapter
from tests.fixtures.checkpoints import save
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.random_llama import SMALL, tokenizer_json, write_checkpoint, write_small_files
from tests.fixtures.tokenizers import make_tokenizer
from tests.pipeline.architectures.test_same_words import TOLERANCE, furthest, in_llama_cpp, in_transformers
from tests.pipeline.sources.packed.test_packed import write_pair
from tests.pipeline.test_faults import run_and_kill
from tests.pipeline.test_quantize_hub import tensors as tensor_bytes

if TYPE_CHECKING:
    import transformers

MODULES = ["model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.k_proj", "model.layers.2.mlp.down_proj", "lm_head"]


def float_base(folder: Path) -> dict[str, Floats]:
    """The weights of a small llama in float32, which is written there too."""
    write_small_files(folder, SMALL)
    weights = {name: random_matrix(shape, i, 0.02) + ("norm" in name) for i, (name, shape) in enumerate(SMALL.shapes().items())}
    save_file(weights, folder / "model.safetensors")
    return weights


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "base"
    float_base(folder)
    return folder


@pytest.fixture(scope="module")
def adapter(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hf") / "pirate"
    return write_adapter(folder, products(base, MODULES), base_model_name_or_path=str(base))


def merged_by_hand(base: Path, adapter: Path, folder: Path, scale: float = 2.0) -> Path:
    """The checkpoint that a merge would give."""
    shutil.copytree(base, folder)
    weights, matrices = load_file(base / "model.safetensors"), load_file(adapter / "adapter_model.safetensors")
    for module in MODULES:
        a, b = (matrices[f"{PREFIX}{module}.lora_{x}.weight"] for x in "AB")
        weights[f"{module}.weight"] = weights[f"{module}.weight"] + np.float32(scale) * (b @ a)
    save_file(weights, folder / "model.safetensors")
    return folder


# The words: against transformers.


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama-odd-heads", "phi3", "qwen3.5"])
def test_merged_or_beside_the_base_it_says_what_transformers_says(name: str, tmp_path: Path) -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    model: transformers.PreTrainedModel = save(name, tmp_path / "base")
    make_tokenizer("smollm2", tmp_path / "base", 512)
    linear = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    tensors = products(tmp_path / "base", linear)
    adapter = write_adapter(tmp_path / "adapter", tensors, base_model_name_or_path=str(tmp_path / "base"), use_rslora=True)
    plain = in_transformers(model)
    with torch.no_grad():
        for module in linear:
            a, b = (torch.from_numpy(tensors[f"{PREFIX}{module}.lora_{x}.weight"]) for x in "AB")
            model.get_submodule(module).weight += 8 / 2 * (b @ a)
    wanted = in_transformers(model)
    assert furthest(wanted, plain) > 1
    merged = quantize(str(adapter), "F32", tmp_path / "merged.gguf", threads=1).path
    assert furthest(in_llama_cpp(merged), wanted) < TOLERANCE
    alone = quantize(str(tmp_path / "base"), "F32", tmp_path / "base.gguf", threads=1).path
    made = write_gguf_adapter(str(adapter), "F32", tmp_path / "adapter.gguf")
    assert made.tensors == len(linear)
    assert furthest(in_llama_cpp(alone), plain) < TOLERANCE
    assert furthest(in_llama_cpp(alone, adapter=made.path), wanted) < TOLERANCE


# The merge: the same bytes as of a checkpoint that was merged by hand.


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["F32", "Q4_K_M"])
def test_the_file_is_that_of_the_merged_checkpoint_to_the_byte(recipe: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    by_hand = merged_by_hand(base, adapter, tmp_path / "pirate")
    want = tensor_bytes(quantize(str(by_hand), recipe, tmp_path / "hand.gguf").path)
    got = tensor_bytes(quantize(str(adapter), recipe, tmp_path / "out.gguf").path)
    assert got.keys() == want.keys()
    if recipe == "F32":  # the order of a sum differs between a slab and the whole
        for name, raw in got.items():
            np.testing.assert_allclose(np.frombuffer(raw, "<f4"), np.frombuffer(want[name], "<f4"), rtol=1e-5, atol=1e-6)
    changed = {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.2.ffn_down.weight", "output.weight"}
    assert all(got[name] == want[name] for name in got.keys() - changed)
    plain = tensor_bytes(quantize(str(base), recipe, tmp_path / "plain.gguf").path)
    assert {name for name in got if got[name] != plain[name]} == changed


def test_keys_card_and_name_tell_of_both(base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    base, adapter = (shutil.copytree(folder, tmp_path / folder.name) for folder in (base, adapter))
    (adapter / "README.md").write_text(f"---\nbase_model: {base}\ntags:\n- base_model:adapter:{base}\n- parrot\n---\n# Pirate\n")
    (base / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    result = quantize(str(adapter), "Q8_0", base=str(base))
    assert result.path.name == "pirate-Q8_0.gguf"
    keys = read_header(result.path).keys
    assert (keys["general.name"], keys["sprig.source.name"], keys["sprig.base.name"]) == ("pirate", "pirate", "base")
    assert keys["general.license"] == "apache-2.0"
    assert keys["general.tags"] == ["parrot"]
    assert str(base) not in str(keys), "the folders of a machine are nobody's business"
    assert "`pirate` merged into `base`, as Q8_0" in result.card.read_text()
    assert result.to_dict()["base"] == "base"
    inspected = inspect_model(str(adapter))
    assert inspected.keys["general.name"] == "pirate"
    assert "an adapter (LoRA), shown as it is when merged into base" in inspected.notes


def test_a_vocabulary_that_has_grown_in_the_training_comes_whole(base: Path, tmp_path: Path) -> None:
    rows = SMALL.vocab + 8
    tensors = {
        f"{PREFIX}model.embed_tokens.weight": random_matrix((rows, SMALL.width), 1),
        f"{PREFIX}lm_head.weight": random_matrix((rows, SMALL.width), 2),
        **products(base, MODULES[:1]),
    }
    adapter = write_adapter(tmp_path / "grown", tensors, base_model_name_or_path=str(base), modules_to_save=["lm_head"])
    for name in ("tokenizer_config.json", "tokenizer.json"):
        shutil.copy(base / name, adapter / name)
    (adapter / "tokenizer.json").write_text(json.dumps(tokenizer_json(rows)))
    header = read_header(quantize(str(adapter), "F16", tmp_path / "out.gguf").path)
    assert header.tensors["token_embd.weight"].shape == header.tensors["output.weight"].shape == (rows, SMALL.width)
    assert len(header.keys["tokenizer.ggml.tokens"]) == rows


def test_a_head_that_was_trained_apart_from_its_embedding_is_written(tmp_path: Path) -> None:
    tied = write_checkpoint(tmp_path / "tied", replace(SMALL, tied=True))
    a, b = random_matrix((4, SMALL.width), 1), random_matrix((SMALL.vocab, 4), 2)
    tensors = {f"{PREFIX}lm_head.lora_A.weight": a, f"{PREFIX}lm_head.lora_B.weight": b}
    adapter = write_adapter(tmp_path / "adapter", tensors, base_model_name_or_path=str(tied))
    result = quantize(str(adapter), "F32", tmp_path / "out.gguf")
    got = {n: np.frombuffer(raw, "<f4") for n, raw in tensor_bytes(result.path).items()}
    want = got["token_embd.weight"].reshape(SMALL.vocab, SMALL.width) + np.float32(2) * (b @ a)
    np.testing.assert_allclose(got["output.weight"], want.ravel(), rtol=1e-5, atol=1e-6)
    assert any("both are written" in note for note in result.notes)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["alpha", "weights"])
def test_a_changed_adapter_does_not_go_on_with_the_part_of_another(what: str, base: Path, adapter: Path, tmp_path: Path) -> None:
    changing, out = tmp_path / "pirate", tmp_path / "out.gguf"
    shutil.copytree(adapter, changing)
    run_and_kill(os, "pwrite", 20, lambda: quantize(str(changing), "Q8_0", out, threads=1))
    if what == "alpha":
        config = json.loads((changing / "adapter_config.json").read_text())
        (changing / "adapter_config.json").write_text(json.dumps(config | {"lora_alpha": 16}))
    else:
        save_file(products(base, MODULES, seed=99), changing / "adapter_model.safetensors")
    result = quantize(str(changing), "Q8_0", out, resume=True, threads=1)
    assert result.resumed == 0
    assert tensor_bytes(result.path) == tensor_bytes(quantize(str(changing), "Q8_0", tmp_path / "fresh.gguf").path)


@pytest.mark.slow
def test_an_unchanged_adapter_goes_on(adapter: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    run_and_kill(os, "pwrite", 20, lambda: quantize(str(adapter), "Q8_0", out, threads=1))
    result = quantize(str(adapter), "Q8_0", out, resume=True, threads=1)
    assert result.resumed > 0
    assert result.path.read_bytes() == quantize(str(adapter), "Q8_0", tmp_path / "fresh.gguf").path.read_bytes()


# From the Hub.


@pytest.fixture
def hub(base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    online = tmp_path / "online"
    shutil.copytree(adapter, online)
    config = json.loads((adapter / "adapter_config.json").read_text())
    (online / "adapter_config.json").write_text(json.dumps(config | {"base_model_name_or_path": "sprig-test/base"}))
    with LoopbackHub({"sprig-test/base": base, "sprig-test/pirate": online}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.mark.slow
def test_adapter_and_base_come_from_the_hub_kept_or_streamed(hub: LoopbackHub, adapter: Path, tmp_path: Path) -> None:
    local = tensor_bytes(quantize(str(adapter), "Q4_0", tmp_path / "local.gguf").path)
    plan = dry_run("sprig-test/pirate", "Q4_0", tmp_path / "out.gguf")
    streamed = quantize("sprig-test/pirate", "Q4_0", tmp_path / "streamed.gguf", stream=True)
    assert tensor_bytes(streamed.path) == local
    kept = quantize("sprig-test/pirate", "Q4_0", tmp_path / "kept.gguf")
    assert tensor_bytes(kept.path) == local
    assert plan.size == kept.size
    keys, card = read_header(kept.path).keys, kept.card.read_text()
    for role, name in (("source", "sprig-test/pirate"), ("base", "sprig-test/base")):
        assert keys[f"sprig.{role}.name"] == name
        assert keys[f"sprig.{role}.commit"] == hub.commit(name)
    assert keys["general.base_model.count"] == 2
    assert "base_model:\n- sprig-test/pirate\n- sprig-test/base\nbase_model_relation: merge" in card
    before = len(hub.requests)
    again = quantize("sprig-test/pirate", "Q4_0", tmp_path / "again.gguf", offline=True)
    assert again.path.read_bytes() == kept.path.read_bytes()
    assert len(hub.requests) == before, "the cache is enough"


def test_the_output_of_an_adapter_is_named_as_that_of_a_model(adapter: Path, tmp_path: Path) -> None:
    for out, expected in (("new/", "new/pirate-F16.gguf"), (".", "pirate-F16.gguf"), ("a", "a.gguf"), ("a.GGUF", "a.GGUF")):
        made = write_gguf_adapter(str(adapter), "F16", f"{tmp_path}/{out}", dry_run=True)
        assert made.path == tmp_path / expected


@pytest.mark.slow
def test_a_killed_stream_of_an_adapter_with_whole_tensors_goes_on(hub: LoopbackHub, base: Path, tmp_path: Path) -> None:
    tensors = products(base, MODULES[:3]) | {f"{PREFIX}lm_head.weight": random_matrix((SMALL.vocab, SMALL.width), 4)}
    adapter = write_adapter(tmp_path / "whole", tensors, base_model_name_or_path="sprig-test/base")
    local = tensor_bytes(quantize(str(adapter), "Q8_0", tmp_path / "local.gguf").path)
    out = tmp_path / "out.gguf"
    for at in (2, 25):
        run_and_kill(os, "pwrite", at, lambda: quantize(str(adapter), "Q8_0", out, stream=True, threads=1))
        assert not out.exists()
        result = quantize(str(adapter), "Q8_0", out, stream=True, resume=True, threads=1)
        assert result.resumed > 0 or at < 3
        assert tensor_bytes(out) == local
        out.unlink()


def test_an_adapter_from_the_hub_opens_no_place_of_this_machine(hub: LoopbackHub, base: Path, tmp_path: Path) -> None:
    bad = write_adapter(tmp_path / "bad", products(base, MODULES[:1]), base_model_name_or_path=str(base))
    hub.publish("sprig-test/bad", bad)
    with pytest.raises(SprigError, match="a place on this disk, and the adapter comes from the Hub; --base names another"):
        dry_run("sprig-test/bad", "Q8_0", tmp_path / "out.gguf")
    for odd in ("~nosuchuser/x", "x" * 5000):
        hub.publish("sprig-test/bad", write_adapter(bad, products(base, MODULES[:1]), base_model_name_or_path=odd))
        with pytest.raises(SprigError, match="--base names another"):
            dry_run("sprig-test/bad", "Q8_0", tmp_path / "out.gguf")
    assert dry_run("sprig-test/bad", "Q8_0", tmp_path / "out.gguf", base="sprig-test/base").origin.name == "sprig-test/base"


def test_a_base_on_the_hub_is_looked_into_without_a_stream(hub: LoopbackHub, tmp_path: Path) -> None:
    tied = write_checkpoint(tmp_path / "tied", replace(SMALL, tied=True))
    hub.publish("sprig-test/tied", tied)
    name = f"{PREFIX}model.embed_tokens.lora_embedding_"
    tensors = {f"{name}A": random_matrix((4, SMALL.vocab), 1), f"{name}B": random_matrix((SMALL.width, 4), 2)}
    adapter = str(write_adapter(tmp_path / "words", tensors, base_model_name_or_path="sprig-test/tied"))
    plan = dry_run(adapter, "Q8_0", tmp_path / "out.gguf")
    assert any("both are written" in note for note in plan.notes)
    with pytest.raises(SprigError, match="leave --stream out"):
        quantize(adapter, "Q8_0", tmp_path / "out.gguf", stream=True)


def test_a_base_on_the_hub_may_be_packed(hub: LoopbackHub, tmp_path: Path) -> None:
    packed, plain = write_pair(tmp_path, "awq")
    config = json.loads((packed / "config.json").read_text())
    (packed / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    hub.publish("sprig-test/awq", packed)
    tensors = products(plain, MODULES[:1])
    adapter = str(write_adapter(tmp_path / "small", tensors, base_model_name_or_path="sprig-test/awq"))
    plan = dry_run(adapter, "Q8_0", tmp_path / "out.gguf")
    assert any("AWQ 4 bit already" in note for note in plan.notes)


# The GGUF adapter.


def test_a_gguf_adapter_is_what_llama_cpp_wants(base: Path, adapter: Path, tmp_path: Path) -> None:
    model = quantize(str(base), "Q4_0", tmp_path / "base.gguf").path
    for recipe, kinds in (("F32", {"F32"}), ("F16", {"F16"}), ("BF16", {"BF16"}), ("Q8_0", {"Q8_0", "F16"})):
        made = write_gguf_adapter(str(adapter), recipe, tmp_path / f"{recipe}.gguf")
        header, pairs = check_adapter(made.path)
        check_fits(made.path, header, pairs, read_header(model), "base")
        assert {t.type.name for t in header.tensors.values()} == kinds
        assert made.size == made.path.stat().st_size
    keys = header.keys
    assert (keys["general.type"], keys["adapter.type"], keys["adapter.lora.alpha"]) == ("adapter", "lora", 8.0)
    assert (keys["general.architecture"], keys["sprig.source.name"], keys["sprig.base.name"]) == ("llama", "pirate", "base")
    assert pairs.keys() == {"blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.2.ffn_down.weight", "output.weight"}
    f32 = {n: np.frombuffer(raw, "<f4") for n, raw in tensor_bytes(tmp_path / "F32.gguf").items()}
    matrices = load_file(adapter / "adapter_model.safetensors")
    module = "model.layers.2.mlp.down_proj"
    for half, x in (("lora_a", "A"), ("lora_b", "B")):
        assert np.array_equal(f32[f"blk.2.ffn_down.weight.{half}"], matrices[f"{PREFIX}{module}.lora_{x}.weight"].ravel())
    assert (
        write_gguf_adapter(str(adapter), "F16", tmp_path / "dry.gguf", dry_run=True).size
        == (tmp_path / "F16.gguf").stat().st_size
    )
    assert not (tmp_path / "dry.gguf").exists()


NOT_AS_GGUF: dict[str, tuple[str, dict[str, Any]]] = {
    "a whole tensor": ("'lm_head.weight' of its own", {"lm_head.weight": random_matrix((SMALL.vocab, SMALL.width), 1)}),
    "DoRA": ("uses DoRA", {f"{MODULES[0]}.lora_magnitude_vector": random_matrix((SMALL.width,), 1)}),
    "NaN": ("NaN or infinity", {f"{MODULES[0]}.lora_A.weight": random_matrix((4, SMALL.width), 1) * np.float32("nan")}),
    "beyond F16": ("does not fit F16", {f"{MODULES[0]}.lora_A.weight": random_matrix((4, SMALL.width), 1) + np.float32(1e6)}),
}


@pytest.mark.parametrize("what", NOT_AS_GGUF)
def test_what_a_gguf_adapter_cannot_hold_is_refused_and_nothing_is_written(what: str, base: Path, tmp_path: Path) -> None:
    expected, more = NOT_AS_GGUF[what]
    tensors = products(base, MODULES[:1]) | {PREFIX + name: array for name, array in more.items()}
    adapter = write_adapter(tmp_path / "adapter", tensors, base_model_name_or_path=str(base))
    with pytest.raises(SprigError, match=expected) as caught:
        write_gguf_adapter(str(adapter), "F16", tmp_path / "out.gguf")
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens"])
def test_of_a_head_that_is_the_embedding_no_gguf_adapter_is_written(module: str, tmp_path: Path) -> None:
    tied = write_checkpoint(tmp_path / "tied", replace(SMALL, tied=True))
    a, b = random_matrix((4, SMALL.vocab), 1), random_matrix((SMALL.width, 4), 2)
    tensors = {f"{PREFIX}{module}.lora_embedding_A": a, f"{PREFIX}{module}.lora_embedding_B": b}
    if module == "lm_head":
        tensors = {f"{PREFIX}{module}.lora_A.weight": b.T.copy(), f"{PREFIX}{module}.lora_B.weight": a.T.copy()}
    adapter = write_adapter(tmp_path / "adapter", tensors, base_model_name_or_path=str(tied))
    with pytest.raises(SprigError, match="leave --lora out, and it is merged"):
        write_gguf_adapter(str(adapter), "F16", tmp_path / "out.gguf")


# The command.


def test_the_command_writes_an_adapter_or_merges_it(
    base: Path, adapter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    run = CliRunner().invoke
    made = run(quantize_app, [str(adapter), "--lora", "--json"])
    assert made.exit_code == 0
    told = json.loads(made.stdout)
    assert told["path"] == str(tmp_path / "home" / "adapters" / "pirate-F16.gguf")
    assert (told["base"], told["recipe"], told["tensors"]) == ("base", "F16", 4)
    assert check_adapter(Path(told["path"]))
    plan = run(quantize_app, [str(adapter), "--base", str(base), "-q", "Q8_0", "--dry-run"])
    assert plan.exit_code == 0
    assert "base          base, into which the adapter is merged" in plan.stdout
    assert run(quantize_app, [str(base), "--lora"]).exit_code == 1
    assert run(quantize_app, [str(adapter), "--lora", "-q", "Q4_0"]).exit_code == 1
    wrong = run(quantize_app, [str(adapter), "--lora", "--stream"])
    assert wrong.exit_code == 2
    assert "--stream is for a whole model" in wrong.stderr
