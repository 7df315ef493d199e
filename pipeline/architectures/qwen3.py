"""Qwen3: Qwen2 without its biases, with norms on each head's queries and keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.architectures.qwen2 import QWEN_DEFAULTS, Qwen2
from pipeline.architectures.shared.decoder import QK_NORMS, Decoder


class Qwen3(Qwen2):
    gguf = "qwen3"
    defaults: ClassVar[Mapping[str, Any]] = {**QWEN_DEFAULTS, "head_dim": 128}
    names: ClassVar[Mapping[str, str]] = {**Decoder.names, **QK_NORMS}
    square = False
    bias_always: ClassVar[tuple[str, ...]] = ()
