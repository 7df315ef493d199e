"""Granite 4: attention or Mamba 2 in each layer; a shared MLP, and in some sizes experts beside it.

Where all layers have attention the file is a plain ``granite`` (350M, 1B, Micro) or ``granitemoe``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.granitemoeshared import GraniteMoeShared
from pipeline.architectures.shared.decoder import ATTENTION_PARTS
from pipeline.architectures.shared.mamba import MAMBA2_PARTS, Mamba2, check_mamba2, mamba2_names
from pipeline.architectures.shared.moe import DENSE_PARTS, EXPERT_PARTS, SHARED_PARTS, halves
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_ATTENTION = ATTENTION_PARTS[:4]


class GraniteMoeHybrid(GraniteMoeShared):
    gguf = "granitehybrid"
    defaults = GraniteMoeShared.defaults | {
        "shared_intermediate_size": 1024, "mamba_n_heads": 128, "mamba_n_groups": 1, "mamba_d_state": 256, "mamba_d_conv": 4,
        "mamba_expand": 2, "mamba_conv_bias": True,
    }  # fmt: skip
    names = GraniteMoeShared.names | mamba2_names("model.layers.{i}.mamba.")
    # Which of these a layer has depends on its kind and on the number of experts; ``tensors`` looks.
    optional = GraniteMoeShared.optional | {
        name for name in names.values() if name.startswith("blk.") and not name.endswith("_norm.weight")
    } | {"blk.{i}.ssm_norm.weight"}  # fmt: skip
    required = ()

    @property
    def n_experts(self) -> int:
        return self.integer("num_local_experts", "num_experts", least=0)

    @property
    def mlp_width(self) -> int:
        return super().mlp_width if self.n_experts else self.integer("shared_intermediate_size")

    @property
    def rotates(self) -> bool:
        return self.hp.get("position_embedding_type") == "rope"

    @cached_property
    def is_recurrent(self) -> list[bool]:
        kinds = self.layers_of(
            "layers_block_type" if self.hp.get("layer_types") is None else "layer_types",
            ("mamba", "linear_attention", "attention", "full_attention"), lambda i: "mamba",
        )  # fmt: skip
        return [kind in ("mamba", "linear_attention") for kind in kinds]

    @property
    def mamba(self) -> Mamba2:
        d = self.integer("hidden_size")
        return Mamba2(
            d, self.integer("mamba_expand") * d, self.integer("mamba_n_heads"), self.integer("mamba_n_groups"),
            self.integer("mamba_d_state"), self.integer("mamba_d_conv"),
        )  # fmt: skip

    def check(self) -> None:
        if not any(self.is_recurrent):
            self.gguf = "granitemoe" if self.n_experts else "granite"
        super().check()
        if self.gguf == "granitemoe" and not self.rotates:
            raise UnsupportedError("llama.cpp's granitemoe always rotates; here position_embedding_type is not 'rope'")
        if any(self.is_recurrent):
            check_mamba2(self.flag("mamba_conv_bias"), self.flag("mamba_proj_bias"), self.hp.get("time_step_limit"))
            if self.integer("mamba_expand") != 2:
                raise UnsupportedError("llama.cpp's granitehybrid is written for mamba_expand 2; here it is another")

    def keys(self) -> dict[str, Value]:
        keys = super().keys() | {Keys.Rope.SCALING_FINETUNED: self.rotates}  # llama.cpp's switch for RoPE in this family
        if any(self.is_recurrent):
            keys |= self.mamba.keys()
            keys[Keys.Attention.HEAD_COUNT_KV] = [0 if recurrent else self.n_kv_heads for recurrent in self.is_recurrent]
        return keys

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | (self.mamba.shapes() if any(self.is_recurrent) else {})

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if ".ssm_" in tensor.name:
            return self.mamba.adjust(tensor)
        if not self.n_experts and tensor.name.endswith("ffn_gate_up_shexp.weight"):
            return halves(tensor, ("ffn_gate", "ffn_up"))
        if not self.n_experts and tensor.name.endswith("ffn_down_shexp.weight"):
            return replace(tensor, name=tensor.name.replace("_shexp", ""))
        return super().adjust(tensor)

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        has_experts = bool(self.n_experts)
        self.check_kinds(tensors, self.is_recurrent, MAMBA2_PARTS, _ATTENTION)
        self.check_kinds(tensors, [has_experts] * self.n_layers, EXPERT_PARTS, (), "num_local_experts")
        self.check_kinds(tensors, [has_experts] * self.n_layers, SHARED_PARTS, DENSE_PARTS, "num_local_experts")
        return tensors
