"""Qwen3.5 (text part): gated delta rule in most layers, gated attention in the others.

The head that foretells a second token (``mtp``) is one more block behind the others, which llama.cpp loads when it is to draft.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, ATTENTION_PARTS, MLP, QK_NORMS, TRUNK, Decoder, sizes
from pipeline.architectures.shared.rope import mrope_sections
from pipeline.architectures.shared.tensor import Index, Tensor
from pipeline.format.gguf_file import Value

_KINDS = ("linear_attention", "full_attention")
_LINEAR = "model.layers.{i}.linear_attn."
_LINEAR_PARTS = (
    "attn_qkv.weight", "attn_gate.weight", "ssm_alpha.weight", "ssm_beta.weight", "ssm_conv1d.weight", "ssm_dt.bias", "ssm_a",
    "ssm_norm.weight", "ssm_out.weight",
)  # fmt: skip
_NEXT = {
    "mtp.layers.0.": "",
    "mtp.fc.": "nextn.eh_proj.",
    "mtp.pre_fc_norm_embedding.": "nextn.enorm.",
    "mtp.pre_fc_norm_hidden.": "nextn.hnorm.",
    "mtp.norm.": "nextn.shared_head_norm.",
}
_NEXT_PARTS = tuple(f"{part}weight" for part in _NEXT.values() if part)


class Qwen35(Decoder):
    gguf = "qwen35"
    defaults = sizes(
        4096, 12288, 32, 16, 4, 32768, head_dim=256, partial_rotary_factor=0.25, linear_conv_kernel_dim=4,
        linear_key_head_dim=128, linear_value_head_dim=128, linear_num_key_heads=16, linear_num_value_heads=32,
    )  # fmt: skip
    names = TRUNK | ATTENTION | QK_NORMS | MLP | {
        "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
        "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
        _LINEAR + "in_proj_qkv.weight": "blk.{i}.attn_qkv.weight",
        _LINEAR + "in_proj_z.weight": "blk.{i}.attn_gate.weight",
        _LINEAR + "in_proj_a.weight": "blk.{i}.ssm_alpha.weight",
        _LINEAR + "in_proj_b.weight": "blk.{i}.ssm_beta.weight",
        _LINEAR + "conv1d.weight": "blk.{i}.ssm_conv1d.weight",
        _LINEAR + "dt_bias": "blk.{i}.ssm_dt.bias",
        _LINEAR + "A_log": "blk.{i}.ssm_a",
        _LINEAR + "norm.weight": "blk.{i}.ssm_norm.weight",
        _LINEAR + "out_proj.weight": "blk.{i}.ssm_out.weight",
    } | {f"model.layers.{{i}}.{part}": f"blk.{{i}}.{part}" for part in _NEXT_PARTS}  # fmt: skip
    optional = Decoder.optional | {f"blk.{{i}}.{part}" for part in (*ATTENTION_PARTS, *_LINEAR_PARTS, *_NEXT_PARTS)}
    ignored = (*Decoder.ignored, r"^(model\.)?mtp\.", r"^(model\.)?visual\.")
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn"})
    partial_rope = True

    def normalize(self, name: str) -> str:
        if self.hp.get("mtp_num_hidden_layers", 1) == 1:  # llama.cpp gives each such layer a projection, checkpoints have one
            plain = name.removeprefix("model.")
            for theirs, ours in _NEXT.items():
                if plain.startswith(theirs):
                    return f"model.layers.{self.n_trunk}.{ours}{plain.removeprefix(theirs)}"
        return super().normalize(name)

    @cached_property
    def n_next(self) -> int:
        """Blocks that foretell further tokens: 0 or 1."""
        return int(any(".nextn." in name for name in self.infos))

    @property
    def n_layers(self) -> int:
        return self.n_trunk + self.n_next

    @property
    def value_heads(self) -> int:
        return self.integer("linear_num_value_heads")

    @property
    def key_heads(self) -> int:
        return self.integer("linear_num_key_heads")

    @property
    def state(self) -> int:
        """Dimensions of a head in the linear layers."""
        return self.integer("linear_key_head_dim")

    def is_linear(self) -> list[bool]:
        every = self.integer("full_attention_interval", default=4)
        kinds = self.layers_of("layer_types", _KINDS, lambda i: _KINDS[(i + 1) % every == 0])
        return [kind == "linear_attention" for kind in kinds] + [False] * self.n_next

    def check(self) -> None:
        super().check()
        if self.integer("linear_value_head_dim") != self.state:
            raise UnsupportedError("llama.cpp's qwen35 needs linear_value_head_dim = linear_key_head_dim; here it is not so")
        if self.value_heads % self.key_heads:
            raise CheckpointError(f"config.json: {self.value_heads} linear value heads cannot share {self.key_heads} key heads")

    def notes(self) -> list[str]:
        left_out = any(name.startswith(("mtp.", "model.mtp.")) for name in self.infos)
        return [*super().notes(), *(["the head that foretells further tokens (mtp) is left out"] if left_out else [])]

    def keys(self) -> dict[str, Value]:
        return (
            super().keys()
            | ({Keys.LLM.NEXTN_PREDICT_LAYERS: self.n_next} if self.n_next else {})
            | {
                Keys.Rope.DIMENSION_SECTIONS: mrope_sections(self.hp, [11, 11, 10]),
                Keys.SSM.CONV_KERNEL: self.integer("linear_conv_kernel_dim"),
                Keys.SSM.STATE_SIZE: self.state,
                Keys.SSM.GROUP_COUNT: self.key_heads,
                Keys.SSM.TIME_STEP_RANK: self.value_heads,
                Keys.SSM.INNER_SIZE: self.state * self.value_heads,
                "{arch}.attention.recurrent_layers": self.is_linear(),
                Keys.LLM.FULL_ATTENTION_INTERVAL: self.integer("full_attention_interval", default=4),
            }
        )

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, q = self.integer("hidden_size"), self.n_heads * self.head_dim
        heads, value = self.value_heads, self.value_heads * self.state
        mixed = 2 * self.key_heads * self.state + value
        return super().expected_shapes() | {
            "blk.{i}.post_attention_norm.weight": (d,),
            "blk.{i}.attn_q.weight": (2 * q, d),  # each head's query, then its gate
            "blk.{i}.attn_qkv.weight": (mixed, d),
            "blk.{i}.attn_gate.weight": (value, d),
            "blk.{i}.ssm_alpha.weight": (heads, d),
            "blk.{i}.ssm_beta.weight": (heads, d),
            "blk.{i}.ssm_conv1d.weight": (mixed, 1, self.integer("linear_conv_kernel_dim")),
            "blk.{i}.ssm_dt.bias": (heads,),
            "blk.{i}.ssm_a": (heads,),
            "blk.{i}.ssm_norm.weight": (self.state,),
            "blk.{i}.ssm_out.weight": (d, value),
            "blk.{i}.nextn.eh_proj.weight": (d, 2 * d),
            **{f"blk.{{i}}.{part}": (d,) for part in _NEXT_PARTS if part.endswith("norm.weight")},
        }

    def _tiled(self, size: int, before: int = 0) -> Index:
        """Order of the value heads of ``size`` rows each, after ``before`` rows that stay.

        transformers keeps the value heads of one key head together; ggml repeats the key heads as a whole.
        """
        heads = np.arange(self.value_heads).reshape(self.key_heads, -1).T.ravel()
        rows = (heads[:, None] * size + np.arange(size)).ravel() + before
        return np.concatenate([np.arange(before), rows]).astype(np.int64)

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        part = tensor.name.split(".", 2)[-1] if tensor.name.startswith("blk.") else tensor.name
        keys = 2 * self.key_heads * self.state
        columns = {"ssm_a": 1, "ssm_dt.bias": 1, "ssm_out.weight": self.state}  # of one value head
        rows = {"attn_qkv.weight": (self.state, keys), "ssm_conv1d.weight": (self.state, keys), "attn_gate.weight": (self.state,)}
        rows |= {"ssm_alpha.weight": (1,), "ssm_beta.weight": (1,)}
        if part in columns:
            return replace(tensor, column_order=self._tiled(columns[part]), function="neg_exp" if part == "ssm_a" else None)
        if part in rows:
            shape = (tensor.shape[0], tensor.shape[-1])  # a convolution [C, 1, K] is a matrix [C, K]
            return replace(tensor, shape=shape, row_order=self._tiled(*rows[part]))
        if part.endswith("norm.weight") and part != "ssm_norm.weight":
            return replace(tensor, function="add_one")  # Qwen3.5 multiplies by 1 + weight, as Gemma does
        return super().adjust(tensor)

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        self.check_kinds(tensors, self.is_linear(), _LINEAR_PARTS, ATTENTION_PARTS)
        self.check_kinds(tensors, [i >= self.n_trunk for i in range(self.n_layers)], _NEXT_PARTS, (), "mtp_num_hidden_layers")
        return tensors
