"""GPT-2: learned positions, LayerNorm, biases, GELU, and matrices that the checkpoint holds transposed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import ClassVar

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.plain import GELU, LayerNormed, in_blocks, known_names, with_biases
from pipeline.architectures.shared.tensor import Tensor

_MATRICES = in_blocks("attn_qkv attn_output ffn_up ffn_down")


class Gpt2(LayerNormed):
    gguf = "gpt2"
    rotary = False
    defaults = sizes(
        768, 0, 12, 12, None, 1024, layer_norm_epsilon=1e-5, tie_word_embeddings=True,
        scale_attn_weights=True, hidden_act="gelu_new",
    )  # fmt: skip
    aliases: ClassVar[Mapping[str, str]] = {
        "n_embd": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
        "n_positions": "max_position_embeddings", "activation_function": "hidden_act",
    }  # fmt: skip
    activations = GELU
    names = (
        {"lm_head.weight": "output.weight"}
        | known_names("transformer.", ["token_embd", "position_embd"])
        | with_biases(known_names("transformer.", ["output_norm", *in_blocks("attn_norm ffn_norm"), *_MATRICES]))
    )
    ignored = (r"\.attn\.(masked_)?bias$",)

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads

    @property
    def mlp_width(self) -> int:
        return self.integer("n_inner", default=4 * self.integer("hidden_size"))

    def normalize(self, name: str) -> str:
        return f"transformer.{name}" if name.startswith(("wte.", "wpe.", "h.", "ln_f.")) else name

    def check(self) -> None:
        super().check()
        if not self.flag("scale_attn_weights") or self.flag("scale_attn_by_inverse_layer_idx"):
            raise UnsupportedError(
                "config.json scales the scores of attention otherwise (scale_attn_weights, scale_attn_by_inverse_layer_idx); "
                "llama.cpp's gpt2 divides them by the root of the head's width"
            )

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().expected_shapes() | {
            "position_embd.weight": (self.integer("max_position_embeddings"), self.integer("hidden_size"))
        }
        for part in _MATRICES:
            shapes[f"{part}.bias"] = shapes[f"{part}.weight"][:1]
            shapes[f"{part}.weight"] = shapes[f"{part}.weight"][::-1]
        return shapes

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        matrix = tensor.name.startswith("blk.") and len(tensor.shape) == 2
        return replace(tensor, shape=tensor.shape[::-1], transposed=True) if matrix else tensor
