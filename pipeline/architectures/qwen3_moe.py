"""Qwen3 MoE: Qwen3 with experts in every layer."""

from __future__ import annotations

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, QK_NORMS, TRUNK, sizes
from pipeline.architectures.shared.moe import EXPERTS, MixtureOfExperts
from pipeline.format.gguf_file import Value


class Qwen3Moe(MixtureOfExperts):
    gguf = "qwen3moe"
    has_window = "if used"
    defaults = sizes(
        2048, 6144, 24, 32, 4, 32768, sliding_window=4096, moe_intermediate_size=768, num_experts_per_tok=8, num_experts=128,
        norm_topk_prob=False,
    )  # fmt: skip
    names = TRUNK | PRE_NORMS | ATTENTION | QK_NORMS | EXPERTS

    @property
    def expert_width(self) -> int:
        return self.integer("moe_intermediate_size")

    def check(self) -> None:
        super().check()
        if self.hp.get("mlp_only_layers") or self.integer("decoder_sparse_step", default=1) != 1:
            raise UnsupportedError("llama.cpp's qwen3moe has experts in every layer; config.json has dense layers too")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: self.expert_width}
