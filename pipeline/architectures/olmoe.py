"""OLMoE: experts, and norms over all queries and over all keys of a token."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, QK_NORMS, TRUNK, OwnHead, sizes
from pipeline.architectures.shared.moe import EXPERTS, MixtureOfExperts


class Olmoe(OwnHead, MixtureOfExperts):
    gguf = "olmoe"
    defaults = sizes(
        2048, 2048, 16, 16, None, 4096, rms_norm_eps=1e-5, num_experts=64, num_experts_per_tok=8, norm_topk_prob=False
    )
    names = TRUNK | PRE_NORMS | ATTENTION | QK_NORMS | EXPERTS
    square = True
    normalized = False

    def check(self) -> None:
        super().check()
        if self.hp.get("clip_qkv") is not None:
            raise UnsupportedError("config.json sets clip_qkv; llama.cpp's olmoe does not clip")
        if self.n_kv_heads != self.n_heads:
            raise UnsupportedError("llama.cpp's olmoe has as many key-value heads as heads; config.json says otherwise")

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {"blk.{i}.attn_q_norm.weight": (d,), "blk.{i}.attn_k_norm.weight": (d,)}
