"""gpt-oss: experts with biases in every layer, every other layer with a window, and a sink for each head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.llama import ATTENTION_BIASES
from pipeline.architectures.shared.decoder import ATTENTION, TRUNK, OwnHead, Windowed, bias_names, sizes
from pipeline.architectures.shared.moe import MixtureOfExperts
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.format.gguf_file import Value

_LAYER = "model.layers.{i}."
_EXPERTS = _LAYER + "mlp.experts."
_YARN = {
    "rope_type": "yarn", "factor": 32.0, "beta_fast": 32.0, "beta_slow": 1.0, "truncate": False,
    "original_max_position_embeddings": 4096,
}  # fmt: skip
_EXPERT_PARTS = tuple(f"ffn_{part}_exps.{kind}" for part in ("gate", "up", "down") for kind in ("weight", "bias"))
_SWIGLU = {"swiglu_alpha": 1.702, "swiglu_limit": 7.0}  # built into ggml's kernel


class GptOss(Windowed, OwnHead, MixtureOfExperts):
    gguf = "gpt-oss"
    defaults = sizes(
        2880, 2880, 36, 64, 8, 131072, head_dim=64, rms_norm_eps=1e-5, sliding_window=128, num_local_experts=128,
        num_experts_per_tok=4, rope_theta=150000.0, attention_bias=True, **_SWIGLU,
    )  # fmt: skip
    names = TRUNK | ATTENTION | bias_names(ATTENTION) | {
        _LAYER + "input_layernorm.weight": "blk.{i}.attn_norm.weight",
        _LAYER + "post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
        _LAYER + "self_attn.sinks": "blk.{i}.attn_sinks.weight",
        _LAYER + "mlp.router.weight": "blk.{i}.ffn_gate_inp.weight",
        _LAYER + "mlp.router.bias": "blk.{i}.ffn_gate_inp.bias",
        # transformers' stacks are transposed; those that Sprig unpacks from MXFP4 are not, and end in ".weight".
        _EXPERTS + "gate_up_proj": "blk.{i}.ffn_gate_up_exps_turned.weight",
        _EXPERTS + "gate_up_proj.weight": "blk.{i}.ffn_gate_up_exps.weight",
        _EXPERTS + "gate_up_proj_bias": "blk.{i}.ffn_gate_up_exps.bias",
        _EXPERTS + "down_proj": "blk.{i}.ffn_down_exps_turned.weight",
        _EXPERTS + "down_proj.weight": "blk.{i}.ffn_down_exps.weight",
        _EXPERTS + "down_proj_bias": "blk.{i}.ffn_down_exps.bias",
    }  # fmt: skip
    optional = MixtureOfExperts.optional | {name for name in names.values() if "_exps" in name}
    required = ()
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ATTENTION_BIASES}
    full_every = 2

    def check(self) -> None:
        if not (self.hp.get("rope_scaling") or self.hp.get("rope_parameters")):
            self.hp["rope_parameters"] = dict(_YARN)
        self.smooth = self._round_yarn("rope_scaling") or self._round_yarn("rope_parameters")
        super().check()
        if not self.flag("attention_bias"):
            raise UnsupportedError("config.json: attention_bias is false; llama.cpp's gpt-oss needs the biases of attention")
        for name, built_in in _SWIGLU.items():
            if self.number(name) != built_in:
                raise UnsupportedError(f"config.json: {name} is {self.number(name):g}; llama.cpp has {built_in:g} built in")

    def _round_yarn(self, key: str) -> bool:
        """llama.cpp always rounds the bounds of YaRN's ramp. Returns whether the model does not, and lets it do so."""
        rope: Any = self.hp.get(key)
        if not isinstance(rope, dict) or rope.get("truncate") is not False:
            return False
        self.hp[key] = {**rope, "truncate": True}
        return True

    def notes(self) -> list[str]:
        words = (
            "llama.cpp rounds the bounds of YaRN's ramp, the original (truncate false) does not: a small difference in every GGUF"
        )
        return [*super().notes(), *([words] if self.smooth else [])]

    def keys(self) -> dict[str, Value]:
        return super().keys() | self.window_keys() | {Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: self.expert_width}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        n, ff, d = self.n_experts, self.expert_width, self.integer("hidden_size")
        return super().expected_shapes() | {
            "blk.{i}.post_attention_norm.weight": (d,),
            "blk.{i}.attn_sinks.weight": (self.n_heads,),
            "blk.{i}.ffn_gate_up_exps_turned.weight": (n, d, 2 * ff),
            "blk.{i}.ffn_gate_up_exps.bias": (n, 2 * ff),
            "blk.{i}.ffn_down_exps_turned.weight": (n, ff, d),
            "blk.{i}.ffn_down_exps.bias": (n, d),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if tensor.name.endswith("_turned.weight"):
            n, before, after = tensor.shape
            source = tensor.sources[0].source
            slices = tuple(Slice(source, e * before, (e + 1) * before) for e in range(n))
            tensor = replace(
                tensor, name=tensor.name.replace("_turned", ""), shape=(n, after, before), sources=slices, transposed=True
            )
        return self._gate_and_up(tensor) if "ffn_gate_up_exps" in tensor.name else super().adjust(tensor)

    @staticmethod
    def _gate_and_up(tensor: Tensor) -> list[Tensor]:
        """Of a fused projection the even rows are the gate's, the odd ones the other's."""
        found = []
        for first, part in enumerate(("gate", "up")):
            *before, wide, d = tensor.shape if tensor.name.endswith(".weight") else (*tensor.shape, 1)
            one = replace(tensor, name=tensor.name.replace("gate_up", part))
            if tensor.name.endswith(".bias"):
                found.append(replace(one, shape=(*before, wide // 2), column_order=np.arange(first, wide, 2)))
            else:
                rows = wide if tensor.transposed else tensor.n_rows
                found.append(replace(one, shape=(*before, wide // 2, d), row_order=np.arange(first, rows, 2)))
        return found

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        self.check_kinds(tensors, [True] * self.n_layers, _EXPERT_PARTS, (), "num_local_experts")
        if len({t.name for t in tensors}) < len(tensors):
            raise CheckpointError("the checkpoint has the experts of a layer twice, packed and plain; keep one of them")
        return tensors
