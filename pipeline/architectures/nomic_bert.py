"""Nomic BERT (nomic-embed-text): BERT with RoPE, a gated MLP and no biases."""

from __future__ import annotations

from typing import Any, ClassVar

from gguf import Keys

from agent.errors import UnsupportedError
from agent.text import brief
from pipeline.architectures.shared.encoder import Encoder, weights_and_biases
from pipeline.architectures.shared.rope import rope_keys
from pipeline.format.gguf_file import Value

# config.json as the model was published -> as transformers has it.
_SIZES = {
    "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_inner": "intermediate_size",
    "n_positions": "max_position_embeddings", "layer_norm_epsilon": "layer_norm_eps", "rotary_emb_base": "rope_theta",
}  # fmt: skip
# What the published code can do otherwise -> the values for which llama.cpp's nomic-bert computes the same.
_FIXED: dict[str, tuple[object, ...]] = {
    "moe_every_n_layers": (0,), "activation_function": ("swiglu",), "prenorm": (False,), "causal": (False,),
    "qkv_proj_bias": (False,), "mlp_fc1_bias": (False,), "mlp_fc2_bias": (False,), "rotary_emb_fraction": (1.0,),
    "rotary_emb_interleaved": (False,), "use_rms_norm": (False,), "parallel_block": (False,),
}  # fmt: skip


class NomicBert(Encoder):
    gguf = "nomic-bert"
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 30528, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "silu", "max_position_embeddings": 2048, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "rope_theta": 1000.0,
    }  # fmt: skip
    activations = frozenset({"silu", "swish"})
    names: ClassVar[dict[str, str]] = {
        "embeddings.word_embeddings.weight": "token_embd.weight",
        "embeddings.token_type_embeddings.weight": "token_types.weight",
        "encoder.layers.{i}.attn.Wqkv.weight": "blk.{i}.attn_qkv.weight",
        "encoder.layers.{i}.attn.out_proj.weight": "blk.{i}.attn_output.weight",
        "encoder.layers.{i}.mlp.fc11.weight": "blk.{i}.ffn_up.weight",
        "encoder.layers.{i}.mlp.fc12.weight": "blk.{i}.ffn_gate.weight",
        "encoder.layers.{i}.mlp.fc2.weight": "blk.{i}.ffn_down.weight",
        **weights_and_biases({
            "emb_ln": "token_embd_norm",
            "encoder.layers.{i}.norm1": "blk.{i}.attn_output_norm",
            "encoder.layers.{i}.norm2": "blk.{i}.layer_output_norm",
        }),
    }  # fmt: skip
    ignored: ClassVar[tuple[str, ...]] = (r"^pooler\.", r"^cls\.")

    def normalize(self, name: str) -> str:
        return name.removeprefix("bert.")

    def check(self) -> None:
        for theirs, ours in _SIZES.items():
            if self.hp.get(theirs) is not None:
                self.hp[ours] = self.hp[theirs]
        for key, values in _FIXED.items():
            if self.hp.get(key) is not None and self.hp[key] not in values:
                raise UnsupportedError(f"config.json: {key} is {brief(self.hp[key])}, which is not converted for {self.gguf}")
        super().check()

    def keys(self) -> dict[str, Value]:
        context = self.integer("max_position_embeddings")
        trained = self.integer("max_trained_positions", default=context)  # beyond it the published code stretches RoPE
        return super().keys() | rope_keys(self.hp, self.head_dim) | {Keys.LLM.CONTEXT_LENGTH: min(context, trained)}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("intermediate_size")
        return super().expected_shapes() | {"blk.{i}.attn_qkv.weight": (3 * d, d), "blk.{i}.ffn_gate.weight": (ff, d)}
