"""LFM2: short convolutions, and attention in some layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION_PARTS, Decoder, sizes
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_CONVOLUTION = ("shortconv.conv.weight", "shortconv.in_proj.weight", "shortconv.out_proj.weight")


class Lfm2(Decoder):
    gguf = "lfm2"
    defaults = sizes(
        2560, 12288, 32, 32, 8, 128000, rms_norm_eps=None, norm_eps=1e-5, rope_theta=1e6, tie_word_embeddings=True,
        conv_L_cache=3, block_multiple_of=256, block_ffn_dim_multiplier=1.0, block_auto_adjust_ff_dim=True,
    )  # fmt: skip
    names: ClassVar[dict[str, str]] = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.embedding_norm.weight": "token_embd_norm.weight",  # llama.cpp's name for the last norm here
        "lm_head.weight": "output.weight",
        "model.layers.{i}.operator_norm.weight": "blk.{i}.attn_norm.weight",
        "model.layers.{i}.ffn_norm.weight": "blk.{i}.ffn_norm.weight",
        "model.layers.{i}.self_attn.q_proj.weight": "blk.{i}.attn_q.weight",
        "model.layers.{i}.self_attn.k_proj.weight": "blk.{i}.attn_k.weight",
        "model.layers.{i}.self_attn.v_proj.weight": "blk.{i}.attn_v.weight",
        "model.layers.{i}.self_attn.out_proj.weight": "blk.{i}.attn_output.weight",
        "model.layers.{i}.self_attn.q_layernorm.weight": "blk.{i}.attn_q_norm.weight",
        "model.layers.{i}.self_attn.k_layernorm.weight": "blk.{i}.attn_k_norm.weight",
        "model.layers.{i}.conv.conv.weight": "blk.{i}.shortconv.conv.weight",
        "model.layers.{i}.conv.in_proj.weight": "blk.{i}.shortconv.in_proj.weight",
        "model.layers.{i}.conv.out_proj.weight": "blk.{i}.shortconv.out_proj.weight",
        "model.layers.{i}.feed_forward.w1.weight": "blk.{i}.ffn_gate.weight",
        "model.layers.{i}.feed_forward.w3.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.feed_forward.w2.weight": "blk.{i}.ffn_down.weight",
    }
    # Which of these a layer has depends on its kind; ``tensors`` looks.
    optional = Decoder.optional | {f"blk.{{i}}.{part}" for part in (*ATTENTION_PARTS, *_CONVOLUTION)}
    square = True

    @property
    def tied(self) -> bool:
        return self.flag("tie_embedding" if self.hp.get("tie_embedding") is not None else "tie_word_embeddings")

    @property
    def mlp_width(self) -> int:
        """Rows of the MLP, which config.json states before two roundings."""
        width = self.integer("block_ff_dim", "intermediate_size")
        if self.flag("block_auto_adjust_ff_dim"):
            width = int(2 * width / 3)
            if self.hp["block_ffn_dim_multiplier"] is not None:
                width = int(self.number("block_ffn_dim_multiplier") * width)
            multiple = self.integer("block_multiple_of")
            width = -(-width // multiple) * multiple
        return width

    def has_attention(self) -> list[bool]:
        full = self.hp.get("full_attn_idxs")
        if full is not None and not isinstance(full, list):
            raise CheckpointError("config.json: full_attn_idxs must be a list of layers")
        kinds = self.layers_of(
            "layer_types", ("full_attention", "conv"), lambda i: "full_attention" if full is None or i in full else "conv"
        )
        return [kind == "full_attention" for kind in kinds]

    def check(self) -> None:
        super().check()
        if self.flag("conv_bias"):
            raise UnsupportedError("config.json sets conv_bias; llama.cpp's lfm2 has no such biases")

    def keys(self) -> dict[str, Value]:
        named = self.hp.get("architectures")
        looks_both_ways = isinstance(named, list) and "Lfm2BidirectionalModel" in named  # LFM2.5-Embedding
        return (
            super().keys()
            | ({Keys.Attention.CAUSAL: False} if looks_both_ways else {})
            | {
                Keys.Attention.HEAD_COUNT_KV: [self.n_kv_heads if attention else 0 for attention in self.has_attention()],
                Keys.ShortConv.L_CACHE: self.integer("conv_L_cache"),
            }
        )

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {
            "token_embd_norm.weight": (d,),
            "blk.{i}.shortconv.conv.weight": (d, 1, self.integer("conv_L_cache")),
            "blk.{i}.shortconv.in_proj.weight": (3 * d, d),
            "blk.{i}.shortconv.out_proj.weight": (d, d),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if tensor.name.endswith("shortconv.conv.weight"):
            return replace(tensor, shape=(tensor.shape[0], tensor.shape[2]))
        return super().adjust(tensor)

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        self.check_kinds(tensors, self.has_attention(), ATTENTION_PARTS, _CONVOLUTION)
        return tensors
