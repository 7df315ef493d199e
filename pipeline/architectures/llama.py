"""Llama: Llama 2 and 3.x, SmolLM2, TinyLlama, Mistral, Falcon3 and whatever else is plainly Llama."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from agent.errors import CheckpointError
from pipeline.architectures.base import Architecture, Tensor, rope_interleave
from pipeline.architectures.rope import rope_keys, rope_tensors
from pipeline.gguf_file import Value


class Llama(Architecture):
    model_types = ("llama", "mistral")
    gguf = "llama"
    defaults: ClassVar[Mapping[str, Any]] = {"rms_norm_eps": 1e-6, "max_position_embeddings": 2048}
    names: ClassVar[Mapping[str, str]] = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
        "model.layers.{i}.self_attn.q_proj.weight": "blk.{i}.attn_q.weight",
        "model.layers.{i}.self_attn.k_proj.weight": "blk.{i}.attn_k.weight",
        "model.layers.{i}.self_attn.v_proj.weight": "blk.{i}.attn_v.weight",
        "model.layers.{i}.self_attn.o_proj.weight": "blk.{i}.attn_output.weight",
        "model.layers.{i}.self_attn.q_proj.bias": "blk.{i}.attn_q.bias",
        "model.layers.{i}.self_attn.k_proj.bias": "blk.{i}.attn_k.bias",
        "model.layers.{i}.self_attn.v_proj.bias": "blk.{i}.attn_v.bias",
        "model.layers.{i}.self_attn.o_proj.bias": "blk.{i}.attn_output.bias",
        "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.ffn_norm.weight",
        "model.layers.{i}.mlp.gate_proj.weight": "blk.{i}.ffn_gate.weight",
        "model.layers.{i}.mlp.up_proj.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight",
        "model.layers.{i}.mlp.gate_proj.bias": "blk.{i}.ffn_gate.bias",
        "model.layers.{i}.mlp.up_proj.bias": "blk.{i}.ffn_up.bias",
        "model.layers.{i}.mlp.down_proj.bias": "blk.{i}.ffn_down.bias",
    }
    optional: ClassVar[frozenset[str]] = frozenset({
        "output.weight", "blk.{i}.attn_q.bias", "blk.{i}.attn_k.bias", "blk.{i}.attn_v.bias", "blk.{i}.attn_output.bias",
        "blk.{i}.ffn_gate.bias", "blk.{i}.ffn_up.bias", "blk.{i}.ffn_down.bias",
    })  # fmt: skip
    # ggml rotates neighbouring pairs for these; most other families keep transformers' halves ("neox").
    interleaved_rope: ClassVar[bool] = True

    @property
    def n_heads(self) -> int:
        return self.int("num_attention_heads")

    @property
    def n_kv_heads(self) -> int:
        return self.int("num_key_value_heads", default=self.n_heads)

    @property
    def head_dim(self) -> int:
        return self.int("head_dim", default=self.int("hidden_size") // self.n_heads)

    def keys(self) -> dict[str, Value]:
        keys: dict[str, Value] = {
            "block_count": self.n_layers,
            "context_length": self.int("max_position_embeddings"),
            "embedding_length": self.int("hidden_size"),
            "feed_forward_length": self.int("intermediate_size"),
            "attention.head_count": self.n_heads,
            "attention.head_count_kv": self.n_kv_heads,
            "attention.layer_norm_rms_epsilon": self.float("rms_norm_eps"),
            "attention.key_length": self.head_dim,
            "attention.value_length": self.head_dim,
            "rope.dimension_count": self.head_dim,
            "vocab_size": self.vocab_rows,
        }
        return keys | rope_keys(self.hp, self.head_dim)

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.int("hidden_size"), self.int("intermediate_size")
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "token_embd.weight": (self.vocab_rows, d),
            "output.weight": (self.vocab_rows, d),
            "output_norm.weight": (d,),
            "blk.{i}.attn_norm.weight": (d,),
            "blk.{i}.ffn_norm.weight": (d,),
            "blk.{i}.attn_q.weight": (q, d),
            "blk.{i}.attn_k.weight": (kv, d),
            "blk.{i}.attn_v.weight": (kv, d),
            "blk.{i}.attn_output.weight": (d, q),
            "blk.{i}.attn_q.bias": (q,),
            "blk.{i}.attn_k.bias": (kv,),
            "blk.{i}.attn_v.bias": (kv,),
            "blk.{i}.ffn_gate.weight": (ff, d),
            "blk.{i}.ffn_up.weight": (ff, d),
            "blk.{i}.ffn_down.weight": (d, ff),
        }

    def adjust(self, tensor: Tensor) -> Tensor | list[Tensor]:
        if not self.interleaved_rope:
            return tensor
        for part, heads in (("attn_q", self.n_heads), ("attn_k", self.n_kv_heads)):
            if f".{part}." in tensor.name:
                order = rope_interleave(heads, self.head_dim)
                # A bias is one row: its "rows" are its columns.
                return replace(tensor, column_order=order) if len(tensor.shape) == 1 else replace(tensor, row_order=order)
        return tensor

    def tensors(self) -> list[Tensor]:
        tensors = self.mapped()
        if not self.tied and not any(t.name == "output.weight" for t in tensors):
            raise CheckpointError("the checkpoint has no lm_head.weight and config.json does not tie it to the embedding")
        return tensors + rope_tensors(self.hp, self.head_dim)
