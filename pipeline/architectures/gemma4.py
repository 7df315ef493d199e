"""Gemma 4 (text part): heads of two sizes, keys and values shared between layers, an embedding per layer, experts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.gemma2 import Gemma2
from pipeline.architectures.shared.decoder import QK_NORMS, Decoder, sizes
from pipeline.architectures.shared.moe import MAX_EXPERTS
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_NUMBER = re.compile("[0-9]{1,4}")
_LAYER = "model.layers.{i}."
PER_LAYER = {
    "model.embed_tokens_per_layer.weight": "per_layer_token_embd.weight",
    "model.per_layer_model_projection.weight": "per_layer_model_proj.weight",
    "model.per_layer_projection_norm.weight": "per_layer_proj_norm.weight",
    _LAYER + "per_layer_input_gate.weight": "blk.{i}.inp_gate.weight",
    _LAYER + "per_layer_projection.weight": "blk.{i}.proj.weight",
    _LAYER + "post_per_layer_input_norm.weight": "blk.{i}.post_norm.weight",
}
_EXPERTS = {
    _LAYER + "router.proj.weight": "blk.{i}.ffn_gate_inp.weight",
    _LAYER + "router.scale": "blk.{i}.ffn_gate_inp.scale",
    _LAYER + "router.per_expert_scale": "blk.{i}.ffn_down_exps.scale",
    _LAYER + "experts.gate_up_proj": "blk.{i}.ffn_gate_up_exps.weight",
    _LAYER + "experts.down_proj": "blk.{i}.ffn_down_exps.weight",
    _LAYER + "pre_feedforward_layernorm_2.weight": "blk.{i}.pre_ffw_norm_2.weight",
    _LAYER + "post_feedforward_layernorm_1.weight": "blk.{i}.post_ffw_norm_1.weight",
    _LAYER + "post_feedforward_layernorm_2.weight": "blk.{i}.post_ffw_norm_2.weight",
}
_KEYS_VALUES = ("blk.{i}.attn_k.weight", "blk.{i}.attn_v.weight", "blk.{i}.attn_k_norm.weight")


class Gemma4(Gemma2):
    gguf = "gemma4"
    defaults = sizes(
        2304, 9216, 30, 8, 4, 131072, head_dim=256, sliding_window=512, tie_word_embeddings=True,
        hidden_size_per_layer_input=256, num_kv_shared_layers=0,
        rope_parameters={
            "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            "full_attention": {"rope_type": "proportional", "partial_rotary_factor": 0.25, "rope_theta": 1e6},
        },
    )  # fmt: skip
    names = Gemma2.names | QK_NORMS | PER_LAYER | _EXPERTS | {_LAYER + "layer_scalar": "blk.{i}.layer_output_scale.weight"}
    optional = Decoder.optional | {*_KEYS_VALUES, *PER_LAYER.values(), *_EXPERTS.values()}
    ignored = (
        *Gemma2.ignored, r"^(model\.)?(vision_tower|audio_tower|embed_vision|embed_audio|multi_modal_projector)\.",
    )  # fmt: skip
    rope_kinds = frozenset({"proportional", "default"})

    def is_sliding(self) -> list[bool]:
        return [*self.sliding_layers(6)[:-1], False]  # transformers forces the last to see all

    def _overridden(self, key: str) -> int | None:
        """The value of ``key`` for the layers with full attention in transformers 5's per_layer_config; None if it has none."""
        per_layer = self.hp.get("per_layer_config")
        if not isinstance(per_layer, dict) or not all(_NUMBER.fullmatch(i) and isinstance(e, dict) for i, e in per_layer.items()):
            raise CheckpointError("config.json: per_layer_config must give an object for numbers of layers")
        full = {i for i, sliding in enumerate(self.is_sliding()) if not sliding}
        if {int(i) for i, entry in per_layer.items() if key in entry} not in (full, set()):  # transformers pads: "05"
            raise UnsupportedError(f"config.json: per_layer_config must give {key} to all layers with full attention or to none")
        if any(set(entry) - {"head_dim", "num_key_value_heads"} for entry in per_layer.values()):
            raise UnsupportedError("config.json: of per_layer_config only head_dim and num_key_value_heads are supported")
        found = [entry[key] for entry in per_layer.values() if key in entry]
        if any(type(n) is not int or not 1 <= n < 2**31 or n != found[0] for n in found):
            raise CheckpointError(f"config.json: {key} in per_layer_config must be one whole number")
        return found[0] if found else None

    @property
    def rope_head_dim(self) -> int:
        if self.hp.get("per_layer_config") is not None:
            return self._overridden("head_dim") or self.head_dim
        return self.integer("global_head_dim", default=512)

    @property
    def full_kv_heads(self) -> int:
        if self.hp.get("per_layer_config") is not None:
            return self._overridden("num_key_value_heads") or self.n_kv_heads
        if not self.flag("attention_k_eq_v"):
            return self.n_kv_heads
        return self.integer("num_global_key_value_heads", default=self.n_kv_heads)

    @property
    def shared(self) -> int:
        """Layers at the end that take keys and values from earlier ones."""
        return self.integer("num_kv_shared_layers", least=0)

    def mlp_widths(self) -> list[int]:
        wide = 2 if self.flag("use_double_wide_mlp") else 1
        return [self.mlp_width * (wide if i >= self.n_layers - self.shared else 1) for i in range(self.n_layers)]

    @property
    def per_layer(self) -> int:
        return self.integer("hidden_size_per_layer_input", default=0, least=0)

    @property
    def n_experts(self) -> int:
        return self.integer("num_experts") if self.flag("enable_moe_block") else 0

    def check(self) -> None:
        Decoder.check(self)
        if self.hp.get("use_bidirectional_attention") not in (None, False, "vision"):
            raise UnsupportedError("config.json sets use_bidirectional_attention for text, which is not supported for gemma4")
        if self.n_heads % self.full_kv_heads:
            raise CheckpointError(f"config.json: {self.n_heads} heads cannot share {self.full_kv_heads} key-value heads")
        sliding = self.is_sliding()
        if self.shared and set(sliding[: max(0, self.n_layers - self.shared)]) != set(sliding):
            raise CheckpointError(f"config.json: no layer is left from which the last {self.shared} can take keys and values")
        if self.n_experts and not self.integer("top_k_experts") <= self.n_experts <= MAX_EXPERTS:
            raise CheckpointError(f"config.json: {self.integer('top_k_experts')} of {self.n_experts} experts per token")
        self.plain_local_rope(self.hp)

    def keys(self) -> dict[str, Value]:
        sliding = self.is_sliding()
        keys = Decoder.keys(self) | {
            Keys.LLM.FEED_FORWARD_LENGTH: self.mlp_widths(),
            Keys.Attention.HEAD_COUNT_KV: [self.n_kv_heads if s else self.full_kv_heads for s in sliding],
            Keys.Attention.KEY_LENGTH: self.rope_head_dim,
            Keys.Attention.VALUE_LENGTH: self.rope_head_dim,
            Keys.Attention.KEY_LENGTH_SWA: self.head_dim,
            Keys.Attention.VALUE_LENGTH_SWA: self.head_dim,
            Keys.Attention.SLIDING_WINDOW: self.integer("sliding_window"),
            Keys.Attention.SLIDING_WINDOW_PATTERN: sliding,
            Keys.Attention.SHARED_KV_LAYERS: self.shared,
            Keys.LLM.EMBD_LENGTH_PER_LAYER_INP: self.per_layer,
            Keys.Rope.DIMENSION_COUNT_SWA: self.head_dim,
            Keys.Rope.FREQ_BASE_SWA: self.plain_local_rope(self.hp),
        }
        if self.hp.get("final_logit_softcapping") is not None:
            keys[Keys.LLM.FINAL_LOGIT_SOFTCAPPING] = self.number("final_logit_softcapping")
        if self.n_experts:
            keys[Keys.LLM.EXPERT_COUNT] = self.n_experts
            keys[Keys.LLM.EXPERT_USED_COUNT] = self.integer("top_k_experts")
            keys[Keys.LLM.EXPERT_FEED_FORWARD_LENGTH] = self.integer("moe_intermediate_size")
        return keys

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, p = self.integer("hidden_size"), self.per_layer
        shapes = super().expected_shapes() | {
            "per_layer_token_embd.weight": (self.vocab_rows, self.n_layers * p),
            "per_layer_model_proj.weight": (self.n_layers * p, d),
            "per_layer_proj_norm.weight": (p,),
            "blk.{i}.inp_gate.weight": (p, d),
            "blk.{i}.proj.weight": (d, p),
            "blk.{i}.post_norm.weight": (d,),
            "blk.{i}.layer_output_scale.weight": (1,),
        }
        for i, (sliding, width) in enumerate(zip(self.is_sliding(), self.mlp_widths(), strict=True)):
            heads = (self.head_dim, self.n_kv_heads) if sliding else (self.rope_head_dim, self.full_kv_heads)
            shapes |= self.layer_shapes(i, *heads, width)
        if self.n_experts:
            n, ff = self.n_experts, self.integer("moe_intermediate_size")
            shapes |= {
                "blk.{i}.ffn_gate_inp.weight": (n, d),
                "blk.{i}.ffn_gate_inp.scale": (d,),
                "blk.{i}.ffn_down_exps.scale": (n,),
                "blk.{i}.ffn_gate_up_exps.weight": (n, 2 * ff, d),
                "blk.{i}.ffn_down_exps.weight": (n, d, ff),
                "blk.{i}.pre_ffw_norm_2.weight": (d,),
                "blk.{i}.post_ffw_norm_1.weight": (d,),
                "blk.{i}.post_ffw_norm_2.weight": (d,),
            }
        return shapes

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        block = tensor.name.split(".")[1]
        shares = block.isdecimal() and int(block) >= self.n_layers - self.shared
        if shares and tensor.name.replace(block, "{i}", 1) in _KEYS_VALUES:
            return []  # left over in some checkpoints; never read
        return tensor

    def tensors(self) -> list[Tensor]:
        tensors = super().tensors()
        have = {t.name for t in tensors}
        wanted = [*(PER_LAYER.values() if self.per_layer else ()), *(_EXPERTS.values() if self.n_experts else ())]
        needed = {ours.replace("{i}", str(i)) for ours in wanted for i in range(self.n_layers)}
        for i, sliding in enumerate(self.is_sliding()[: self.n_layers - self.shared]):
            needed |= {f"blk.{i}.attn_k.weight", f"blk.{i}.attn_k_norm.weight"}
            if sliding or not self.flag("attention_k_eq_v"):
                needed.add(f"blk.{i}.attn_v.weight")
        lost = sorted(needed - have)
        if lost:
            raise CheckpointError(f"the checkpoint lacks the weights of {lost[0]} ({len(lost)} such); a shard is missing")
        return tensors
