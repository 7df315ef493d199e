"""XLM-RoBERTa: RoBERTa for a hundred languages (bge-m3, multilingual-e5, bge-reranker)."""

from __future__ import annotations

from typing import Any, ClassVar

from pipeline.architectures.roberta import Roberta


class XlmRoberta(Roberta):
    defaults: ClassVar[dict[str, Any]] = {**Roberta.defaults, "vocab_size": 30522}
