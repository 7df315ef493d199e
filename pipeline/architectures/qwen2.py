"""Qwen2 and Qwen2.5: biases on queries, keys and values, always."""

from __future__ import annotations

from typing import ClassVar

from pipeline.architectures.shared.decoder import ATTENTION, WINDOW_KINDS, Decoder, bias_names, sizes

QWEN_DEFAULTS = sizes(4096, 22016, 32, 32, 32, 32768, sliding_window=4096, max_window_layers=28)


class Qwen2(Decoder):
    gguf = "qwen2"
    has_window = "if used"
    defaults = QWEN_DEFAULTS
    names = Decoder.names | bias_names({k: v for k, v in ATTENTION.items() if "o_proj" not in k})
    square = True
    bias_always: ClassVar[tuple[str, ...]] = ("attn_q", "attn_k", "attn_v")

    @property
    def window(self) -> int | None:
        first = self.integer("max_window_layers", default=0, least=0)
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[i < first])
        return super().window if "sliding_attention" in kinds else None
