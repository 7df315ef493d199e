"""RoBERTa: BERT whose positions are counted behind the padding token's, and a classifier of two layers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, ClassVar

from gguf import Keys

from agent.errors import CheckpointError
from pipeline.architectures.bert import Bert
from pipeline.architectures.shared.encoder import weights_and_biases
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.format.gguf_file import Value


class Roberta(Bert):
    defaults: ClassVar[dict[str, Any]] = {**Bert.defaults, "vocab_size": 50265, "pad_token_id": 1}
    classifier = weights_and_biases({"classifier.dense": "cls", "classifier.out_proj": "cls.output"})
    ignored = (*Bert.ignored, r"^lm_head\.")

    def normalize(self, name: str) -> str:
        return super().normalize(name.removeprefix("roberta."))

    @property
    def first_position(self) -> int:
        """The row of the first token's position; the rows before it belong to padding."""
        return self.integer("pad_token_id", least=0) + 1

    @property
    def context(self) -> int:
        context = self.integer("max_position_embeddings") - self.first_position
        if context < 1:
            raise CheckpointError("config.json: pad_token_id leaves no row of max_position_embeddings for a text")
        return context

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.LLM.CONTEXT_LENGTH: self.context}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if tensor.name != "position_embd.weight":
            return super().adjust(tensor)
        rows = Slice(tensor.sources[0].source, self.first_position)
        return replace(tensor, shape=(self.context, tensor.row_length), sources=(rows,))
