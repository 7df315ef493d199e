"""Helium 1 (2B): Llama's graph, and transformers turns neighbouring dimensions as that graph does."""

from __future__ import annotations

from pipeline.architectures.shared.decoder import Decoder, sizes


class Helium(Decoder):
    gguf = "llama"
    defaults = sizes(2560, 7040, 24, 20, 20, 4096, rms_norm_eps=1e-8, head_dim=128, rope_theta=1e5)
