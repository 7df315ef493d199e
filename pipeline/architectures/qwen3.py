"""Qwen3: Qwen2 without its biases, with norms on each head's queries and keys. Also Qwen3-Embedding and Qwen3-Reranker."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cached_property

from gguf import Keys, PoolingType

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.qwen2 import QWEN_DEFAULTS, Qwen2
from pipeline.architectures.shared.classifier import classifies, labels
from pipeline.architectures.shared.decoder import QK_NORMS, Decoder
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.format.gguf_file import Value

_RERANKER = re.compile(r"^#+ *qwen3-(vl-)?reranker", re.IGNORECASE | re.MULTILINE)
_ANSWERS = ("yes", "no")
# How Qwen3-Reranker is asked; llama-server puts a query and a document into it.
_QUESTION = (
    "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".<|im_end|>\n'
    "<|im_start|>user\n<Instruct>: Given a web search query, retrieve relevant passages that answer the query\n"
    "<Query>: {query}\n<Document>: {document}<|im_end|>\n"
    "<|im_start|>assistant\n<think>\n\n</think>\n\n"
)


class Qwen3(Qwen2):
    gguf = "qwen3"
    defaults = QWEN_DEFAULTS | {"head_dim": 128}
    names = Decoder.names | QK_NORMS
    square = False
    bias_always = ()
    scores = True

    @cached_property
    def is_reranker(self) -> bool:
        """Whether this is Qwen3-Reranker, which answers yes or no; llama.cpp takes the two rows of the head as a classifier."""
        readme = self.files.get("README.md", b"")[:20_000].decode("utf-8", "replace")
        return "score.weight" not in self.infos and bool(_RERANKER.search(readme))

    @property
    def writes_text(self) -> bool:
        return super().writes_text and not self.is_reranker

    def name_table(self) -> Mapping[str, str]:
        return {**self.names, "score.weight": "cls.output.weight"} if classifies(self.hp) else self.names

    def check(self) -> None:
        super().check()
        if classifies(self.hp) and len(labels(self.hp)) < 2:
            raise UnsupportedError(
                f"the model gives one score (score.weight), and llama.cpp's {self.gguf} puts a softmax over the scores: it would "
                "be 1 for every text; take the reranker that it was made of, which answers yes or no"
            )

    def keys(self) -> dict[str, Value]:
        if not classifies(self.hp) and not self.is_reranker:
            return super().keys()
        named: list[str] = list(_ANSWERS) if self.is_reranker else labels(self.hp)
        return super().keys() | {Keys.LLM.POOLING_TYPE: PoolingType.RANK, Keys.Classifier.OUTPUT_LABELS: named}

    def gguf_keys(self) -> dict[str, Value]:
        if not self.is_reranker:
            return super().gguf_keys()
        return super().gguf_keys() | {
            Keys.Tokenizer.CHAT_TEMPLATE_N.format(name="rerank"): _QUESTION,
            Keys.Tokenizer.CHAT_TEMPLATES: ["rerank"],
        }

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        head = {"cls.output.weight": (len(labels(self.hp)), self.integer("hidden_size"))} if classifies(self.hp) else {}
        return super().expected_shapes() | head

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        if not self.is_reranker:
            return tensors
        head = next((t for t in tensors if t.name == "output.weight"), None)
        head = head or next(t for t in tensors if t.name == "token_embd.weight")
        rows = [self._token(word) for word in _ANSWERS]
        slices = tuple(Slice(head.sources[0].source, row, row + 1) for row in rows)
        scores = Tensor("cls.output.weight", (len(rows), head.row_length), slices, f32=True)
        return [scores, *(t for t in tensors if t.name != "output.weight")]

    def _token(self, word: str) -> int:
        """The id of a word that is one token. Raises CheckpointError."""
        try:
            number = json.loads(self.files.get("tokenizer.json", b"{}"))["model"]["vocab"][word]
        except (ValueError, KeyError, TypeError, RecursionError):
            number = None
        if type(number) is not int or not 0 <= number < self.vocab_rows:
            raise CheckpointError(f"tokenizer.json has no token {word!r}, with which a reranker answers; download it again")
        return number
