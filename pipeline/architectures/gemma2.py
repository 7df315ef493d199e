"""Gemma 2: norms before and after each part, every other layer with a window, soft caps on scores and logits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, MLP, TRUNK, Windowed, sizes
from pipeline.architectures.shared.rope import read_rope
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

SANDWICH_NORMS = {
    "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
    "model.layers.{i}.pre_feedforward_layernorm.weight": "blk.{i}.ffn_norm.weight",
    "model.layers.{i}.post_feedforward_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
}


class Gemma2(Windowed):
    gguf = "gemma2"
    defaults = sizes(
        2304, 9216, 26, 8, 4, 8192, head_dim=256, sliding_window=4096, query_pre_attn_scalar=256, tie_word_embeddings=True,
        attn_logit_softcapping=50.0, final_logit_softcapping=30.0,
    )  # fmt: skip
    activations = frozenset({"gelu_pytorch_tanh"})
    activation_key = "hidden_activation"
    names = TRUNK | SANDWICH_NORMS | ATTENTION | MLP
    rope_kinds = frozenset({"default", "dynamic"})
    full_every = 2
    deepest: ClassVar[int] = 46  # layers of the 27B, for which llama.cpp scales scores by hidden_size / heads

    def check(self) -> None:
        super().check()
        if self.flag("use_bidirectional_attention") and self.gguf != "gemma-embedding":
            raise UnsupportedError(f"config.json sets use_bidirectional_attention, which is not supported for {self.gguf}")
        scalar = self.number("query_pre_attn_scalar")
        built_in = self.integer("hidden_size") // self.n_heads if self.n_layers == self.deepest else self.head_dim
        if scalar != built_in:
            raise UnsupportedError(f"query_pre_attn_scalar is {scalar:g}; llama.cpp's {self.gguf} has {built_in} built in here")
        self.check_head()

    def plain_local_rope(self, hp: Mapping[str, Any]) -> float:
        """Base of the frequencies in the layers with a window, which must be plain. Raises UnsupportedError."""
        rope = read_rope(hp, self.head_dim, "sliding_attention")
        if rope.kind != "default" or rope.rotated != self.head_dim:
            raise UnsupportedError(f"config.json scales the RoPE of sliding layers, which is not supported for {self.gguf}")
        return rope.theta

    def check_head(self) -> None:
        if not self.tied:
            raise UnsupportedError("llama.cpp's gemma2 always takes the embedding as its head; tie_word_embeddings is false here")

    def keys(self) -> dict[str, Value]:
        return {
            **super().keys(),
            **self.window_keys(),
            Keys.LLM.ATTN_LOGIT_SOFTCAPPING: self.number("attn_logit_softcapping"),
            Keys.LLM.FINAL_LOGIT_SOFTCAPPING: self.number("final_logit_softcapping"),
        }

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {"blk.{i}.post_attention_norm.weight": (d,), "blk.{i}.post_ffw_norm.weight": (d,)}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        # Gemma multiplies by 1 + weight.
        return replace(tensor, function="add_one") if tensor.name.endswith("norm.weight") else tensor
