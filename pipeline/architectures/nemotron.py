"""Nemotron Mini and Minitron: LayerNorm that adds 1 to its weight, no gate in the MLP, which squares what is above zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from pipeline.architectures.shared.decoder import ATTENTION, MLP, PRE_NORMS, TRUNK, OwnHead, bias_names, sizes
from pipeline.architectures.shared.plain import LayerNormed
from pipeline.architectures.shared.tensor import Tensor

_MLP = {theirs: ours for theirs, ours in MLP.items() if "gate" not in ours}
_NORMS = {"model.norm.weight": "output_norm.weight"} | PRE_NORMS


class Nemotron(OwnHead, LayerNormed):
    gguf = "nemotron"
    defaults = sizes(6144, 24576, 32, 48, None, 4096, norm_eps=1e-5, partial_rotary_factor=0.5)
    activations = frozenset({"relu2"})
    names = TRUNK | PRE_NORMS | ATTENTION | _MLP | bias_names(_NORMS | ATTENTION | _MLP)
    optional = LayerNormed.optional | {*bias_names(ATTENTION | _MLP).values()}
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "attention_bias": ("attn_q", "attn_k", "attn_v", "attn_output"), "mlp_bias": ("ffn_up", "ffn_down"),
    }  # fmt: skip
    partial_rope = True

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        return replace(tensor, function="add_one") if tensor.name.endswith("norm.weight") else tensor
