"""Falcon 7B, 11B and 40B: attention and MLP side by side, fused projections in which each group's rows stand together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.plain import GELU, GroupedQkv, in_blocks, known_names, with_biases
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_PREFIX = "transformer."
_SECOND_NORM = ("attn_norm_2.weight", "attn_norm_2.bias")


class Falcon(GroupedQkv):
    gguf = "falcon"
    defaults = sizes(
        4544, 0, 32, 71, None, 2048, layer_norm_epsilon=1e-5, multi_query=True, parallel_attn=True, activation="gelu",
        tie_word_embeddings=True,
    )  # fmt: skip
    aliases: ClassVar[Mapping[str, str]] = {
        "n_layer": "num_hidden_layers", "n_head": "num_attention_heads", "n_head_kv": "num_kv_heads",
    }  # fmt: skip
    activations = GELU
    names = (
        {"lm_head.weight": "output.weight"}
        | known_names(_PREFIX, ["token_embd", *in_blocks("attn_qkv attn_output ffn_up ffn_down")])
        | with_biases(known_names(_PREFIX, ["output_norm", *in_blocks("attn_norm attn_norm_2")]))
    )
    optional = GroupedQkv.optional | {f"blk.{{i}}.{part}" for part in _SECOND_NORM}

    @property
    def n_kv_heads(self) -> int:
        if self.flag("new_decoder_architecture"):
            return self.integer("num_kv_heads", default=self.n_heads)
        return 1 if self.flag("multi_query") else self.n_heads

    @property
    def mlp_width(self) -> int:
        return self.integer("ffn_hidden_size", default=4 * self.integer("hidden_size"))

    def check(self) -> None:
        super().check()
        for name in ("alibi", "bias"):
            if self.flag(name):
                raise UnsupportedError(f"config.json sets {name}; llama.cpp's falcon has none")
        if not self.flag("parallel_attn") and not self.flag("new_decoder_architecture"):
            raise UnsupportedError("config.json says parallel_attn false; llama.cpp's falcon has attention and MLP side by side")

    def keys(self) -> dict[str, Value]:
        # The name of the order of rows that ``adjust`` makes.
        return super().keys() | {Keys.LLM.TENSOR_DATA_LAYOUT: "jploski"}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {"blk.{i}.attn_norm_2.weight": (self.integer("hidden_size"),)}

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        two = self.flag("new_decoder_architecture") and self.integer("num_ln_in_parallel_attn", default=2) == 2
        self.check_kinds(tensors, [two] * self.n_layers, _SECOND_NORM, ())
        return tensors
