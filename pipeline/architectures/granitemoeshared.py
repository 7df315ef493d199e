"""Granite MoE with an expert that all tokens share."""

from __future__ import annotations

from collections.abc import Iterable

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.granitemoe import GraniteMoe
from pipeline.architectures.shared.moe import halves
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_SHARED = "model.layers.{i}.shared_mlp."


class GraniteMoeShared(GraniteMoe):
    names = GraniteMoe.names | {
        _SHARED + "input_linear.weight": "blk.{i}.ffn_gate_up_shexp.weight",
        _SHARED + "output_linear.weight": "blk.{i}.ffn_down_shexp.weight",
    }
    optional = GraniteMoe.optional | {"blk.{i}.ffn_gate_up_shexp.weight"}
    required = (*GraniteMoe.required, "blk.{i}.ffn_gate_shexp.weight", "blk.{i}.ffn_up_shexp.weight")

    def check(self) -> None:
        super().check()
        if not self.hp.get("shared_intermediate_size"):
            raise UnsupportedError("config.json: granitemoeshared without a shared expert; its model_type should be granitemoe")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH: self.integer("shared_intermediate_size")}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("shared_intermediate_size")
        return super().expected_shapes() | {
            "blk.{i}.ffn_gate_up_shexp.weight": (2 * ff, d),
            "blk.{i}.ffn_down_shexp.weight": (d, ff),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if tensor.name.endswith("ffn_gate_up_shexp.weight"):
            return halves(tensor, ("ffn_gate_shexp", "ffn_up_shexp"))
        return super().adjust(tensor)
