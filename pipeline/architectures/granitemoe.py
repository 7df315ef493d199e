"""Granite MoE: Granite with experts in every layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipeline.architectures.granite import Granite
from pipeline.architectures.llama import ATTENTION_BIASES
from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, TRUNK, bias_names
from pipeline.architectures.shared.moe import MixtureOfExperts


class GraniteMoe(Granite, MixtureOfExperts):
    gguf = "granitemoe"
    defaults = Granite.defaults | {"num_local_experts": 8, "num_experts_per_tok": 2}
    names = TRUNK | PRE_NORMS | ATTENTION | bias_names(ATTENTION) | {
        "model.layers.{i}.block_sparse_moe.router.layer.weight": "blk.{i}.ffn_gate_inp.weight",
        "model.layers.{i}.block_sparse_moe.router.weight": "blk.{i}.ffn_gate_inp.weight",
        "model.layers.{i}.block_sparse_moe.input_linear.weight": "blk.{i}.ffn_gate_up_exps.weight",
        "model.layers.{i}.block_sparse_moe.output_linear.weight": "blk.{i}.ffn_down_exps.weight",
        "model.layers.{i}.block_sparse_moe.experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
        "model.layers.{i}.block_sparse_moe.experts.down_proj": "blk.{i}.ffn_down_exps.weight",
    }  # fmt: skip
    optional = MixtureOfExperts.optional
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ATTENTION_BIASES}
