"""Nemotron-H and Nemotron Nano: a layer is attention without RoPE, Mamba 2, an MLP, or (Nemotron 3) experts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import ClassVar

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from agent.text import brief
from pipeline.architectures.llama import ATTENTION_BIASES
from pipeline.architectures.shared.decoder import ATTENTION, ATTENTION_PARTS, TRUNK, Decoder, bias_names, sizes
from pipeline.architectures.shared.mamba import MAMBA2_PARTS, Mamba2, check_mamba2, mamba2_names
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_MIXER = "model.layers.{i}.mixer."
_ATTENTION = {theirs.replace("self_attn.", "mixer."): ours for theirs, ours in ATTENTION.items()}
_MLP = {_MIXER + "up_proj.weight": "blk.{i}.ffn_up.weight", _MIXER + "down_proj.weight": "blk.{i}.ffn_down.weight"}
_EXPERTS = {
    _MIXER + "gate.weight": "blk.{i}.ffn_gate_inp.weight",
    _MIXER + "gate.e_score_correction_bias": "blk.{i}.exp_probs_b.bias",
    _MIXER + "experts.{e}.up_proj.weight": "blk.{i}.ffn_up_exps.weight",
    _MIXER + "experts.{e}.down_proj.weight": "blk.{i}.ffn_down_exps.weight",
    _MIXER + "experts.up_proj": "blk.{i}.ffn_up_exps.weight",
    _MIXER + "experts.down_proj": "blk.{i}.ffn_down_exps.weight",
    _MIXER + "shared_experts.up_proj.weight": "blk.{i}.ffn_up_shexp.weight",
    _MIXER + "shared_experts.down_proj.weight": "blk.{i}.ffn_down_shexp.weight",
}
_LATENT = {
    _MIXER + "fc1_latent_proj.weight": "blk.{i}.ffn_latent_down.weight",
    _MIXER + "fc2_latent_proj.weight": "blk.{i}.ffn_latent_up.weight",
}
_KINDS = {"M": "mamba", "*": "attention", "-": "mlp", "E": "moe"}
_SPELLINGS = {"linear_attention": "mamba", "full_attention": "attention", **{kind: kind for kind in _KINDS.values()}}
_PARTS = {
    "mamba": MAMBA2_PARTS,
    "attention": ATTENTION_PARTS[:4],
    "mlp": ("ffn_up.weight", "ffn_down.weight"),
    "moe": tuple(dict.fromkeys(name.removeprefix("blk.{i}.") for name in _EXPERTS.values())),
}


class NemotronH(Decoder):
    gguf = "nemotron_h"
    defaults = sizes(
        4096, 21504, 0, 32, 8, 4096, head_dim=128, rms_norm_eps=None, layer_norm_epsilon=1e-5, ssm_state_size=128,
        mamba_num_heads=128, mamba_head_dim=64, n_groups=8, conv_kernel=4, n_routed_experts=8, moe_intermediate_size=7688,
        n_shared_experts=1, moe_shared_expert_intermediate_size=7688, num_experts_per_tok=2, norm_topk_prob=True,
        mlp_hidden_act="relu2", mamba_hidden_act="silu", use_conv_bias=True,
        layers_block_type=["linear_attention", "moe", "full_attention", "mlp"],
    )  # fmt: skip
    names = (
        TRUNK | _ATTENTION | _MLP | bias_names(_ATTENTION) | bias_names(_MLP) | _EXPERTS | _LATENT | mamba2_names(_MIXER)
        | {"model.layers.{i}.norm.weight": "blk.{i}.attn_norm.weight"}
    )  # fmt: skip
    # Which of these a layer has is the matter of its kind; ``tensors`` looks.
    optional = frozenset({"output.weight", *(n for n in names.values() if "{i}" in n and not n.endswith("attn_norm.weight"))})
    ignored = (*Decoder.ignored, r"^mtp\.")
    interleaved_rope = True  # nothing is rotated; llama.cpp's converter reorders these rows all the same
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ATTENTION_BIASES, "mlp_bias": ("ffn_up", "ffn_down")}

    def normalize(self, name: str) -> str:
        for old, new in (
            ("backbone.", "model."), ("model.embeddings.", "model.embed_tokens."), ("model.norm_f.", "model.norm."),
        ):  # fmt: skip
            if name.startswith(old):
                name = new + name[len(old) :]
        return super().normalize(name)

    @cached_property
    def kinds(self) -> list[str]:
        """mamba, attention, mlp or moe, for each layer."""
        pattern = self.hp.get("hybrid_override_pattern")
        found = pattern if isinstance(pattern, str) else self.hp.get("layer_types") or self.hp.get("layers_block_type")
        if not isinstance(found, str | list) or not 1 <= len(found) <= 512:
            raise CheckpointError("config.json: layers_block_type must name the kind of each of 1 to 512 layers")
        spelled = _KINDS if isinstance(found, str) else _SPELLINGS
        odd = next((kind for kind in found if not isinstance(kind, str) or kind not in spelled), None)
        if odd is not None:
            raise UnsupportedError(
                f"config.json: a layer is {brief(odd)}; llama.cpp's nemotron_h has {', '.join(_KINDS.values())}"
            )
        return [spelled[kind] for kind in found]

    @cached_property
    def n_trunk(self) -> int:
        return len(self.kinds)

    @property
    def head_dim(self) -> int:
        return self.integer("attention_head_dim", "head_dim")

    @property
    def mamba(self) -> Mamba2:
        heads = self.integer("mamba_num_heads")
        return Mamba2(
            self.integer("hidden_size"), heads * self.integer("mamba_head_dim"), heads, self.integer("n_groups"),
            self.integer("ssm_state_size"), self.integer("conv_kernel"),
        )  # fmt: skip

    def check(self) -> None:
        if "moe" in self.kinds:
            self.gguf = "nemotron_h_moe"
        self.hp["rms_norm_eps"] = self.number("layer_norm_epsilon")
        super().check()
        if "moe" in self.kinds and "mlp" in self.kinds:
            raise UnsupportedError("llama.cpp's nemotron_h has experts or MLPs; config.json has layers of both kinds")
        check_mamba2(
            self.flag("use_conv_bias"), self.flag("use_bias") or self.flag("mamba_proj_bias"), self.hp.get("time_step_limit")
        )
        for name, built_in in (("mlp_hidden_act", "relu2"), ("mamba_hidden_act", "silu")):
            if self.hp[name] != built_in:
                raise UnsupportedError(
                    f"config.json: {name} is {brief(self.hp[name])}; llama.cpp computes nemotron_h with {built_in} only"
                )
        if "moe" in self.kinds and (self.integer("n_group", default=1) != 1 or self.integer("n_shared_experts") != 1):
            raise UnsupportedError("config.json: experts in groups, or not one shared expert, are not converted for nemotron_h")

    def notes(self) -> list[str]:
        left_out = any(name.startswith("mtp.") for name in self.infos)
        return [*super().notes(), *(["the head that foretells further tokens (mtp) is left out"] if left_out else [])]

    def keys(self) -> dict[str, Value]:
        width = self.integer("moe_intermediate_size" if "moe" in self.kinds else "intermediate_size")
        keys = super().keys() | self.mamba.keys()
        keys |= {
            Keys.Attention.HEAD_COUNT_KV: [self.n_kv_heads if kind == "attention" else 0 for kind in self.kinds],
            Keys.LLM.FEED_FORWARD_LENGTH: [width if kind in ("mlp", "moe") else 0 for kind in self.kinds],
            Keys.Attention.LAYERNORM_EPS: self.number("layer_norm_epsilon"),
            Keys.Rope.SCALING_FINETUNED: False,  # no RoPE
        }
        if "moe" in self.kinds:
            keys |= {
                Keys.LLM.EXPERT_COUNT: self.integer("n_routed_experts"),
                Keys.LLM.EXPERT_USED_COUNT: self.integer("num_experts_per_tok"),
                Keys.LLM.EXPERT_SHARED_COUNT: self.integer("n_shared_experts"),
                Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: width,
                Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH: self.integer("moe_shared_expert_intermediate_size"),
                Keys.LLM.EXPERT_WEIGHTS_NORM: self.flag("norm_topk_prob"),
                Keys.LLM.EXPERT_WEIGHTS_SCALE: self.number("routed_scaling_factor", default=1.0),
                Keys.LLM.EXPERT_GROUP_COUNT: 1,
            }
            if self.hp.get("moe_latent_size") is not None:
                keys[Keys.LLM.MOE_LATENT_SIZE] = self.integer("moe_latent_size")
        return keys

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, n, ff = self.integer("hidden_size"), self.integer("n_routed_experts"), self.integer("moe_intermediate_size")
        shared, inner = self.integer("moe_shared_expert_intermediate_size"), self.integer("moe_latent_size", default=d)
        return super().expected_shapes() | self.mamba.shapes() | {
            "blk.{i}.ffn_gate_inp.weight": (n, d),
            "blk.{i}.exp_probs_b.bias": (n,),
            "blk.{i}.ffn_up_exps.weight": (n, ff, inner),
            "blk.{i}.ffn_down_exps.weight": (n, inner, ff),
            "blk.{i}.ffn_up_shexp.weight": (shared, d),
            "blk.{i}.ffn_down_shexp.weight": (d, shared),
            "blk.{i}.ffn_latent_down.weight": (inner, d),
            "blk.{i}.ffn_latent_up.weight": (d, inner),
        }  # fmt: skip

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        return self.mamba.adjust(tensor) if ".ssm_" in tensor.name else super().adjust(tensor)

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        latent = self.hp.get("moe_latent_size") is not None
        for kind, parts in _PARTS.items():
            self.check_kinds(tensors, [k == kind for k in self.kinds], parts, (), "layers_block_type")
        parts = ("ffn_latent_down.weight", "ffn_latent_up.weight")
        self.check_kinds(tensors, [latent and kind == "moe" for kind in self.kinds], parts, (), "moe_latent_size")
        return tensors
