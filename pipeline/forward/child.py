"""The child process of ``pipeline.forward.process``: one model, windows of tokens, the answers to questions about them.

Messages come on standard input and answers go to standard output (``agent.children.wire``); what llama.cpp prints goes to
standard error. A wing that wants more than logits makes a subclass of ``Forward`` and its own ``main``.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent.children.serve import serve
from agent.children.wire import Wire
from agent.engine.llama import Context, ContextSettings, LlamaError, LlamaModel
from agent.engine.worker import peak_resident
from agent.errors import SprigError

_BATCH = 512  # tokens of one computation


class Forward:
    """A loaded model. ``answer`` calls the method named after the question's ``op``, with the question."""

    ops: tuple[str, ...] = ("tokenize", "share", "logits", "memory")

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.model = LlamaModel(message["path"], repack=bool(message.get("repack", True)), check_weights=True)
        self.n_ctx, self.n_outputs = int(message["n_ctx"]), int(message["n_outputs"])
        batch, threads = min(self.n_ctx, _BATCH), int(message["threads"])
        settings = ContextSettings(
            self.n_ctx, 1, batch, threads, threads, cache="f16", flash=True, n_outputs=max(1, min(self.n_outputs, batch))
        )
        self.context = self.make_context(settings)
        self.batch = batch

    def make_context(self, settings: ContextSettings) -> Context:
        """The context that windows are computed in; a subclass may watch the computation."""
        return Context(self.model, settings)

    def loaded(self) -> dict[str, Any]:
        """What the parent is told of the model."""
        lib, vocab = self.model.lib, self.model.vocab
        return {
            "n_vocab": self.model.n_vocab,
            "add_bos": bool(lib.llama_vocab_get_add_bos(vocab)),
            "bos": int(lib.llama_vocab_bos(vocab)),
            "load_seconds": self.model.load_seconds,
            "description": self.model.description,
        }

    def answer(self, message: Mapping[str, Any]) -> dict[str, Any]:
        if message["op"] not in self.ops:
            raise LlamaError(f"there is no {message['op']} here")
        told: dict[str, Any] = getattr(self, message["op"])(message)
        return told

    def tokenize(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {"ids": self.model.raw_tokenize(message["text"], parse_special=message["special"])}

    def share(self, message: Mapping[str, Any]) -> dict[str, Any]:
        with Path(message["path"]).open("r+b") as file:
            self.shared = np.frombuffer(mmap.mmap(file.fileno(), message["size"]), np.float32)
        return {}

    def logits(self, message: Mapping[str, Any]) -> dict[str, Any]:
        n_vocab, first, row = self.model.n_vocab, int(message["first"]), 0
        for start, rows in self.decode(message["ids"], first):
            for i in rows:
                self.shared[row * n_vocab : (row + 1) * n_vocab] = self.context.logits(i - start)
                row += 1
        return {}

    def memory(self, message: Mapping[str, Any]) -> dict[str, Any]:
        return {"peak": peak_resident()}

    def decode(self, ids: Sequence[int], first: int) -> Any:
        """Compute a window from an empty cache, a batch at a time; gives after each its start, and which tokens have logits."""
        if len(ids) > self.n_ctx:
            raise LlamaError(f"a window of {len(ids)} tokens does not fit {self.n_ctx}")
        self.context.forget()
        for start in range(0, len(ids), self.batch):
            self.context.clear_batch()
            part = ids[start : start + self.batch]
            for i, token in enumerate(part, start):
                self.context.add(token, i, 0, logits=i >= first)
            if status := self.context.decode():
                raise LlamaError(f"decoding ended with status {status}")
            yield start, range(max(start, first), start + len(part))


def main(kind: type[Forward] = Forward) -> None:
    """Answer questions until the parent is gone."""
    wire = Wire(0, os.dup(1))
    os.dup2(2, 1)
    forward: Forward | None = None

    def work() -> None:
        nonlocal forward
        while True:
            try:
                message = wire.receive()
            except EOFError:
                return
            try:
                if forward is None:
                    forward = kind(message)
                    told = forward.loaded()
                else:
                    told = forward.answer(message)
            except (LlamaError, SprigError) as e:
                told = {"failed": str(e)}
            wire.send(told)

    serve(work)


if __name__ == "__main__":
    main()
