"""The child process of ``pipeline.evaluate.tasks.answering``: how likely a continuation is, and what is said after a text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agent.engine.llama import LlamaError
from pipeline.forward.child import Forward, main

_ROWS = 32  # of logits that are computed at once


class QuestionForward(Forward):
    """What two windows have in common at their beginning is computed once: the choices of a question share most of it."""

    ops = (*Forward.ops, "likelihood", "complete")

    def __init__(self, message: Mapping[str, Any]) -> None:
        super().__init__({**message, "n_outputs": _ROWS})
        self.held: list[int] = []  # tokens in the cache

    def likelihood(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The log-likelihood in nats of the tokens from ``first`` (at least 1) on, after those before them."""
        ids, first = message["ids"], int(message["first"])
        self._hold(ids[: first - 1])
        total = 0.0
        for start in range(first - 1, len(ids) - 1, min(_ROWS, self.batch)):
            part = ids[start : min(start + _ROWS, start + self.batch, len(ids) - 1)]
            self._compute(part, logits=True)
            for row in range(len(part)):
                total += log_probability(self.context.logits(row), ids[start + row + 1])
        return {"value": total}

    def complete(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """The most likely token again and again, until the text ends, a stop text is in it, or it has ``most`` tokens."""
        ids, stops = list(message["ids"]), message["stops"]
        self._hold(ids[:-1])
        token, said = ids[-1], b""
        for _ in range(min(int(message["most"]), self.n_ctx - len(ids))):
            self._compute([token], logits=True)
            token = int(np.argmax(self.context.logits(0)))
            if self.model.ends(token):
                break
            said += self.model.piece(token)
            if any(stop.encode() in said for stop in stops):
                break
        text = said.decode("utf-8", "replace")
        for stop in stops:
            text = text.partition(stop)[0]
        return {"text": text}

    def _hold(self, ids: Sequence[int]) -> None:
        """Bring just these tokens into the cache."""
        if len(ids) + 1 > self.n_ctx:
            raise LlamaError(f"a text of {len(ids) + 1} tokens does not fit {self.n_ctx}")
        common = 0
        while common < min(len(ids), len(self.held)) and ids[common] == self.held[common]:
            common += 1
        if common < len(self.held) and not (self.model.partial_rollback and self.context.remove(0, common)):
            self.context.forget()
            common = 0
        self.held = self.held[:common]
        for start in range(common, len(ids), self.batch):
            self._compute(ids[start : start + self.batch], logits=False)

    def _compute(self, ids: Sequence[int], logits: bool) -> None:
        """Add tokens behind those in the cache. With ``logits``, those of token i are row i."""
        self.context.clear_batch()
        for i, token in enumerate(ids, len(self.held)):
            self.context.add(token, i, 0, logits=logits)
        self.held += ids
        if status := self.context.decode():
            self.held = []
            self.context.forget()
            raise LlamaError(f"decoding ended with status {status}")


def log_probability(logits: Any, token: int) -> float:
    """Natural logarithm of a token's probability under the softmax of float32 ``logits`` [n_vocab]."""
    top = float(logits.max())
    return float(logits[token]) - top - float(np.log(np.exp(logits - top, dtype=np.float64).sum()))


if __name__ == "__main__":
    main(QuestionForward)
