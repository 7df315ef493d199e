"""Phi-1, 1.5 and 2: attention and MLP side by side after one LayerNorm, biases everywhere, the head included."""

from __future__ import annotations

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, OwnHead, sizes
from pipeline.architectures.shared.plain import GELU, LayerNormed, with_biases


class Phi(OwnHead, LayerNormed):
    gguf = "phi2"
    defaults = sizes(2048, 8192, 24, 32, None, 2048, layer_norm_eps=1e-5, partial_rotary_factor=0.5)
    activations = GELU
    names = {"model.embed_tokens.weight": "token_embd.weight"} | with_biases({
        "model.final_layernorm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
        "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
        **{theirs: ours for theirs, ours in ATTENTION.items() if "o_proj" not in theirs},
        "model.layers.{i}.self_attn.dense.weight": "blk.{i}.attn_output.weight",
        "model.layers.{i}.mlp.fc1.weight": "blk.{i}.ffn_up.weight",
        "model.layers.{i}.mlp.fc2.weight": "blk.{i}.ffn_down.weight",
    })  # fmt: skip
    partial_rope = True

    def check(self) -> None:
        super().check()
        if self.flag("qk_layernorm"):
            raise UnsupportedError("config.json sets qk_layernorm; llama.cpp's phi2 has no norms on queries and keys")
