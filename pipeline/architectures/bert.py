"""BERT: an encoder that gives an embedding per token, or with a classifier on top a score."""

from __future__ import annotations

import re
from typing import Any, ClassVar

from agent.errors import UnsupportedError
from pipeline.architectures.shared.encoder import EMBEDDINGS, LAYERS, Encoder, weights_and_biases


class Bert(Encoder):
    gguf = "bert"
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    names = EMBEDDINGS | LAYERS | {"embeddings.token_type_embeddings.weight": "token_types.weight"}
    # Between the first token's vector and the classifier stand a dense layer and tanh, which config.json calls the pooler.
    classifier: ClassVar[dict[str, str]] = weights_and_biases({"pooler.dense": "cls", "classifier": "cls.output"})
    # The heads of pre-training are no part of an embedding.
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$", r"^pooler\.", r"^cls\.(predictions|seq_relationship)\.")

    def normalize(self, name: str) -> str:
        name = name.removeprefix("bert.")
        return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))

    def check(self) -> None:
        super().check()
        if self.hp.get("position_embedding_type", "absolute") != "absolute":
            raise UnsupportedError("llama.cpp's bert has absolute positions only; position_embedding_type is another")
        if self.flag("is_decoder"):
            raise UnsupportedError("config.json makes a decoder of BERT (is_decoder); llama.cpp has the encoder only")
