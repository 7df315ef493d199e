"""EuroBERT: Llama's layers, looking both ways."""

from __future__ import annotations

from typing import ClassVar

from gguf import Keys

from pipeline.architectures.shared.decoder import Decoder, sizes
from pipeline.format.gguf_file import Value


class EuroBert(Decoder):
    gguf = "eurobert"
    defaults = sizes(768, 3072, 12, 12, None, 8192, rms_norm_eps=1e-5)
    names: ClassVar[dict[str, str]] = {theirs: ours for theirs, ours in Decoder.names.items() if theirs != "lm_head.weight"}
    ignored = (*Decoder.ignored, r"^lm_head\.")
    rope_kinds = frozenset({"default", "dynamic"})
    square = True

    @property
    def tied(self) -> bool:
        return True  # no head

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.Attention.CAUSAL: False}
