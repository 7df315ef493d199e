"""Arcee (AFM-4.5B): Llama without a gate in its MLP, which squares what is above zero."""

from __future__ import annotations

from typing import ClassVar

from pipeline.architectures.shared.decoder import Decoder, sizes


class Arcee(Decoder):
    gguf = "arcee"
    defaults = sizes(2560, 18432, 32, 32, None, 4096, rms_norm_eps=1e-5)
    activations = frozenset({"relu2"})
    names: ClassVar[dict[str, str]] = {theirs: ours for theirs, ours in Decoder.names.items() if "ffn_gate" not in ours}
    interleaved_rope = True
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn", "llama3"})
