"""Gemma 3 (text part): Gemma 2 with norms on queries and keys instead of soft caps, and a RoPE of its own for windows."""

from __future__ import annotations

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.gemma2 import Gemma2
from pipeline.architectures.shared.decoder import QK_NORMS, Decoder, sizes
from pipeline.format.gguf_file import Value


class Gemma3(Gemma2):
    gguf = "gemma3"
    defaults = sizes(
        2304, 9216, 26, 8, 4, 131072, head_dim=256, sliding_window=4096, query_pre_attn_scalar=256, tie_word_embeddings=True,
        rope_theta=1e6,
    )  # fmt: skip
    names = Gemma2.names | QK_NORMS
    ignored = (*Gemma2.ignored, r"^(model\.)?(vision_tower|multi_modal_projector)\.")
    rope_kinds = frozenset({"default", "dynamic", "linear"})
    deepest = 62

    def is_sliding(self) -> list[bool]:
        return self.sliding_layers(self.integer("sliding_window_pattern", default=6))

    def check_head(self) -> None:
        if self.hp.get("attn_logit_softcapping") is not None:
            raise UnsupportedError("config.json sets attn_logit_softcapping; llama.cpp's gemma3 has none")

    def keys(self) -> dict[str, Value]:
        keys = Decoder.keys(self)
        if any(self.is_sliding()):
            keys |= {**self.window_keys(), Keys.Rope.FREQ_BASE_SWA: self.local_rope()}
        if self.hp.get("final_logit_softcapping") is not None:
            keys[Keys.LLM.FINAL_LOGIT_SOFTCAPPING] = self.number("final_logit_softcapping")
        return keys

    def local_rope(self) -> float:
        """Base of the frequencies in the layers with a window."""
        base = self.number("rope_local_base_freq", default=10000.0)
        spelled = self.hp.get("rope_parameters")
        if not isinstance(spelled, dict) or not isinstance(spelled.get("sliding_attention"), dict):
            return base
        return self.plain_local_rope({**self.hp, "rope_theta": base, "rope_scaling": None})
