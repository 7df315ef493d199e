"""DistilBERT: BERT with half the layers, no token types, and names of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from agent.errors import UnsupportedError
from pipeline.architectures.bert import Bert
from pipeline.architectures.shared.classifier import classifies
from pipeline.architectures.shared.encoder import EMBEDDINGS, weights_and_biases


class DistilBert(Bert):
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072, "activation": "gelu",
        "max_position_embeddings": 512, "type_vocab_size": 1,
    }  # fmt: skip
    aliases: ClassVar[Mapping[str, str]] = {
        "dim": "hidden_size", "n_layers": "num_hidden_layers", "n_heads": "num_attention_heads",
        "hidden_dim": "intermediate_size",
    }  # fmt: skip
    names = EMBEDDINGS | weights_and_biases({
        "transformer.layer.{i}.attention.q_lin": "blk.{i}.attn_q",
        "transformer.layer.{i}.attention.k_lin": "blk.{i}.attn_k",
        "transformer.layer.{i}.attention.v_lin": "blk.{i}.attn_v",
        "transformer.layer.{i}.attention.out_lin": "blk.{i}.attn_output",
        "transformer.layer.{i}.sa_layer_norm": "blk.{i}.attn_output_norm",
        "transformer.layer.{i}.ffn.lin1": "blk.{i}.ffn_up",
        "transformer.layer.{i}.ffn.lin2": "blk.{i}.ffn_down",
        "transformer.layer.{i}.output_layer_norm": "blk.{i}.layer_output_norm",
    })  # fmt: skip
    activation_key = "activation"
    ignored = (r"position_ids$", r"^vocab_(transform|layer_norm|projector)\.")

    def normalize(self, name: str) -> str:
        return name.removeprefix("distilbert.")

    def check(self) -> None:
        self.hp["layer_norm_eps"] = 1e-12  # DistilBERT's own, whatever config.json says
        if classifies(self.hp):
            raise UnsupportedError(
                "DistilBERT's classifier has a ReLU, where llama.cpp's bert computes tanh: scores would differ"
            )
        super().check()
