"""A pruned checkpoint is the original with something set to zero: transformers computes both, and llama.cpp the new one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from agent.gguf.reader import read_header
from pipeline.prune import prune as room
from pipeline.prune.parts.depth import measure_influence
from pipeline.prune.prune import prune
from pipeline.sources.merged import floats
from pipeline.sources.source import open_checkpoint, open_source
from tests.fixtures.later import later, needs
from tests.pipeline.prune.models import (
    IDS,
    found_rows,
    layers_of,
    llama_outputs,
    load,
    outputs,
    places,
    pruned,
    tiny,
)

torch = later("torch")
needs("transformers")


def first_fast(fast: int, *cases: str) -> list[Any]:
    """The cases; all but the first ones are slow tests."""
    return [pytest.param(case, marks=pytest.mark.slow) if i >= fast else case for i, case in enumerate(cases)]


FFN = first_fast(
    2, "llama-tied-biases", "distilbert", "bert", "gemma", "gemma2", "gemma3", "granite", "mistral", "olmo2", "phi3", "qwen2",
    "qwen3", "smollm3",
)  # fmt: skip
HEADS = first_fast(1, "llama-odd-heads", "llama-tied-biases", "gemma3", "mistral", "qwen3", "smollm3", "granite")
DEPTH = first_fast(
    2, "llama-tied-biases", "distilbert", "bert", "gemma", "gemma2", "gemma3", "granite", "mistral", "phi3", "qwen2", "qwen3",
    "olmo2",
)  # fmt: skip


def zeroed(model: Any, path: str, small: Any, kept: Any) -> None:
    """Give a layer's matrix the columns of the pruned one, and zeros everywhere else."""
    weight = model.get_submodule(path).weight
    with torch.no_grad():
        new = torch.zeros_like(weight)
        new[:, kept] = small.get_submodule(path).weight
        weight.copy_(new)


@pytest.mark.slow
@pytest.mark.parametrize("case", FFN)
def test_a_neuron_that_went_is_a_column_of_zeros(case: str, tmp_path: Path) -> None:
    result = pruned(case, tmp_path / "new", ffn=128)
    model, small = load(tiny(case) / "hf"), load(tmp_path / "new")
    _, up, down = places(model)
    for large_layer, small_layer in zip(layers_of(model), layers_of(small), strict=True):
        rows = found_rows(small_layer.get_submodule(up).weight, large_layer.get_submodule(up).weight)
        kept = [row for row in rows if row < 160]
        assert kept == sorted(kept)
        assert len(kept) == 128
        zeroed(large_layer, down, small_layer, kept)
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=0, atol=2e-4)
    assert [(one.kind, one.before, one.after) for one in result.parts] == [("ffn", 160, 128)]
    assert all(one.after <= one.before for one in result.repairs)
    assert len(result.repairs) == len(layers_of(model))
    assert result.gguf[1] < result.gguf[0]


@pytest.mark.slow
def test_the_neurons_are_those_that_add_least(tmp_path: Path) -> None:
    """E[x_j^2] |W_:j|^2 with activations of transformers, on the same text."""
    pruned("llama-tied-biases", tmp_path / "new", ffn=128, repair=False)
    model, small = load(tiny("llama-tied-biases") / "hf"), load(tmp_path / "new")
    seen: list[Any] = [[] for _ in range(3)]
    for layer, into in zip(layers_of(model), seen, strict=True):
        layer.mlp.down_proj.register_forward_hook(lambda _m, x, _y, into=into: into.append(x[0][0]))
    with torch.no_grad():
        for ids in np.random.default_rng(5).integers(5, 500, (16, 64)).tolist():
            model(torch.tensor([ids]))
    for layer, new, into in zip(layers_of(model), layers_of(small), seen, strict=True):
        down = layer.mlp.down_proj.weight
        scores = torch.cat(into).pow(2).mean(0) * down.pow(2).sum(0)
        wanted = sorted(scores.topk(128).indices.tolist())
        assert found_rows(new.mlp.up_proj.weight, layer.mlp.up_proj.weight) == wanted
        assert bool((new.mlp.down_proj.weight == down[:, wanted]).all())


@pytest.mark.slow
@pytest.mark.parametrize("case", HEADS)
def test_a_group_of_heads_that_went_is_a_span_of_zeros(case: str, tmp_path: Path) -> None:
    config = json.loads((tiny(case) / "hf" / "config.json").read_bytes())
    shared = config["num_attention_heads"] // config["num_key_value_heads"]
    result = pruned(case, tmp_path / "new", heads=2 * shared)
    model, small = load(tiny(case) / "hf"), load(tmp_path / "new")
    for large, new in zip(layers_of(model), layers_of(small), strict=True):
        queries = found_rows(new.self_attn.q_proj.weight, large.self_attn.q_proj.weight)
        assert len(queries) == new.self_attn.head_dim * shared * 2
        zeroed(large, "self_attn.o_proj", new, queries)
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=0, atol=2e-4)
    assert (small.config.num_attention_heads, small.config.num_key_value_heads) == (2 * shared, 2)
    assert result.parts[0].after == 2 * shared


@pytest.mark.parametrize("case", DEPTH)
def test_a_layer_that_went_is_skipped(case: str, tmp_path: Path) -> None:
    pruned(case, tmp_path / "new", depth="drop:1")
    model, small = load(tiny(case) / "hf"), load(tmp_path / "new")
    kept = [layer for i, layer in enumerate(layers_of(model)) if i != 1]
    for i, layer in enumerate(kept):  # a layer asks by its number what of the cache is its own, and of which kind it is
        for module in layer.modules():
            if hasattr(module, "layer_idx"):
                module.layer_idx = i
    parent, _, name = places(model)[0].rpartition(".")
    setattr(model.get_submodule(parent), name, torch.nn.ModuleList(kept))
    number = "n_layers" if case == "distilbert" else "num_hidden_layers"
    setattr(model.config, number, len(kept))
    if kinds := getattr(model.config, "layer_types", None):
        model.config.layer_types = [kind for i, kind in enumerate(kinds) if i != 1]
    np.testing.assert_allclose(outputs(small), outputs(model), rtol=0, atol=1e-5)
    assert getattr(small.config, number) == len(kept)


@pytest.mark.slow
@pytest.mark.parametrize("case", first_fast(1, "llama-tied-biases", "qwen3", "gemma3", "granite"))
def test_llama_cpp_computes_what_transformers_computes(case: str, tmp_path: Path) -> None:
    """Three cuts at once; the GGUF names the parent."""
    shared = 6 // 3
    pruned(case, tmp_path / "new", ffn=128, heads=2 * shared, depth="drop:1")
    np.testing.assert_allclose(llama_outputs(tmp_path / "new", tmp_path), outputs(load(tmp_path / "new")), rtol=0, atol=0.02)
    keys = read_header(tmp_path / "logits.gguf").keys
    assert keys["general.base_model.0.repo_url"] == "https://huggingface.co/someone/parent-1B"
    assert keys["general.license"] == "mit"
    assert "pruned" in keys["general.tags"]


@pytest.mark.slow
@pytest.mark.parametrize("case", first_fast(1, "mistral", "qwen3"))
def test_channels_that_are_zero_can_go_without_a_trace(case: str, tmp_path: Path) -> None:
    """A model of 64 channels in one of 96: whatever the norms divide by, the pruned one must say the same."""
    model = load(tiny(case) / "hf")
    gone = np.random.default_rng(2).permutation(96)[:32]
    with torch.no_grad():
        model.model.embed_tokens.weight[:, gone] = 0
        for layer in layers_of(model):
            for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
                matrix.weight[gone] = 0
                if matrix.bias is not None:
                    matrix.bias[gone] = 0
    folder = tmp_path / "hf"
    model.save_pretrained(folder)
    for path in (tiny(case) / "hf").glob("tokenizer*"):
        (folder / path.name).write_bytes(path.read_bytes())
    text = tmp_path / "text.txt"
    text.write_text("over the hill and far away lies a lake, and a bee hums. " * 40)
    result = prune(str(folder), tmp_path / "new", width=64, text=[text], check=True, threads=1)
    assert result.parts[0].after == 64
    assert result.kld == pytest.approx(0, abs=1e-4)
    near = 0.05 if case == "qwen3" else 5e-4  # epsilon counts in the norms of queries and keys too, and here it is large
    np.testing.assert_allclose(outputs(load(tmp_path / "new")), outputs(model), rtol=0, atol=near)


@pytest.mark.slow
def test_the_influence_of_a_layer_is_that_of_its_hidden_states() -> None:
    """ShortGPT's block influence, with the hidden states that transformers gives."""
    folder = tiny("llama-odd-heads")
    found = measure_influence(folder / "model.gguf", 3, [IDS, IDS[::-1]], threads=1)
    model, wanted = load(folder / "hf"), np.zeros(3)
    states: list[Any] = []
    for layer in layers_of(model):
        layer.register_forward_hook(lambda _m, x, y: states.append((x[0][0], y.reshape(-1, 90))))
    for ids in (IDS, IDS[::-1]):
        states.clear()
        with torch.no_grad():
            model(torch.tensor([ids]))
        wanted += [float(1 - torch.cosine_similarity(x, y).mean()) / 2 for x, y in states]
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


@pytest.mark.slow
def test_the_layer_that_turns_least_goes(tmp_path: Path) -> None:
    result = prune(str(tiny("llama-odd-heads") / "hf"), tmp_path / "new", depth=2, check=False, threads=1)
    influence = measure_influence(tiny("llama-odd-heads") / "model.gguf", 3, [IDS * 4], threads=1)
    assert f"without {int(np.argmin(influence))}" in result.parts[0].kept


@pytest.mark.slow
@pytest.mark.parametrize(("method", "pattern"), [("magnitude", None), ("wanda", "2:4"), ("sparsegpt", None)])
def test_zeros_are_where_they_were_promised(method: str, pattern: str | None, tmp_path: Path) -> None:
    result = pruned("qwen3", tmp_path / "new", sparsity=0.5, pattern=pattern, method=method)
    with open_checkpoint(open_source(str(tmp_path / "new"))) as checkpoint:
        for name, info in checkpoint.tensors.items():
            zeros = float(np.mean(floats(checkpoint, name) == 0))
            thinned = ".layers." in name and len(info.shape) == 2
            assert zeros == pytest.approx(0.5 if thinned else 0.0, abs=2e-3 if method == "sparsegpt" else 1e-9), name
    assert result.packed is not None
    assert result.packed[1] < 0.75 * result.packed[0]
    assert result.gguf[0] == pytest.approx(result.gguf[1], abs=500)  # the card's words
    assert any("no sparse kernel" in note for note in result.notes)
    assert load(tmp_path / "new").config.vocab_size == 512


def test_a_cut_vocabulary_takes_rows_of_embedding_and_head(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = tuple(range(0, 512, 2))
    fake = SimpleNamespace(
        kept=kept,
        files={"tokenizer.json": b"{}"},
        config={"eos_token_id": 1},
        notes=("256 of 512",),
        text=[SimpleNamespace(name="mine", before=10, after=11)],
        held_out=[],
    )
    monkeypatch.setattr(room, "cut_of", lambda *_: fake)
    monkeypatch.setattr(room, "_gguf_size", lambda *_: 1)  # there is no tokenizer to plan a GGUF with
    result = pruned("qwen3", tmp_path / "new", vocab_size=256, ffn=128)
    model, small = load(tiny("qwen3") / "hf"), load(tmp_path / "new")
    for part in ("model.embed_tokens", "lm_head"):
        assert bool((small.get_submodule(part).weight == model.get_submodule(part).weight[list(kept)]).all())
    assert (small.config.vocab_size, small.config.eos_token_id) == (256, 1)
    assert ("tokens", "mine: 10 -> 11 (+10.0%)") in result.lines()
    assert [part.kind for part in result.parts] == ["ffn", "vocab"]
    assert (tmp_path / "new" / "tokenizer.json").read_bytes() == b"{}"


@pytest.mark.slow
def test_ids_follow_a_cut_vocabulary_into_inner_parts_and_into_the_settings_of_generation(tmp_path: Path) -> None:
    hf = tmp_path / "hf"
    shutil.copytree(tiny("qwen3") / "hf", hf)
    config = json.loads((hf / "config.json").read_bytes())
    inner = {"talk": {"eos_token_id": 500, "length": 3}}
    (hf / "config.json").write_text(json.dumps(config | {"task_specific_params": inner}))
    (hf / "generation_config.json").write_text(json.dumps({"suppress_tokens": [500], "top_p": 0.9}))
    prune(str(hf), tmp_path / "new", vocab_size=480, threads=1)
    model, small = load(hf), load(tmp_path / "new")
    told, generation = (json.loads((tmp_path / "new" / f).read_bytes()) for f in ("config.json", "generation_config.json"))
    new = generation["suppress_tokens"][0]
    assert new < 480
    assert told["task_specific_params"] == {"talk": {"eos_token_id": new, "length": 3}}
    assert generation["top_p"] == 0.9
    assert told["vocab_size"] == 480
    assert bool((small.model.embed_tokens.weight[new] == model.model.embed_tokens.weight[500]).all())


@pytest.mark.slow
def test_an_encoder_is_measured_on_text_too(tmp_path: Path) -> None:
    """The embedding model of the first days: neurons and layers go, and its vectors stay near."""
    result = prune(str(tiny("distilbert") / "hf"), tmp_path / "new", ffn=128, threads=1)
    assert result.kld is None  # it writes no words
    assert all(one.after < one.before for one in result.repairs)
    a, b = (torch.tensor(outputs(load(folder)).mean(0)) for folder in (tiny("distilbert") / "hf", tmp_path / "new"))
    assert float(torch.cosine_similarity(a, b, dim=0)) > 0.98


def test_the_card_names_the_parent_and_what_was_cut(tmp_path: Path) -> None:
    result = pruned("llama-tied-biases", tmp_path / "new", ffn="20%", depth="drop:0")
    card = (tmp_path / "new" / "README.md").read_text()
    assert "- someone/parent-1B" in card
    assert "license: mit" in card
    assert "| ffn | 160 | 128 |" in card
    assert "| depth | 3 | 2 | without 0 |" in card
    told = result.to_dict()
    assert told["weights"] == {"before": result.weights[0], "after": sum(p.numel() for p in load(tmp_path / "new").parameters())}
    json.dumps(told)
