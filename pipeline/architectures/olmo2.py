"""OLMo 2 and 3: norms after each part instead of before it, and over all queries and all keys of a token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.base import Tensor
from pipeline.architectures.decoder import ATTENTION, MLP, QK_NORMS, TRUNK, WINDOW_KINDS, Decoder, sizes
from pipeline.architectures.rope import rope_parameters
from pipeline.format.gguf_file import Value


class OwnHead(Decoder):
    """A family for which llama.cpp demands output.weight: a tied head is written as a copy of the embedding."""

    @property
    def tied(self) -> bool:
        return False

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        if super().tied and all(t.name != "output.weight" for t in tensors):
            embedding = next(t for t in tensors if t.name == "token_embd.weight")
            tensors.append(replace(embedding, name="output.weight"))
        return tensors


class Olmo2(OwnHead):
    model_types: ClassVar[tuple[str, ...]] = ("olmo2",)
    gguf = "olmo2"
    defaults: ClassVar[Mapping[str, Any]] = sizes(4096, 11008, 32, 32, None, 2048, rms_norm_eps=1e-5)
    names: ClassVar[Mapping[str, str]] = {
        **TRUNK, **ATTENTION, **QK_NORMS, **MLP,
        "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.post_attention_norm.weight",
        "model.layers.{i}.post_feedforward_layernorm.weight": "blk.{i}.post_ffw_norm.weight",
    }  # fmt: skip
    square = True

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return super().expected_shapes() | {
            "blk.{i}.attn_q_norm.weight": (d,),
            "blk.{i}.attn_k_norm.weight": (self.n_kv_heads * self.head_dim,),
            "blk.{i}.post_attention_norm.weight": (d,),
            "blk.{i}.post_ffw_norm.weight": (d,),
        }


class Olmo3(Olmo2):
    """Three layers of four with a window; these keep plain RoPE where the others have YaRN."""

    model_types: ClassVar[tuple[str, ...]] = ("olmo3",)
    defaults: ClassVar[Mapping[str, Any]] = {**Olmo2.defaults, "sliding_window": 4096, "rope_theta": 5e5}

    @property
    def window(self) -> int | None:
        return self._plain_window()

    @property
    def windowed(self) -> bool:
        return True

    def check(self) -> None:
        super().check()
        local = rope_parameters(self.hp, "sliding_attention")
        both = rope_parameters(self.hp, "full_attention")
        if local is not both and local.get("rope_theta") != both.get("rope_theta"):
            raise UnsupportedError("llama.cpp's olmo2 has one rope_theta for all layers; config.json has two")

    def keys(self) -> dict[str, Value]:
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[(i + 1) % 4 == 0])
        if self.window is None:
            raise CheckpointError("config.json: olmo3 needs a sliding_window")
        return super().keys() | {
            Keys.Attention.SLIDING_WINDOW: self.window,
            Keys.Attention.SLIDING_WINDOW_PATTERN: [kind == "sliding_attention" for kind in kinds],
        }
