"""Qwen3: Qwen2 without its biases, with norms on each head's queries and keys."""

from __future__ import annotations

from pipeline.architectures.qwen2 import QWEN_DEFAULTS, Qwen2
from pipeline.architectures.shared.decoder import QK_NORMS, Decoder


class Qwen3(Qwen2):
    gguf = "qwen3"
    defaults = QWEN_DEFAULTS | {"head_dim": 128}
    names = Decoder.names | QK_NORMS
    square = False
    bias_always = ()
