"""EXAONE 3 and 3.5: Llama under names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipeline.architectures.shared.decoder import Decoder, sizes
from pipeline.architectures.shared.plain import in_blocks, known_names


class Exaone(Decoder):
    gguf = "exaone"
    defaults = sizes(4096, 14336, 32, 32, 8, 4096, rms_norm_eps=1e-5, head_dim=128, rope_theta=5e5)
    aliases: ClassVar[Mapping[str, str]] = {
        "num_layers": "num_hidden_layers", "layer_norm_epsilon": "rms_norm_eps", "activation_function": "hidden_act",
    }  # fmt: skip
    names = {"lm_head.weight": "output.weight"} | known_names(
        "transformer.",
        [
            "token_embd",
            "output_norm",
            *in_blocks("attn_norm attn_q attn_k attn_v attn_output ffn_norm ffn_gate ffn_up ffn_down"),
        ],
    )
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn", "llama3"})
