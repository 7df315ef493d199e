"""BLOOM and its descendants: ALiBi, a norm behind the embedding, biases, GELU, fused projections head by head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.plain import GELU, GroupedQkv, in_blocks, known_names, with_biases


class Bloom(GroupedQkv):
    gguf = "bloom"
    rotary = False
    defaults = sizes(64, 0, 2, 8, None, 2048, layer_norm_epsilon=1e-5, tie_word_embeddings=True, hidden_act="gelu_new")
    aliases: ClassVar[Mapping[str, str]] = {
        "n_embed": "hidden_size", "n_layer": "num_hidden_layers", "n_head": "num_attention_heads",
        "seq_length": "max_position_embeddings",
    }  # fmt: skip
    activations = GELU
    names = (
        {"lm_head.weight": "output.weight"}
        | known_names("word_embeddings", ["token_embd"])
        | with_biases(known_names("word_embeddings_", ["token_embd_norm"]))
        | with_biases(known_names("ln_f", ["output_norm"]))
        | with_biases(known_names("h.", in_blocks("attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down")))
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
                "config.json sets apply_residual_connection_post_layernorm; llama.cpp's bloom adds what comes before the norm"
            )

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        norm = dict.fromkeys(("token_embd_norm.weight", "token_embd_norm.bias"), (self.integer("hidden_size"),))
        return super().expected_shapes() | norm
