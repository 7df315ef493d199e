"""Families whose code lies on the Hub only: the same weights say the same words as a model that transformers has.

MiniCPM is Granite with other names for its multipliers, InternLM2 is Llama with other names and fused projections.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from gguf import Keys

from pipeline import quantize
from pipeline.architectures.find import find_architecture
from tests.fixtures.checkpoints import build_model
from tests.fixtures.tokenizers import make_tokenizer
from tests.pipeline.architectures.test_same_words import TOLERANCE, VOCABULARY, furthest, in_llama_cpp, in_transformers

if TYPE_CHECKING:
    import torch

Weights = dict[str, "torch.Tensor"]
Rewrite = Callable[[Weights, dict[str, Any]], Weights]
pytestmark = pytest.mark.slow

SMALL: dict[str, Any] = {
    "vocab_size": VOCABULARY, "hidden_size": 96, "intermediate_size": 160, "num_hidden_layers": 3, "num_attention_heads": 6,
    "num_key_value_heads": 3, "max_position_embeddings": 512, "rms_norm_eps": 0.01,
}  # fmt: skip


def compare(known: str, changes: dict[str, Any], rewrite: Rewrite, folder: Path) -> None:
    """Saves a model of transformers as another family spells it, and asks both."""
    pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    model = build_model(known, {**SMALL, **changes})
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    weights = rewrite(load_file(folder / "model.safetensors"), config)
    save_file({name: w.contiguous() for name, w in weights.items()}, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    make_tokenizer("smollm2", folder, VOCABULARY)
    path = quantize(str(folder), "F32", folder / "out.gguf", threads=1).path
    ours = in_llama_cpp(path)
    assert ours.std(axis=-1).mean() > 0.9
    assert furthest(ours, in_transformers(model)) < TOLERANCE


MINICPM = {"scale_emb": 6.0, "scale_depth": 1.2, "dim_model_base": 120}
AS_GRANITE = {
    "embedding_multiplier": 6.0, "residual_multiplier": 1.2 / 3**0.5, "logits_scaling": 96 / 120, "attention_multiplier": 0.25,
}  # fmt: skip


@pytest.mark.parametrize("tied", [False, True])
def test_minicpm_is_granite_under_other_names(tied: bool, tmp_path: Path) -> None:
    def rewrite(weights: Weights, config: dict[str, Any]) -> Weights:
        for name in AS_GRANITE:
            del config[name]
        config |= {"model_type": "minicpm", "architectures": ["MiniCPMForCausalLM"], **MINICPM}
        return weights

    compare("granite", {**AS_GRANITE, "tie_word_embeddings": tied}, rewrite, tmp_path)


def test_minicpm_4_1_is_exact_as_far_as_it_reads_all_tokens() -> None:
    config = {"model_type": "minicpm", "vocab_size": 512, "max_position_embeddings": 65536}
    assert find_architecture(config)(config, {}).keys()[Keys.LLM.CONTEXT_LENGTH] == 65536
    config["sparse_config"] = {"kernel_size": 32, "dense_len": 8192}
    assert find_architecture(config)(config, {}).keys()[Keys.LLM.CONTEXT_LENGTH] == 8192


INTERNLM2_NAMES = {
    "model.embed_tokens": "model.tok_embeddings", "lm_head": "output", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3", "mlp.down_proj": "feed_forward.w2",
    "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def as_internlm2(weights: Weights, config: dict[str, Any]) -> Weights:
    """Llama's weights as InternLM2 keeps them: for each head of keys its queries, the keys, the values."""
    import torch

    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    config |= {"model_type": "internlm2", "architectures": ["InternLM2ForCausalLM"]}
    out: Weights = {}
    for name, weight in weights.items():
        for theirs, ours in INTERNLM2_NAMES.items():
            name = name.replace(theirs, ours)
        if not name.endswith(("q_proj.weight", "k_proj.weight", "v_proj.weight")):
            out[name] = weight
    for i in range(config["num_hidden_layers"]):
        prefix, d = f"model.layers.{i}.", config["hidden_size"]
        q, k, v = (weights[f"{prefix}self_attn.{part}_proj.weight"] for part in "qkv")
        parts = [q.reshape(groups, heads // groups, -1, d), k.reshape(groups, 1, -1, d), v.reshape(groups, 1, -1, d)]
        out[f"{prefix}attention.wqkv.weight"] = torch.cat(parts, dim=1).reshape(-1, d)
    return out


def test_internlm2_is_llama_with_fused_projections(tmp_path: Path) -> None:
    compare("llama", {}, as_internlm2, tmp_path)
