"""Falcon-H1: attention and Mamba 2 side by side in every layer, and a multiplier on nearly every product.

llama.cpp's graph has no multipliers: they are put into the weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.llama import MLP_BIASES
from pipeline.architectures.shared.base import positive
from pipeline.architectures.shared.decoder import ATTENTION, OwnHead, bias_names, sizes
from pipeline.architectures.shared.mamba import Mamba2, check_mamba2, mamba2_names
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_LAYER = "model.layers.{i}."
_MLP = {
    _LAYER + "feed_forward.gate_proj.weight": "blk.{i}.ffn_gate.weight",
    _LAYER + "feed_forward.up_proj.weight": "blk.{i}.ffn_up.weight",
    _LAYER + "feed_forward.down_proj.weight": "blk.{i}.ffn_down.weight",
}


class FalconH1(OwnHead):
    gguf = "falcon-h1"
    defaults = sizes(
        4096, 14336, 32, 32, 8, 8192, rms_norm_eps=1e-5, mamba_d_ssm=1024, mamba_n_heads=128, mamba_n_groups=1,
        mamba_d_state=256, mamba_d_conv=4, mamba_expand=2, mamba_norm_before_gate=True, mamba_conv_bias=True,
    )  # fmt: skip
    names = ATTENTION | _MLP | bias_names(_MLP) | mamba2_names(_LAYER + "mamba.") | {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.final_layernorm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        _LAYER + "input_layernorm.weight": "blk.{i}.attn_norm.weight",
        _LAYER + "pre_ff_layernorm.weight": "blk.{i}.ffn_norm",  # without an ending in llama.cpp
    }  # fmt: skip
    optional = OwnHead.optional | {"blk.{i}.ssm_norm.weight"}
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"mlp_bias": MLP_BIASES}

    @property
    def mamba(self) -> Mamba2:
        d = self.integer("hidden_size")
        inner = self.integer("mamba_d_ssm", default=self.integer("mamba_expand") * d)
        return Mamba2(
            d, inner, self.integer("mamba_n_heads"), self.integer("mamba_n_groups"), self.integer("mamba_d_state"),
            self.integer("mamba_d_conv"),
        )  # fmt: skip

    def check(self) -> None:
        if self.flag("attention_bias"):
            raise UnsupportedError("config.json sets attention_bias; llama.cpp's falcon-h1 leaves one of them out")
        super().check()
        biases = self.flag("mamba_proj_bias") or self.flag("projectors_bias")
        check_mamba2(self.flag("mamba_conv_bias"), biases, self.hp.get("time_step_limit"))
        if self.flag("mamba_rms_norm") and self.flag("mamba_norm_before_gate"):
            raise UnsupportedError("config.json sets mamba_norm_before_gate; llama.cpp's falcon-h1 has the gate first")

    def keys(self) -> dict[str, Value]:
        return super().keys() | self.mamba.keys()

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | self.mamba.shapes() | {"blk.{i}.ffn_norm": (self.integer("hidden_size"),)}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        return self.mamba.adjust(tensor)

    def mapped(self) -> list[Tensor]:
        scales = self._scales()
        return [replace(t, scale=scales.get(t.name.split(".")[-2])) for t in super().mapped()]

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        has_norm = self.flag("mamba_rms_norm")
        self.check_kinds(tensors, [has_norm] * self.n_layers, ("ssm_norm.weight",), (), "mamba_rms_norm")
        if not has_norm and any("ssm_norm" in t.name for t in tensors):
            raise CheckpointError("the checkpoint has norms of Mamba layers, which config.json says the model does not use")
        return tensors

    def _scales(self) -> dict[str, npt.NDArray[np.float32]]:
        """Part of a tensor's name -> what each of its rows is multiplied with."""
        d, q, kv = self.integer("hidden_size"), self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        one = {name: self.number(f"{name}_multiplier", default=1.0) for name in (
            "embedding", "lm_head", "attention_in", "attention_out", "key", "ssm_in", "ssm_out",
        )}  # fmt: skip
        gate, down = self._list("mlp_multipliers", 2)
        groups = self.mamba.groups * self.mamba.state
        pieces = zip(self._list("ssm_multipliers", 5), (self.mamba.inner,) * 2 + (groups,) * 2 + (self.mamba.heads,), strict=True)
        factors = {
            "token_embd": (one["embedding"], self.vocab_rows),
            "output": (one["lm_head"], self.vocab_rows),
            "attn_q": (one["attention_in"], q),
            "attn_k": (one["attention_in"] * one["key"], kv),
            "attn_v": (one["attention_in"], kv),
            "attn_output": (one["attention_out"], d),
            "ffn_gate": (gate, self.mlp_width),
            "ffn_down": (down, d),
            "ssm_out": (one["ssm_out"], d),
        }
        scales = {part: np.full(rows, factor, np.float32) for part, (factor, rows) in factors.items() if factor != 1.0}
        scales["ssm_in"] = np.concatenate([np.full(n, one["ssm_in"] * factor, np.float32) for factor, n in pieces])
        return scales

    def _list(self, name: str, count: int) -> list[float]:
        found = self.hp.get(name)
        if found is None:
            return [1.0] * count
        if not isinstance(found, list) or len(found) != count:
            raise CheckpointError(f"config.json: {name} must be a list of {count} numbers")
        return [positive(name, value) for value in found]
