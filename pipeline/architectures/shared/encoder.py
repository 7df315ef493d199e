"""Encoders of BERT's kind: they see a text as a whole and give an embedding per token, or one score for the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gguf import Keys, PoolingType

from agent.errors import CheckpointError
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.classifier import classifies, labels
from pipeline.architectures.shared.plain import GELU
from pipeline.format.gguf_file import Value


def weights_and_biases(table: Mapping[str, str]) -> dict[str, str]:
    """Each line of the table twice: for the weight and for the bias."""
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in table.items() for kind in ("weight", "bias")}


EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    **weights_and_biases({"embeddings.LayerNorm": "token_embd_norm"}),
}
LAYERS = weights_and_biases({
    "encoder.layer.{i}.attention.self.query": "blk.{i}.attn_q",
    "encoder.layer.{i}.attention.self.key": "blk.{i}.attn_k",
    "encoder.layer.{i}.attention.self.value": "blk.{i}.attn_v",
    "encoder.layer.{i}.attention.output.dense": "blk.{i}.attn_output",
    "encoder.layer.{i}.attention.output.LayerNorm": "blk.{i}.attn_output_norm",
    "encoder.layer.{i}.intermediate.dense": "blk.{i}.ffn_up",
    "encoder.layer.{i}.output.dense": "blk.{i}.ffn_down",
    "encoder.layer.{i}.output.LayerNorm": "blk.{i}.layer_output_norm",
})  # fmt: skip
POOLING = {"mean": PoolingType.MEAN, "cls": PoolingType.CLS}  # how a classifier makes one vector of all tokens


class Encoder(Architecture):
    """Attention in both directions, no head for words.

    ``classifier``: the tensors of a head that gives scores, of the first token's vector ("cls") to its labels ("cls.output").
    """

    activations = GELU
    classifier: ClassVar[Mapping[str, str]] = {}

    @property
    def head_dim(self) -> int:
        return self.integer("hidden_size") // self.n_heads

    @property
    def token_types(self) -> int:
        """Kinds of tokens, of which llama.cpp adds the first one's vector to every token."""
        return self.integer("type_vocab_size", default=1)

    @property
    def tied(self) -> bool:
        return False  # no head

    def name_table(self) -> Mapping[str, str]:
        return {**self.names, **self.classifier} if classifies(self.hp) else self.names

    def check(self) -> None:
        super().check()
        if self.integer("hidden_size") % self.n_heads:
            raise CheckpointError(f"config.json: hidden_size is no multiple of {self.n_heads} heads")

    def keys(self) -> dict[str, Value]:
        keys = super().keys() | {
            Keys.Attention.LAYERNORM_EPS: self.number("layer_norm_eps", "norm_eps"),
            Keys.Attention.CAUSAL: False,
            Keys.LLM.VOCAB_SIZE: self.vocab_rows,
        }
        if classifies(self.hp):
            keys |= {Keys.LLM.POOLING_TYPE: PoolingType.RANK, Keys.Classifier.OUTPUT_LABELS: labels(self.hp)}
        return keys

    def gguf_keys(self) -> dict[str, Value]:
        keys = super().gguf_keys()
        return keys | {Keys.Tokenizer.TOKEN_TYPE_COUNT: self.token_types} if "type_vocab_size" in self.hp else keys

    def notes(self) -> list[str]:
        notes = super().notes()
        if classifies(self.hp) and "type_vocab_size" in self.hp and self.token_types > 1:
            notes.append(
                "llama.cpp gives every token the type 0: what was trained on pairs of texts, types 0 and 1, scores otherwise"
            )
        return notes

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("intermediate_size")
        return {
            "token_embd.weight": (self.vocab_rows, d),
            "position_embd.weight": (self.integer("max_position_embeddings"), d),
            "token_types.weight": (self.token_types, d),
            "cls.weight": (d, d),
            "cls.output.weight": (len(labels(self.hp)), d),
            "blk.{i}.ffn_up.weight": (ff, d),
            "blk.{i}.ffn_down.weight": (d, ff),
            **{f"blk.{{i}}.{part}.weight": (d, d) for part in ("attn_q", "attn_k", "attn_v", "attn_output")},
            **{f"{norm}.weight": (d,) for norm in ("token_embd_norm", "blk.{i}.attn_output_norm", "blk.{i}.layer_output_norm")},
        }
