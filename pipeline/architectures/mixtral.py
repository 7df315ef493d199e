"""Mixtral: Mistral with experts in every layer."""

from __future__ import annotations

from pipeline.architectures.llama import Llama
from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, TRUNK, sizes
from pipeline.architectures.shared.moe import EXPERTS, MixtureOfExperts, expert_names


class Mixtral(Llama, MixtureOfExperts):
    has_window = "always"
    defaults = sizes(
        4096, 14336, 32, 32, 8, 131072, rms_norm_eps=1e-5, rope_theta=1e6, num_local_experts=8, num_experts_per_tok=2,
        sliding_window=None,
    )  # fmt: skip
    names = TRUNK | PRE_NORMS | ATTENTION | EXPERTS | expert_names("model.layers.{i}.block_sparse_moe.", "w1", "w3", "w2")
    optional = MixtureOfExperts.optional
    bias_flags = MixtureOfExperts.bias_flags
