"""What an architecture makes of config.json and the tensor table alone: every way of spelling them, and every refusal."""

from __future__ import annotations

import copy
import json
import re
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import Keys
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import CheckpointError, SprigError, UnsupportedError
from pipeline.architectures.find import find_architecture, supported
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.pooling import pooling_type
from pipeline.architectures.shared.rope import read_rope, rope_keys, rope_tensors
from pipeline.format.gguf_file import pack_value
from pipeline.sources.checkpoint import TensorInfo, read_safetensors_header
from tests.fixtures import cases_dense, cases_encoders, cases_experts
from tests.fixtures.checkpoints import CASES, ENCODERS, WRAPPERS, save
from tests.fixtures.generated import runs
from tests.fixtures.paths import ROOT
from tests.fixtures.shared import shared

Infos = dict[str, TensorInfo]


@cache
def _saved(name: str) -> tuple[str, Infos]:
    def make(folder: Path) -> None:
        pytest.importorskip("transformers")
        save(name, folder)

    folder = shared(f"checkpoint-{name}", make)
    return (folder / "config.json").read_text(), read_safetensors_header(folder / "model.safetensors")


def config_of(name: str) -> dict[str, Any]:
    return dict(json.loads(_saved(name)[0]))


def infos_of(name: str) -> Infos:
    return dict(_saved(name)[1])


def read(config: dict[str, Any], infos: Infos) -> Architecture:
    """Everything that the pipeline asks an architecture for."""
    arch = find_architecture(config)(config, infos)
    for value in arch.gguf_keys().values():
        pack_value(value)
    arch.tensors()
    arch.numbers()
    return arch


EMBEDDING = TensorInfo("model.embed_tokens.weight", "F32", (512, 8), "f", 0, 16384)


def keys_of(config: dict[str, Any]) -> dict[str, Any]:
    found = find_architecture(config)
    embedding = next(theirs for theirs, ours in found.names.items() if ours == "token_embd.weight")
    keys = found(config, {embedding: EMBEDDING}).keys()
    return {name.removeprefix("{arch}."): value for name, value in keys.items()}


def test_each_model_type_has_a_file_with_its_class() -> None:
    assert set(supported()) >= {t.replace("-", "_") for t, _ in CASES.values()} | {kind for kind, *_ in WRAPPERS.values()}
    files = {file.stem for file in (ROOT / "pipeline" / "architectures").glob("[a-z]*.py")} - {"find"}
    for model_type in supported():
        file = find_architecture({"model_type": model_type}).__module__.removeprefix("pipeline.architectures.")
        assert file in files
        assert file == model_type or model_type not in files, "a file of that name, and it is not taken"
    assert files <= set(supported())


def test_the_guide_names_every_model_type() -> None:
    guide = (ROOT / "docs" / "architectures.md").read_text()
    lost = [name for name in supported() if not re.search(rf"\b{name.removesuffix('_text')}\b", guide)]
    assert lost == [], "docs/architectures.md: put them into the table of weights"


STRANGE_NAMES = [
    "find", "shared", "shared.base", "__init__", "", ".llama", "../llama", "llama.", "Llama", "os", "..card", ["llama"],
    {"llama": 1}, 3,
]  # fmt: skip


@pytest.mark.parametrize("model_type", STRANGE_NAMES)
def test_no_name_out_of_config_json_reaches_another_module(model_type: object) -> None:
    before = set(sys.modules)
    for config in ({"model_type": model_type}, {"model_type": "gemma3", "text_config": {"model_type": model_type}}):
        if "text_config" in config and not model_type:
            continue  # a text part that says nothing is the wrapper's own
        with pytest.raises(UnsupportedError, match=r"is not supported \(docs/architectures.md lists"):
            find_architecture(config)
    assert set(sys.modules) == before


@pytest.mark.parametrize("model_type", sorted({t for t, _ in CASES.values()}))
def test_what_config_json_leaves_out_is_what_transformers_assumes(model_type: str) -> None:
    transformers = pytest.importorskip("transformers")
    others = {"shared_intermediate_size": 256} if model_type == "granitemoeshared" else {}
    others |= {"norm_topk_prob": True} if model_type == "qwen3_moe" else {}
    others |= cases_experts.NEEDED.get(model_type, {})
    others |= cases_dense.NEEDED.get(model_type, {})
    config = transformers.AutoConfig.for_model(model_type, **others)
    full = json.loads(config.to_json_string(use_diff=False))
    assert any(full.get(name) for name in ("hidden_size", "dim", "n_embd")), "the full form is full"
    sparse = {"model_type": model_type, **others}
    assert keys_of(sparse) == keys_of(full)
    tied = bool(config.tie_word_embeddings) and model_type not in ENCODERS
    assert find_architecture(sparse)(sparse, {}).tied == tied


_ODD_ROPES = (
    "bert", "distilbert", "roberta", "xlm-roberta", "gemma4_text", "olmo3",  # none, or transformers 5 only
    *cases_experts.NO_ROPE, *cases_dense.NO_ROPE,
)  # fmt: skip


@pytest.mark.parametrize("name", [n for n, (t, _) in CASES.items() if t not in _ODD_ROPES])
def test_transformers_4_and_5_spell_the_same_rope(name: str) -> None:
    new = config_of(name)
    old = copy.deepcopy(new)
    rope = old.pop("rope_parameters")
    if "full_attention" in rope:
        old["rope_local_base_freq"] = rope["sliding_attention"]["rope_theta"]
        rope = rope["full_attention"]
    old["rope_theta"] = rope.pop("rope_theta")
    if "partial_rotary_factor" in rope:
        old["partial_rotary_factor"] = rope.pop("partial_rotary_factor")
    kind = rope.pop("rope_type")
    if kind != "default" or rope:
        old["rope_scaling"] = {"type": "su" if kind == "longrope" else kind, **rope}
    assert keys_of(old) == keys_of(new)
    for one, other in zip(read(old, infos_of(name)).tensors(), read(new, infos_of(name)).tensors(), strict=True):
        assert (one.name, one.shape) == (other.name, other.shape)
        assert (one.values is None) == (other.values is None)
        assert one.values is None or np.array_equal(one.values, other.values)


def test_the_sparse_text_config_of_gemma_3_4b_is_understood() -> None:
    text = {
        "hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text", "num_hidden_layers": 34,
        "rope_scaling": {"factor": 8.0, "rope_type": "linear"}, "sliding_window": 1024,
    }  # fmt: skip
    keys = keys_of({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 1152}})
    assert keys["attention.head_count"] == 8
    assert keys["attention.head_count_kv"] == 4
    assert keys["attention.key_length"] == 256
    assert keys["attention.sliding_window"] == 1024
    assert keys["attention.sliding_window_pattern"] == [i % 6 != 5 for i in range(34)]
    assert (keys["rope.freq_base"], keys["rope.freq_base_swa"]) == (1e6, 1e4)
    assert (keys["rope.scaling.type"], keys["rope.scaling.factor"]) == ("linear", 8.0)


def test_gemma_4_on_the_hub_states_the_heads_of_full_layers_flat() -> None:
    new = config_of("gemma4-keys-as-values")
    assert "head_dim" in new["per_layer_config"]["1"]
    flat = {k: v for k, v in new.items() if k != "per_layer_config"} | {"global_head_dim": 32, "num_global_key_value_heads": 1}
    assert keys_of(flat) == keys_of(new)
    assert keys_of({**flat, "attention_k_eq_v": False})["attention.head_count_kv"] == [3] * 6
    assert keys_of({k: v for k, v in flat.items() if k != "global_head_dim"})["attention.key_length"] == 512


@pytest.mark.parametrize("kind", ["gemma3", "gemma3n"])
@pytest.mark.parametrize("prefix", ["model.language_model.", "language_model.model."])
def test_wrappers_spell_the_text_part_in_two_ways(prefix: str, kind: str) -> None:
    config = {"model_type": kind, "text_config": config_of(kind)}
    infos = {name.replace("model.", prefix, 1): info for name, info in infos_of(kind).items()}
    eye = TensorInfo("vision_tower.vision_model.head.weight", "F32", (4, 4), "f", 0, 64)
    infos[eye.name] = eye
    names = {t.name for t in read(config, infos).tensors()}
    assert names == {t.name for t in read(config_of(kind), infos_of(kind)).tensors()}


def test_the_wrapper_holds_the_head_and_says_whether_it_is_tied() -> None:
    def tied(kind: str, **config: Any) -> bool:
        whole = {"model_type": kind, "vision_config": {}, **config}
        return find_architecture(whole)(whole, {"model.embed_tokens.weight": EMBEDDING}).tied

    assert tied("gemma3", text_config={"model_type": "gemma3_text"})
    assert tied("mistral3", text_config={"model_type": "mistral"})
    assert tied("mistral3", text_config={"model_type": "ministral3"})
    assert tied("qwen3_5", text_config={"model_type": "qwen3_5_text"}), "nothing is said, and there is no head"
    assert tied("qwen3_5", text_config={"model_type": "qwen3_5_text", "tie_word_embeddings": True})
    assert tied("qwen3_5", tie_word_embeddings=True, text_config={"model_type": "qwen3_5_text", "tie_word_embeddings": False})
    assert not tied("mistral3", tie_word_embeddings=False, text_config={"model_type": "ministral3"})


def test_a_window_that_llama_cpp_does_not_keep_bounds_the_context() -> None:
    assert keys_of({"model_type": "mistral"})["context_length"] == 4096
    assert keys_of({"model_type": "mistral", "sliding_window": None})["context_length"] == 131072
    assert keys_of({"model_type": "phi3", "sliding_window": 2047})["context_length"] == 2047
    used = {"model_type": "qwen2", "use_sliding_window": True, "sliding_window": 1000}
    assert keys_of({**used, "max_window_layers": 28})["context_length"] == 1000
    assert keys_of({**used, "max_window_layers": 32})["context_length"] == 32768
    assert keys_of({**used, "use_sliding_window": False})["context_length"] == 32768


HUB_ROPES = {
    "Llama 3.2": (64, 131072, {
        "rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192, "rope_theta": 500000.0,
    }),
    "Phi-3.5": (96, 131072, {
        "rope_type": "longrope", "short_factor": [1.0 + i / 50 for i in range(48)], "long_factor": [1.0 + i for i in range(48)],
        "original_max_position_embeddings": 4096, "rope_theta": 10000.0,
    }),
    "Qwen2.5 at 128k": (128, 131072, {
        "rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, "rope_theta": 1e6,
    }),
    "Ministral 3": (128, 262144, {
        "rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16384, "rope_theta": 1e6, "beta_fast": 32.0,
        "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0,
    }),
    "Gemma 3": (256, 131072, {"rope_type": "linear", "factor": 8.0, "rope_theta": 1e6}),
}  # fmt: skip


@pytest.mark.parametrize("model", HUB_ROPES)
def test_real_ropes_turn_as_fast_as_in_transformers(model: str) -> None:
    torch = pytest.importorskip("torch")
    from transformers import AutoConfig
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    head_dim, context, parameters = HUB_ROPES[model]
    hp = {"max_position_embeddings": context, "rope_parameters": parameters}
    rope = read_rope(hp, head_dim)
    config = AutoConfig.for_model(
        "llama", head_dim=head_dim, max_position_embeddings=context, rope_parameters=copy.deepcopy(parameters)
    )
    frequencies, attention = ROPE_INIT_FUNCTIONS[parameters["rope_type"]](config, torch.device("cpu"))
    assert rope.attention_factor == pytest.approx(attention, rel=1e-6)
    if rope.divisors:
        plain = parameters["rope_theta"] ** (-np.arange(0, head_dim, 2) / head_dim)
        assert plain / rope.divisors[0] == pytest.approx(frequencies.numpy(), rel=1e-5)
        assert all(t.shape == (head_dim // 2,) and t.f32 for t in rope_tensors(hp, head_dim))
    assert rope_keys(hp, head_dim)[Keys.Rope.FREQ_BASE] == parameters["rope_theta"]


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "relu": ("llama", {"hidden_act": "relu"}, "'relu'"),
    "olmo2 with biases": ("olmo2", {"attention_bias": True}, "attention_bias"),
    "smollm3 with biases": ("smollm3", {"mlp_bias": True}, "mlp_bias"),
    "an unknown rope": ("llama", {"rope_parameters": {"rope_type": "spiral"}}, "'spiral'"),
    "llama3 rope in qwen3": ("qwen3", {"rope_parameters": CASES["llama-llama3"][1]["rope_parameters"]}, "llama3"),
    "longrope in qwen2": ("qwen2", {"rope_parameters": CASES["llama-longrope"][1]["rope_parameters"]}, "longrope"),
    "half a head in llama": ("llama", {"partial_rotary_factor": 0.5}, "partial_rotary_factor is not supported for llama"),
    "another yarn ramp in llama": (
        "llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "beta_fast": 8.0, "rope_theta": 1e4}}, "beta",
    ),
    "smooth yarn": ("llama", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0, "truncate": False}}, "truncate"),
    "odd NoPE layers": ("smollm3", {"no_rope_layers": [1, 0, 1, 0, 1]}, "every fourth"),
    "another score scale": ("gemma3", {"query_pre_attn_scalar": 100}, "query_pre_attn_scalar"),
    "gemma2 with a head": ("gemma2", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    "a gemma that looks both ways": ("gemma2", {"use_bidirectional_attention": True}, "bidirectional"),
    "clipped queries": ("olmoe", {"clip_qkv": 8.0}, "clip_qkv"),
    "weights of experts summed to 1": ("olmoe", {"norm_topk_prob": True}, "norm_topk_prob"),
    "weights of experts not summed to 1": ("qwen3-moe", {"norm_topk_prob": False}, "norm_topk_prob"),
    "some dense layers": ("qwen3-moe", {"mlp_only_layers": [0]}, "dense"),
    "unequal linear heads": ("qwen3.5", {"linear_value_head_dim": 8}, "linear_value_head_dim"),
    "relative positions": ("bert", {"position_embedding_type": "relative_key"}, "absolute"),
    "a decoder": ("bert", {"is_decoder": True}, "is_decoder"),
    "another model": ("llama", {"model_type": "mamba"}, "is not supported"),
    "wide heads in phi3": ("phi3", {"head_dim": 96}, "head_dim"),
    "full layers of two sizes": ("gemma4", {"per_layer_config": {"1": {"head_dim": 32}}}, "head_dim"),
    "layers of many widths": (
        "gemma4", {"per_layer_config": {"1": {"intermediate_size": 32}, "3": {}, "5": {}}}, "of per_layer_config only",
    ),
    "a window in exaone4 of few layers": ("exaone4", {"sliding_window": 24, "layer_types": None}, "64 layers and in no other"),
    "exaone4 of many layers without one": ("exaone4-windows", {"sliding_window": None}, "gives none to its 64"),
    "gemma with a head": ("gemma", {"tie_word_embeddings": False}, "tie_word_embeddings"),
    "a wide detour": ("gemma3n", {"laurel_rank": 32}, "laurel_rank is not 64"),
    "another soft cap": ("gemma3n", {"final_logit_softcapping": 20.0}, "final_logit_softcapping is not 30"),
    "more layers with keys of their own": ("gemma3n", {"num_kv_shared_layers": 4}, "20 layers with keys"),
    "dense first layers": ("gemma3n", {"activation_sparsity_pattern": [0.0] * 25}, "0.95 in 10 layers"),
    "MLPs of two widths": ("gemma3n", {"intermediate_size": [256] * 24 + [512]}, "one width"),
    "ernie with biases": ("ernie4.5", {"use_bias": True}, "use_bias"),
    "starcoder2 without biases": ("starcoder2", {"use_bias": False}, "use_bias"),
    "few layers with norms of heads": ("cohere", {"use_qk_norm": True}, "from 64 layers on"),
    "command r with a head": ("cohere", {"tie_word_embeddings": False}, "its head"),
    "norms of heads in cohere2": ("cohere2", {"use_qk_norm": True}, "use_qk_norm"),
    "norms of heads in phi-2": ("phi", {"qk_layernorm": True}, "qk_layernorm"),
    "gpt-neox without biases": ("gpt-neox", {"attention_bias": False}, "attention_bias"),
    "scores scaled by the layer": ("gpt2", {"scale_attn_by_inverse_layer_idx": True}, "scale_attn"),
    "falcon with slopes": ("falcon", {"alibi": True}, "alibi"),
    "falcon one after the other": ("falcon", {"parallel_attn": False}, "parallel_attn"),
    "another scale of the embedding": ("minicpm3", {"scale_emb": 10}, "scale_emb is 10"),
    "fewer keys in minicpm3": ("minicpm3", {"num_key_value_heads": 3}, "key-value heads"),
    "layers of another kind": ("gemma3", {"layer_types": ["chunked_attention"] * 7}, "chunked_attention"),
}  # fmt: skip


def assert_refused(name: str, changes: dict[str, Any], words: str) -> None:
    """The case with these changes in its config.json is refused, in one line that has these words."""
    with pytest.raises(UnsupportedError) as refusal:
        read({**config_of(name), **changes}, infos_of(name))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("why", REFUSALS)
def test_what_llama_cpp_would_compute_otherwise_is_refused(why: str) -> None:
    assert_refused(*REFUSALS[why])


LIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "a billion layers": ("llama", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
    "heads of a billion": ("llama-llama3", {"head_dim": 10**9}, "heads of 1000000000"),
    "a number that is none": ("llama", {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    "a number too long to print": ("llama", {"hidden_size": 10**5000}, "thousands of digits"),
    "words for numbers": ("qwen3", {"num_attention_heads": "six"}, "'six'"),
    "no heads": ("llama", {"num_attention_heads": 0}, "num_attention_heads is 0"),
    "heads that do not share": ("llama", {"num_key_value_heads": 4}, "cannot share"),
    "a word for a flag": ("llama", {"tie_word_embeddings": "false"}, "true or false"),
    "one layer more": ("llama", {"num_hidden_layers": 4}, "blk.3."),
    "one layer less": ("llama", {"num_hidden_layers": 2}, "block 2"),
    "one expert more": ("qwen3-moe", {"num_experts": 6, "num_local_experts": 6}, "expert"),
    "more experts used than there are": ("olmoe", {"num_experts_per_tok": 9}, "9 of 5 experts"),
    "factors of another length": (
        "phi3-short", {"rope_parameters": {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}, "8 numbers",
    ),
    "negative factors": ("llama", {"rope_parameters": {"rope_type": "linear", "factor": -2.0}}, "factor is -2.0"),
    "biases it does not name": ("llama-tied-biases", {"attention_bias": False}, "biases of attn_q"),
    "biases it does not have": ("llama", {"attention_bias": True}, "lacks biases of attn_q"),
    "convolutions for attention": ("lfm2", {"layer_types": ["full_attention"] * 5}, "layer_types"),
    "norms that it does not have": ("stablelm", {"qk_layernorm": True}, "lacks blk.0.attn_q_norm"),
    "a norm that it does not use": ("stablelm", {"use_parallel_residual": True}, "has blk.0.ffn_norm"),
    "one norm of two": ("falcon-11b", {"num_ln_in_parallel_attn": 2}, "lacks blk.0.attn_norm_2"),
    "sparse beyond no length": ("minicpm3", {"q_lora_rank": 0}, "q_lora_rank is 0"),
    "no head at all": ("qwen2", {"tie_word_embeddings": False}, "lm_head"),
    "kinds for too few layers": ("gemma3", {"layer_types": ["full_attention"]}, "each of the 7 layers"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_config_that_does_not_fit_its_weights_is_a_broken_checkpoint(lie: str) -> None:
    name, changes, words = LIES[lie]
    with pytest.raises(CheckpointError) as refusal:
        read({**config_of(name), **changes}, infos_of(name))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


EACH = (
    "llama-tied-biases", "gemma3", "phi3", "granitemoeshared", "olmo3", "lfm2", "qwen3-moe", "qwen3.5", "gemma4",
    "gemma4-experts", "bert", *cases_dense.EACH, *cases_experts.EACH, *cases_encoders.EACH,
)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", EACH)
def test_no_tensor_may_be_missing_or_of_another_shape(name: str) -> None:
    """Of what each layer or expert has, the first and the last are tried."""
    config = config_of(name)
    infos = {name: info for name, info in infos_of(name).items() if "pooler" not in name}
    order = sorted(infos, key=lambda name: [int(part) for part in re.findall(r"\d+", name)])
    ends = {re.sub(r"\d+", "#", name): name for name in reversed(order)}, {re.sub(r"\d+", "#", name): name for name in order}
    for lost in {name for end in ends for name in end.values()}:
        info = infos[lost]
        with pytest.raises(CheckpointError):
            read(config, {key: value for key, value in infos.items() if key != lost})
        for shape in ((*info.shape[:-1], info.row_length + 1), (*info.shape, 1), ()):
            if {shape, info.shape} <= {(), (1,)}:
                continue  # a scalar is a vector of one
            with pytest.raises(CheckpointError):
                read(config, {**infos, lost: replace(info, shape=shape)})


@pytest.mark.parametrize("name", EACH)
def test_a_tensor_that_nobody_knows_is_refused(name: str) -> None:
    stranger = TensorInfo("model.layers.0.self_attn.q_proj.lora_A.weight", "F32", (4, 96), "f", 0, 1536)
    with pytest.raises(UnsupportedError, match="lora_A"):
        read(config_of(name), {**infos_of(name), stranger.name: stranger})


def test_a_weight_under_two_names_is_refused() -> None:
    infos = infos_of("llama")
    again = "model.language_model.norm.weight"
    with pytest.raises(CheckpointError, match="same weight"):
        read(config_of("llama"), {**infos, again: replace(infos["model.norm.weight"], name=again)})


INSANE = [10**9, -1, 0, float("nan"), float("inf"), "x", None, [], {}, 10**400, 10**5000, True, 0.5, [1, "x"], {"a": 1}]


@pytest.mark.slow
@settings(max_examples=runs(400), derandomize=True, deadline=None)
@given(data=st.data())
def test_no_value_of_config_json_brings_down_more_than_the_one_run(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(CASES)))
    config = config_of(name)
    place = config
    while True:
        key = data.draw(st.sampled_from(sorted(place)))
        if not isinstance(place[key], dict) or not place[key] or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = data.draw(st.sampled_from(INSANE))
    message = ""
    try:
        read(config, infos_of(name))
    except SprigError as error:
        message = str(error)
    assert "\n" not in message
    assert len(message) < 600


def test_how_sentence_transformers_pools() -> None:
    def pooling(**modes: object) -> int | None:
        return pooling_type({"1_Pooling/config.json": json.dumps({"word_embedding_dimension": 96, **modes}).encode()})

    assert pooling_type({}) is None
    assert pooling(pooling_mode_mean_tokens=True, pooling_mode_cls_token=False) == 1
    assert pooling(pooling_mode_cls_token=True, include_prompt=True) == 2
    assert pooling(pooling_mode="mean") == 1
    for modes in ({}, {"pooling_mode_max_tokens": True}, {"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": True}):
        with pytest.raises(UnsupportedError, match="pools by"):
            pooling(**modes)
    with pytest.raises(UnsupportedError, match="pools by mean_tokens and something_new"):
        pooling(pooling_mode_mean_tokens=True, pooling_mode_something_new=True)
    with pytest.raises(CheckpointError, match="is not JSON"):
        pooling_type({"1_Pooling/config.json": b"[1"})


def test_a_default_does_not_hide_the_other_name_of_the_number_of_experts() -> None:
    config = {"model_type": "olmoe", "num_local_experts": 12, "num_experts_per_tok": 2, "vocab_size": 512}
    assert keys_of(config)["expert_count"] == 12
    assert keys_of({**config, "num_local_experts": None})["expert_count"] == 64
