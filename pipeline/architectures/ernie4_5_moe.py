"""ERNIE 4.5 MoE: experts in all layers but the first, some that all tokens share, and a bias in the choice."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import Decoder, sizes
from pipeline.architectures.shared.moe import DENSE_PARTS, EXPERT_PARTS, EXPERTS, SHARED_PARTS, MixtureOfExperts
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_MLP = "model.layers.{i}.mlp."
_BIAS = "exp_probs_b.bias"


class Ernie45Moe(MixtureOfExperts):
    gguf = "ernie4_5-moe"
    defaults = sizes(
        2560, 12288, 28, 20, 4, 131072, rms_norm_eps=1e-5, rope_theta=500000.0, tie_word_embeddings=True,
        moe_intermediate_size=1536, moe_k=6, moe_num_experts=64, moe_num_shared_experts=2, moe_layer_start_index=1,
        moe_layer_interval=1,
    )  # fmt: skip
    names = Decoder.names | EXPERTS | {
        _MLP + "moe_statics.e_score_correction_bias": f"blk.{{i}}.{_BIAS}",
        _MLP + "shared_experts.gate_proj.weight": "blk.{i}.ffn_gate_shexp.weight",
        _MLP + "shared_experts.up_proj.weight": "blk.{i}.ffn_up_shexp.weight",
        _MLP + "shared_experts.down_proj.weight": "blk.{i}.ffn_down_shexp.weight",
    }  # fmt: skip
    optional = MixtureOfExperts.optional | {f"blk.{{i}}.{part}" for part in (*EXPERT_PARTS, *SHARED_PARTS, *DENSE_PARTS, _BIAS)}
    required = ()
    ignored = (*Decoder.ignored, r"^model\.mtp_")

    @property
    def n_experts(self) -> int:
        return self.integer("moe_num_experts")

    @property
    def n_used(self) -> int:
        return self.integer("moe_k")

    @property
    def expert_width(self) -> int:
        return self.integer("moe_intermediate_size")

    @property
    def n_shared(self) -> int:
        return self.integer("moe_num_shared_experts", least=0)

    def has_experts(self) -> list[bool]:
        start, every = self.integer("moe_layer_start_index", least=0), self.integer("moe_layer_interval")
        return [i >= start and (i + 1) % every == 0 for i in range(self.n_layers)]

    def check(self) -> None:
        super().check()
        if self.flag("use_bias"):
            raise UnsupportedError("config.json sets use_bias; llama.cpp's ernie4_5-moe leaves some of these biases out")
        if self.integer("moe_layer_end_index", default=-1, least=-1) not in (-1, self.n_layers - 1):
            raise UnsupportedError("config.json: moe_layer_end_index ends the experts early; llama.cpp's ernie4_5-moe does not")

    def keys(self) -> dict[str, Value]:
        keys = super().keys() | {
            Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: self.expert_width,
            Keys.LLM.EXPERT_SHARED_COUNT: self.n_shared,
            Keys.LLM.INTERLEAVE_MOE_LAYER_STEP: self.integer("moe_layer_interval"),
            Keys.LLM.LEADING_DENSE_BLOCK_COUNT: self.integer("moe_layer_start_index", least=0),
        }
        if self.n_shared:
            keys[Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH] = self.n_shared * self.expert_width
        return keys

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.n_shared * self.expert_width
        return super().expected_shapes() | {
            f"blk.{{i}}.{_BIAS}": (1, self.n_experts),
            "blk.{i}.ffn_gate_shexp.weight": (ff, d),
            "blk.{i}.ffn_up_shexp.weight": (ff, d),
            "blk.{i}.ffn_down_shexp.weight": (d, ff),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        return replace(tensor, shape=tensor.shape[1:]) if tensor.name.endswith(_BIAS) else super().adjust(tensor)

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        experts = self.has_experts()
        self.check_kinds(tensors, experts, (*EXPERT_PARTS, _BIAS), DENSE_PARTS, "moe_layer_start_index")
        self.check_kinds(tensors, [has and self.n_shared > 0 for has in experts], SHARED_PARTS, (), "moe_num_shared_experts")
        return tensors
