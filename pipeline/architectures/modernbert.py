"""ModernBERT: an encoder with RoPE, a gated MLP, and windows in two of three layers."""

from __future__ import annotations

from typing import Any, ClassVar

from gguf import Keys

from agent.errors import UnsupportedError
from agent.text import brief
from pipeline.architectures.shared.decoder import WINDOW_KINDS
from pipeline.architectures.shared.encoder import POOLING, Encoder
from pipeline.architectures.shared.rope import read_rope, rope_keys
from pipeline.format.gguf_file import Value


class ModernBert(Encoder):
    gguf = "modern-bert"
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22, "num_attention_heads": 12,
        "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5, "local_attention": 128,
        "classifier_pooling": "cls",
    }  # fmt: skip
    activations = Encoder.activations | {"silu"}
    activation_key = "hidden_activation"
    names: ClassVar[dict[str, str]] = {
        "embeddings.tok_embeddings.weight": "token_embd.weight",
        "embeddings.norm.weight": "token_embd_norm.weight",
        "final_norm.weight": "output_norm.weight",
        "layers.{i}.attn_norm.weight": "blk.{i}.attn_norm.weight",
        "layers.{i}.attn.Wqkv.weight": "blk.{i}.attn_qkv.weight",
        "layers.{i}.attn.Wo.weight": "blk.{i}.attn_output.weight",
        "layers.{i}.mlp_norm.weight": "blk.{i}.ffn_norm.weight",
        "layers.{i}.mlp.Wi.weight": "blk.{i}.ffn_up.weight",
        "layers.{i}.mlp.Wo.weight": "blk.{i}.ffn_down.weight",
    }
    optional = frozenset({"blk.0.attn_norm.weight"})  # the embedding is normed already
    classifier: ClassVar[dict[str, str]] = {
        "head.dense.weight": "cls.weight", "head.norm.weight": "cls.norm.weight", "classifier.weight": "cls.output.weight",
        "classifier.bias": "cls.output.bias",
    }  # fmt: skip
    ignored: ClassVar[tuple[str, ...]] = (r"^head\.(dense|norm)\.", r"^decoder\.")  # of pre-training

    def normalize(self, name: str) -> str:
        return name.removeprefix("model.")

    def check(self) -> None:
        for flag in ("attention_bias", "mlp_bias", "norm_bias", "classifier_bias"):
            if self.flag(flag):
                raise UnsupportedError(f"config.json sets {flag}; llama.cpp's {self.gguf} has no such biases")
        for key, allowed in (("classifier_activation", ("gelu",)), ("classifier_pooling", tuple(POOLING))):
            if self.hp.get(key) is not None and self.hp[key] not in allowed:
                raise UnsupportedError(f"config.json: {key} is {brief(self.hp[key])}; llama.cpp has {' and '.join(allowed)}")
        super().check()
        for layer in WINDOW_KINDS:
            rope = read_rope(self._rope(layer), self.head_dim, layer)
            if rope.kind not in ("default", "dynamic") or rope.rotated != self.head_dim:
                raise UnsupportedError(f"llama.cpp's {self.gguf} does not scale its RoPE; config.json does")

    def _rope(self, layer: str) -> dict[str, Any]:
        """The hyperparameters with the base of the frequencies of one kind of layer."""
        older, default = ("local_rope_theta", 1e4) if layer == "sliding_attention" else ("global_rope_theta", 1.6e5)
        theta = self.number(older, default=default)
        spelled = self.hp.get("rope_parameters")
        inner = spelled.get(layer) if isinstance(spelled, dict) else None
        return {**self.hp, "rope_parameters": {layer: {"rope_theta": theta, **(inner if isinstance(inner, dict) else {})}}}

    def is_sliding(self) -> list[bool]:
        """Whether each layer sees the window only."""
        every = self.integer("global_attn_every_n_layers", default=3)
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[i % every == 0])
        return [kind == "sliding_attention" for kind in kinds]

    def keys(self) -> dict[str, Value]:
        keys = super().keys() | rope_keys(self._rope("full_attention"), self.head_dim)
        keys[Keys.Rope.FREQ_BASE_SWA] = read_rope(self._rope("sliding_attention"), self.head_dim, "sliding_attention").theta
        keys[Keys.Attention.SLIDING_WINDOW] = self.integer("local_attention")
        keys[Keys.Attention.SLIDING_WINDOW_PATTERN] = self.is_sliding()
        keys["{arch}.hidden_activation"] = str(self.hp["hidden_activation"])
        keys["{arch}.classifier.pooling_type"] = POOLING[str(self.hp["classifier_pooling"])]
        return keys

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("intermediate_size")
        return super().expected_shapes() | {
            "output_norm.weight": (d,),
            "blk.{i}.attn_norm.weight": (d,),
            "blk.{i}.ffn_norm.weight": (d,),
            "blk.{i}.attn_qkv.weight": (3 * d, d),
            "blk.{i}.ffn_up.weight": (2 * ff, d),  # what is put through the activation, then what it is multiplied with
            "cls.norm.weight": (d,),
        }
