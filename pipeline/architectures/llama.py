"""Llama: Llama 2 and 3.x, SmolLM2, TinyLlama, Mistral, Falcon3 and whatever else is plainly Llama."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pipeline.architectures.decoder import ATTENTION, MLP, Decoder, bias_names, sizes

ATTENTION_BIASES = ("attn_q", "attn_k", "attn_v", "attn_output")
MLP_BIASES = ("ffn_gate", "ffn_up", "ffn_down")


class Llama(Decoder):
    model_types: ClassVar[tuple[str, ...]] = ("llama",)
    gguf = "llama"
    defaults: ClassVar[Mapping[str, Any]] = sizes(4096, 11008, 32, 32, None, 2048)
    names: ClassVar[Mapping[str, str]] = {**Decoder.names, **bias_names(ATTENTION), **bias_names(MLP)}
    interleaved_rope = True
    rope_kinds: ClassVar[frozenset[str]] = frozenset({"default", "linear", "dynamic", "yarn", "llama3", "longrope"})
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ATTENTION_BIASES, "mlp_bias": MLP_BIASES}


class Mistral(Llama):
    """Also the text part of Mistral Small 3.x, whose wrapper is mistral3."""

    model_types: ClassVar[tuple[str, ...]] = ("mistral",)
    defaults: ClassVar[Mapping[str, Any]] = sizes(4096, 14336, 32, 32, 8, 131072, sliding_window=4096)
    names: ClassVar[Mapping[str, str]] = Decoder.names
    ignored: ClassVar[tuple[str, ...]] = (*Llama.ignored, r"^(model\.)?(vision_tower|multi_modal_projector)\.")
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    @property
    def tied(self) -> bool:
        # Where nothing is said, the wrapper's default counts, which is not Mistral's own.
        return self.flag("tie_word_embeddings") if "tie_word_embeddings" in self.hp else bool(self.hp.get("text_config"))

    @property
    def window(self) -> int | None:
        return self._plain_window()
