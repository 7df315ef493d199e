"""LFM2 MoE: LFM2 with experts in all layers but the first few."""

from __future__ import annotations

from typing import ClassVar

from gguf import ExpertGatingFuncType, Keys

from agent.errors import UnsupportedError
from pipeline.architectures.lfm2 import Lfm2
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.moe import DENSE_PARTS, EXPERT_PARTS, MixtureOfExperts, expert_names
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_FFN = "model.layers.{i}.feed_forward."


class Lfm2Moe(Lfm2, MixtureOfExperts):
    gguf = "lfm2moe"
    defaults = sizes(
        2048, 7168, 32, 32, 8, 128000, rms_norm_eps=None, norm_eps=1e-5, rope_theta=1e6, tie_word_embeddings=True,
        conv_L_cache=3, moe_intermediate_size=1792, num_dense_layers=2, num_experts=32, num_experts_per_tok=4,
        use_expert_bias=True, norm_topk_prob=True,
    )  # fmt: skip
    names: ClassVar[dict[str, str]] = {
        **Lfm2.names, **expert_names(_FFN, "w1", "w3", "w2"), _FFN + "expert_bias": "blk.{i}.exp_probs_b.bias",
    }  # fmt: skip
    optional = Lfm2.optional | {
        f"blk.{{i}}.{part}" for part in (*EXPERT_PARTS, *DENSE_PARTS, "exp_probs_b.bias", "ffn_gate_up_exps.weight")
    }
    required = ()

    @property
    def mlp_width(self) -> int:
        return self.integer("intermediate_size")

    @property
    def expert_width(self) -> int:
        return self.integer("moe_intermediate_size")

    @property
    def n_dense(self) -> int:
        return self.integer("num_dense_layers", least=0)

    def check(self) -> None:
        super().check()
        if not self.flag("use_expert_bias"):
            raise UnsupportedError("config.json: use_expert_bias is false; llama.cpp's lfm2moe needs one in each router")
        if self.number("routed_scaling_factor", default=1.0) != 1.0:
            raise UnsupportedError("config.json sets routed_scaling_factor; llama.cpp's lfm2moe does not scale its experts")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: self.expert_width,
            Keys.LLM.LEADING_DENSE_BLOCK_COUNT: self.n_dense,
            Keys.LLM.EXPERT_GATING_FUNC: int(ExpertGatingFuncType.SIGMOID),
        }

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {"blk.{i}.exp_probs_b.bias": (self.n_experts,)}

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        dense = [i < self.n_dense for i in range(self.n_layers)]
        self.check_kinds(tensors, dense, DENSE_PARTS, (*EXPERT_PARTS, "exp_probs_b.bias"), "num_dense_layers")
        return tensors
