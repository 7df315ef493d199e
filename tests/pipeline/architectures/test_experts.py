"""What is special to mixtures of experts and hybrids: how their experts lie, what llama.cpp would compute otherwise."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from agent.errors import CheckpointError
from agent.gguf.reader import read_header
from agent.models.file import read_model
from pipeline import quantize
from pipeline.format import ggml
from pipeline.recipes.mixtures import find_type
from pipeline.sources.checkpoint import TensorInfo
from tests.fixtures.checkpoints import build_model, save
from tests.fixtures.tokenizers import make_tokenizer
from tests.pipeline.architectures.test_architectures import assert_refused, config_of, infos_of, read

REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a limit on time steps": ("granite4-h", {"time_step_limit": [0.001, 0.1]}, "time_step_limit"),
    "a convolution without biases": ("granite4-h", {"mamba_conv_bias": False}, "convolution has no bias"),
    "projections with biases": ("granite4-h", {"mamba_proj_bias": True}, "projections have biases"),
    "three times as wide": ("granite4-h", {"mamba_expand": 3}, "mamba_expand"),
    "experts without RoPE": ("granite4-experts", {"position_embedding_type": "nope"}, "granitemoe always rotates"),
    "a router without a bias": ("lfm2-moe", {"use_expert_bias": False}, "use_expert_bias"),
    "scaled experts": ("lfm2-moe", {"routed_scaling_factor": 2.0}, "routed_scaling_factor"),
    "raw scores": ("lfm2-moe", {"norm_topk_prob": False}, "norm_topk_prob"),
    "another clamp": ("gpt-oss", {"swiglu_limit": 5.0}, "swiglu_limit is 5"),
    "attention without biases": ("gpt-oss", {"attention_bias": False}, "attention_bias"),
    "attention with biases": ("falcon-h1", {"attention_bias": True}, "leaves one of them out"),
    "the norm before the gate": ("falcon-h1", {"mamba_rms_norm": True, "mamba_norm_before_gate": True}, "gate first"),
    "MLPs beside experts": (
        "nemotron-h-experts", {"layers_block_type": ["mamba", "moe", "attention", "mlp"]}, "layers of both kinds",
    ),
    "a kind of layer that nobody knows": ("nemotron-h", {"layers_block_type": ["rwkv"] * 4}, "'rwkv'"),
    "another activation": ("nemotron-h", {"mlp_hidden_act": "silu"}, "relu2 only"),
    "dense layers of Qwen2 MoE": ("qwen2-moe", {"mlp_only_layers": [1]}, "dense layers"),
    "experts that end early": ("ernie4.5-moe", {"moe_layer_end_index": 2}, "moe_layer_end_index"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSALS)
def test_what_llama_cpp_would_compute_otherwise_is_refused(why: str) -> None:
    assert_refused(*REFUSALS[why])


@pytest.mark.parametrize("end", [math.inf, None, "Infinity", {"__float__": "Infinity"}])
def test_an_endless_limit_on_time_steps_is_none(end: object) -> None:
    read({**config_of("granite4-h"), "time_step_limit": [0.0, end]}, infos_of("granite4-h"))


@pytest.mark.parametrize("name", ["granite4", "granite4-h"])
def test_transformers_4_calls_the_layers_of_granite_4_otherwise(name: str) -> None:
    config = config_of(name)
    old = {"linear_attention": "mamba", "full_attention": "attention"}
    kinds = config.pop("layer_types", None) or config.pop("layers_block_type")
    for key in ("layer_types", "layers_block_type"):
        spelled = {**config, key: [old[kind] for kind in kinds]}
        assert read(spelled, infos_of(name)).gguf_keys() == read(config_of(name), infos_of(name)).gguf_keys()


def test_a_pattern_of_letters_names_the_layers_of_nemotron_h() -> None:
    config = config_of("nemotron-h")
    letters = {k: v for k, v in config.items() if k != "layers_block_type"} | {"hybrid_override_pattern": "M-*M"}
    assert read(letters, infos_of("nemotron-h")).gguf_keys() == read(config, infos_of("nemotron-h")).gguf_keys()


def _multipliers(**changes: Any) -> None:
    read({**config_of("falcon-h1"), **changes}, infos_of("falcon-h1"))


def test_a_list_of_multipliers_has_its_length() -> None:
    with pytest.raises(CheckpointError, match="mlp_multipliers must be a list of 2"):
        _multipliers(mlp_multipliers=[1.0])
    with pytest.raises(CheckpointError, match="ssm_multipliers is 0"):
        _multipliers(ssm_multipliers=[1.0, 1.0, 0, 1.0, 1.0])


def _saved(name: str, folder: Path) -> dict[str, Any]:
    """Checkpoint and tokenizer of a case; returns the weights."""
    pytest.importorskip("transformers")
    from safetensors.torch import load_file

    save(name, folder)
    make_tokenizer("smollm2", folder, 512)
    return dict(load_file(folder / "model.safetensors"))


def _f32(folder: Path) -> Path:
    return quantize(str(folder), "F32", folder / "out.gguf", threads=1).path


def _tensors(path: Path) -> dict[str, bytes]:
    header, raw = read_header(path), path.read_bytes()
    return {name: raw[t.offset : t.offset + t.nbytes] for name, t in header.tensors.items()}


@pytest.mark.slow
def test_stacks_of_gpt_oss_give_the_same_file_transposed_or_not(tmp_path: Path) -> None:
    """As transformers saves them, and as the view on MXFP4 has them, whose names end in .weight."""
    from safetensors.torch import save_file

    weights = _saved("gpt-oss", tmp_path)
    plain = _tensors(_f32(tmp_path))
    stacks = [name for name in weights if name.endswith(("experts.gate_up_proj", "experts.down_proj"))]
    assert len(stacks) == 8
    for name in stacks:
        weights[f"{name}.weight"] = weights.pop(name).transpose(1, 2).contiguous()
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert _tensors(_f32(tmp_path)) == plain


def test_weights_that_were_mxfp4_become_mxfp4_again_without_a_loss() -> None:
    """The experts of gpt-oss, with ``--tensor-type _exps=MXFP4``: ggml finds a scale at which every code is met again."""
    rng = np.random.default_rng(0)
    codes = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6], np.float32)
    for largest in range(1, 9):
        values = codes[rng.integers(0, largest, (64, 32))] * rng.choice(np.array([-1, 1], np.float32), (64, 32))
        values *= np.exp2(rng.integers(-20, 10, (64, 1))).astype(np.float32)
        kind = find_type("MXFP4", "a test")
        assert np.array_equal(ggml.to_float(ggml.quantize(values, kind), kind, 32), values)


def test_experts_that_lie_there_twice_are_refused() -> None:
    from dataclasses import replace

    infos = infos_of("gpt-oss")
    stack = infos["model.layers.0.mlp.experts.down_proj"]
    again = replace(stack, name=f"{stack.name}.weight", shape=(5, 96, 40))
    with pytest.raises(CheckpointError, match="twice"):
        read(config_of("gpt-oss"), {**infos, again.name: again})


def test_smooth_yarn_of_gpt_oss_is_converted_with_a_word() -> None:
    config = config_of("gpt-oss")
    assert read(config, infos_of("gpt-oss")).notes() == []
    smooth = {**config, "rope_parameters": {**config["rope_parameters"], "truncate": False}}
    (note,) = read(smooth, infos_of("gpt-oss")).notes()
    assert "truncate false" in note


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen3.5", "qwen3.5-moe"])
def test_the_head_that_foretells_a_second_token_is_a_block_of_its_own(name: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import save_file

    weights = _saved(name, tmp_path)
    last = "model.layers.3."
    weights |= {k.replace(last, "mtp.layers.0."): w.clone() for k, w in weights.items() if k.startswith(last)}
    weights["mtp.fc.weight"] = torch.randn(96, 192)
    weights |= {f"mtp.{part}.weight": torch.randn(96) for part in ("norm", "pre_fc_norm_embedding", "pre_fc_norm_hidden")}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    path = _f32(tmp_path)
    header = read_header(path)
    arch = header.keys["general.architecture"]
    assert (header.keys[f"{arch}.block_count"], header.keys[f"{arch}.nextn_predict_layers"]) == (5, 1)
    assert list(header.keys[f"{arch}.attention.recurrent_layers"]) == [True, True, True, False, False]
    extra = {n.removeprefix("blk.4.nextn.") for n in header.tensors if n.startswith("blk.4.nextn.")}
    assert extra == {"eh_proj.weight", "enorm.weight", "hnorm.weight", "shared_head_norm.weight"}
    assert read_model(path).n_layer == 4


@pytest.mark.parametrize("name", ["qwen3.5", "nemotron-h"])
def test_what_foretells_tokens_and_is_not_kept_is_named(name: str) -> None:
    extra = TensorInfo("mtp.layers.0.input_layernorm.weight", "F32", (96,), "f", 0, 384)
    arch = read({**config_of(name), "mtp_num_hidden_layers": 2}, {**infos_of(name), extra.name: extra})
    assert any("(mtp) is left out" in note for note in arch.notes())


@pytest.mark.slow
def test_only_recurrent_layers_have_state_in_memory(tmp_path: Path) -> None:
    """Nemotron-H's four layers are Mamba 2, an MLP, attention, Mamba 2."""
    _saved("nemotron-h", tmp_path)
    facts = read_model(_f32(tmp_path))
    inner, state, groups, kernel = 6 * 24, 20, 3, 4
    assert facts.state == 2 * 4 * (inner * state + (kernel - 1) * (inner + 2 * groups * state))
    assert facts.cache_width == 2 * 3 * 20


@pytest.mark.slow
def test_gpt_oss_as_the_hub_has_it_is_the_plain_one_and_may_stay_mxfp4(tmp_path: Path) -> None:
    """Its experts lie packed, four bits a weight. Both forms give the same file; as MXFP4 not one of those bits changes."""
    pytest.importorskip("torch")
    config = {**config_of("gpt-oss"), "intermediate_size": 64, "num_hidden_layers": 2, "layer_types": None}
    model = build_model("gpt_oss", {k: v for k, v in config.items() if k not in ("model_type", "architectures")})
    model.save_pretrained(tmp_path / "plain")
    make_tokenizer("smollm2", tmp_path / "plain", 512)
    shutil.copytree(tmp_path / "plain", tmp_path / "packed")
    plain, packed, want = load_file(tmp_path / "plain" / "model.safetensors"), {}, {}
    rng = np.random.default_rng(5)
    levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], dtype=np.float32)
    for name, weight in plain.items():
        if not name.endswith(("gate_up_proj", "down_proj")):
            packed[name] = weight
            continue
        experts, width, rows = weight.shape
        codes = rng.integers(0, 256, (experts, rows, width // 32, 16), dtype=np.uint8)
        scales = rng.integers(122, 126, (experts, rows, width // 32), dtype=np.uint8)
        floats = np.stack([levels[codes & 15], levels[codes >> 4]], -1).reshape(experts, rows, width // 32, 32)
        floats = (floats * np.exp2(scales.astype(np.float32) - 127)[..., None]).reshape(experts, rows, width)
        packed |= {f"{name}_blocks": codes, f"{name}_scales": scales}
        plain[name], want[name] = np.ascontiguousarray(floats.transpose(0, 2, 1)), floats
    save_file(plain, tmp_path / "plain" / "model.safetensors", metadata={"format": "pt"})
    save_file(packed, tmp_path / "packed" / "model.safetensors", metadata={"format": "pt"})
    said = json.loads((tmp_path / "packed" / "config.json").read_text())
    (tmp_path / "packed" / "config.json").write_text(json.dumps(said | {"quantization_config": {"quant_method": "mxfp4"}}))
    made = {form: quantize(str(tmp_path / form), "F32", tmp_path / f"{form}.gguf") for form in ("plain", "packed")}
    headers = {form: read_header(result.path) for form, result in made.items()}
    bytes_of = {form: result.path.read_bytes() for form, result in made.items()}
    assert headers["plain"].tensors.keys() == headers["packed"].tensors.keys()
    for name, one in headers["plain"].tensors.items():
        other = headers["packed"].tensors[name]
        assert bytes_of["plain"][one.offset :][: one.nbytes] == bytes_of["packed"][other.offset :][: other.nbytes], name
    assert any("MXFP4 already" in note for note in made["packed"].notes)
    kept = quantize(str(tmp_path / "packed"), "Q8_0", tmp_path / "kept.gguf", tensor_types=[("_exps.weight", "MXFP4")])
    down = read_header(kept.path).tensors["blk.1.ffn_down_exps.weight"]
    assert down.type.name == "MXFP4"
    raw = np.frombuffer(kept.path.read_bytes(), np.uint8)[down.offset :][: down.nbytes].reshape(-1, down.type.row_size(64))
    again = ggml.to_float(np.ascontiguousarray(raw), down.type, 64)
    assert np.array_equal(again, want["model.layers.1.mlp.experts.down_proj"].reshape(-1, 64))
