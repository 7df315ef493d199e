"""Plain older families: LayerNorm, biases, fused projections, and names that the ``gguf`` package has in its table already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
from gguf import MODEL_TENSOR, TENSOR_NAMES, Keys, TensorNameMap

from pipeline.architectures.shared.decoder import Decoder, bias_names
from pipeline.architectures.shared.tensor import Index, Tensor

# llama.cpp computes the tanh form of GELU whichever of these a model was trained with.
GELU = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"})
BLOCK = "blk.{i}."
_SPELLINGS: Mapping[MODEL_TENSOR, tuple[str, ...]] = TensorNameMap.mappings_cfg | TensorNameMap.block_mappings_cfg


def known_names(prefix: str, parts: Iterable[str]) -> dict[str, str]:
    """The weights of these parts as ``gguf.TensorNameMap`` knows them.

    Args:
        prefix: what the family's names begin with, which tells them from those of a hundred other families.
        parts: names in the GGUF without ".weight"; in a block they begin with "blk.{i}.".
    """
    wanted = {part.replace("{i}", "{bid}"): part for part in parts}
    return {
        f"{theirs.replace('{bid}', '{i}')}.weight": f"{wanted[TENSOR_NAMES[kind]]}.weight"
        for kind, spellings in _SPELLINGS.items()
        if TENSOR_NAMES[kind] in wanted
        for theirs in spellings
        if theirs.startswith(prefix)
    }


def in_blocks(parts: str) -> list[str]:
    """ "attn_q ffn_up" -> ["blk.{i}.attn_q", "blk.{i}.ffn_up"]."""
    return [BLOCK + part for part in parts.split()]


def with_biases(table: Mapping[str, str]) -> dict[str, str]:
    """The table, and each of its lines for the bias too."""
    return {**table, **bias_names(table)}


class LayerNormed(Decoder):
    """A decoder whose norms subtract the mean. Every bias in ``names`` is one that each checkpoint of the family has."""

    norm_eps = (Keys.Attention.LAYERNORM_EPS, "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon", "norm_eps")
    optional: ClassVar[frozenset[str]] = frozenset({"output.weight"})
    square = True

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {"blk.{i}.attn_qkv.weight": ((self.n_heads + 2 * self.n_kv_heads) * self.head_dim, d)}


def qkv_order(groups: int, queries: int, head_dim: int) -> Index:
    """The order of a fused projection's rows in which llama.cpp wants them: all queries, all keys, all values.

    Args:
        groups: heads of keys. A checkpoint holds, group by group, some heads of queries, one of keys, one of values.
        queries: heads of queries in a group.
        head_dim: rows per head.
    """
    rows = np.arange(groups * (queries + 2) * head_dim).reshape(groups, queries + 2, head_dim)
    order: Index = np.concatenate([rows[:, :queries].ravel(), rows[:, queries].ravel(), rows[:, queries + 1].ravel()])
    return order


class GroupedQkv(LayerNormed):
    """A family whose queries, keys and values are one projection, group by group."""

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if ".attn_qkv." not in tensor.name:
            return tensor
        order = qkv_order(self.n_kv_heads, self.n_heads // self.n_kv_heads, self.head_dim)
        # A bias is one row: what is reordered are its columns.
        return replace(tensor, column_order=order) if len(tensor.shape) == 1 else replace(tensor, row_order=order)
