"""StarCoder 2: LayerNorm, biases everywhere, GELU, no gate in the MLP."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, PRE_NORMS, TRUNK, sizes
from pipeline.architectures.shared.plain import GELU, LayerNormed, with_biases


class StarCoder2(LayerNormed):
    gguf = "starcoder2"
    has_window = "always"
    defaults = sizes(3072, 12288, 30, 24, 2, 4096, norm_epsilon=1e-5, tie_word_embeddings=True, use_bias=True)
    activations = GELU
    names = TRUNK | with_biases({
        "model.norm.weight": "output_norm.weight",
        **PRE_NORMS,
        **ATTENTION,
        "model.layers.{i}.mlp.c_fc.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.mlp.c_proj.weight": "blk.{i}.ffn_down.weight",
    })  # fmt: skip

    def check(self) -> None:
        super().check()
        if not self.flag("use_bias"):
            raise UnsupportedError("config.json says use_bias false; llama.cpp's starcoder2 demands the biases")
