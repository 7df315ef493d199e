"""Llama: Llama 2 and 3.x, SmolLM2, TinyLlama, Falcon3 and whatever else is plainly Llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pipeline.architectures.shared.decoder import ATTENTION, MLP, Decoder, bias_names, sizes

ATTENTION_BIASES = ("attn_q", "attn_k", "attn_v", "attn_output")
MLP_BIASES = ("ffn_gate", "ffn_up", "ffn_down")


class Llama(Decoder):
    gguf = "llama"
    defaults = sizes(4096, 11008, 32, 32, None, 2048)
    names = Decoder.names | bias_names(ATTENTION) | bias_names(MLP)
    interleaved_rope = True
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn", "llama3", "longrope"})
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ATTENTION_BIASES, "mlp_bias": MLP_BIASES}
