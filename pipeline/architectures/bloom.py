"""BLOOM: positions as a slope on the scores (ALiBi), LayerNorm right after the embedding, biases, GELU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.plain import GroupedQkv, in_blocks, known_names, with_biases

_PREFIXES = ("word_embeddings", "ln_f", "h.")


class Bloom(GroupedQkv):
    gguf = "bloom"
    rotary = False
    defaults = sizes(64, 0, 2, 8, None, 2048, layer_norm_epsilon=1e-5, tie_word_embeddings=True)
    aliases: ClassVar[Mapping[str, str]] = {
        "n_embed": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
        "seq_length": "max_position_embeddings",
    }  # fmt: skip
    names = (
        {"lm_head.weight": "output.weight"}
        | known_names(_PREFIXES, ["token_embd"])
        | with_biases(
            known_names(
                _PREFIXES,
                ["token_embd_norm", "output_norm", *in_blocks("attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down")],
            )
        )
    )

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads

    @property
    def mlp_width(self) -> int:
        return 4 * self.integer("hidden_size")

    def normalize(self, name: str) -> str:
        return name.removeprefix("transformer.")

    def check(self) -> None:
        super().check()
        if self.flag("apply_residual_connection_post_layernorm"):
            raise UnsupportedError(
                "llama.cpp's bloom adds what came before the norm; apply_residual_connection_post_layernorm is set"
            )

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {"token_embd_norm.weight": (self.integer("hidden_size"),)}
