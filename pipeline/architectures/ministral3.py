"""Ministral 3: Llama with YaRN and queries that grow with the position."""

from __future__ import annotations

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.mistral import Mistral
from pipeline.architectures.shared.base import positive
from pipeline.architectures.shared.decoder import sizes
from pipeline.architectures.shared.rope import read_rope, rope_parameters
from pipeline.format.gguf_file import Value


class Ministral3(Mistral):
    gguf = "mistral3"
    defaults = sizes(
        4096, 14336, 34, 32, 8, 262144, head_dim=128, rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0, "original_max_position_embeddings": 16384,
            "beta_fast": 32.0, "beta_slow": 1.0, "mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.1,
        },
    )  # fmt: skip

    rope_kinds = frozenset({"yarn"})

    def check(self) -> None:
        super().check()
        p = rope_parameters(self.hp)
        if p.get("llama_4_scaling_beta") is None or p.get("original_max_position_embeddings") is None:
            raise UnsupportedError("ministral3 needs llama_4_scaling_beta and original_max_position_embeddings")

    def keys(self) -> dict[str, Value]:
        # llama.cpp counts the growth in steps of the original context, as transformers does.
        p = rope_parameters(self.hp)
        return super().keys() | {
            Keys.Attention.TEMPERATURE_SCALE: positive("llama_4_scaling_beta", p["llama_4_scaling_beta"]),
            Keys.Rope.SCALING_ORIG_CTX_LEN: read_rope(self.hp, self.head_dim).original_context,
        }
