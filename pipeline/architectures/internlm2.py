"""InternLM2 and 2.5: Llama under names of its own, with queries, keys and values fused in groups."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

import numpy as np

from pipeline.architectures.shared.base import rope_interleave
from pipeline.architectures.shared.decoder import OwnHead, sizes
from pipeline.architectures.shared.plain import qkv_order
from pipeline.architectures.shared.tensor import Tensor


class InternLM2(OwnHead):
    gguf = "internlm2"
    defaults = sizes(4096, 11008, 32, 32, None, 2048)
    names: ClassVar[dict[str, str]] = {
        "model.tok_embeddings.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "output.weight": "output.weight",
        "model.layers.{i}.attention_norm.weight": "blk.{i}.attn_norm.weight",
        "model.layers.{i}.attention.wqkv.weight": "blk.{i}.attn_qkv.weight",
        "model.layers.{i}.attention.wo.weight": "blk.{i}.attn_output.weight",
        "model.layers.{i}.ffn_norm.weight": "blk.{i}.ffn_norm.weight",
        "model.layers.{i}.feed_forward.w1.weight": "blk.{i}.ffn_gate.weight",
        "model.layers.{i}.feed_forward.w3.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.feed_forward.w2.weight": "blk.{i}.ffn_down.weight",
    }
    square = True
    optional = OwnHead.optional | {"blk.{i}.attn_qkv.weight"}
    required = ("blk.{i}.attn_q.weight",)

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        rows = (self.n_heads + 2 * self.n_kv_heads) * self.head_dim
        return super().expected_shapes() | {"blk.{i}.attn_qkv.weight": (rows, self.integer("hidden_size"))}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if ".attn_qkv." not in tensor.name:
            return tensor
        order = qkv_order(self.n_kv_heads, self.n_heads // self.n_kv_heads, self.head_dim)
        queries, keys, values = np.split(order, [self.n_heads * self.head_dim, (self.n_heads + self.n_kv_heads) * self.head_dim])
        parts = {
            "attn_q": queries[rope_interleave(self.n_heads, self.head_dim)],
            "attn_k": keys[rope_interleave(self.n_kv_heads, self.head_dim)],
            "attn_v": values,
        }
        return [
            replace(tensor, name=tensor.name.replace("attn_qkv", part), shape=(len(rows), tensor.row_length), row_order=rows)
            for part, rows in parts.items()
        ]
