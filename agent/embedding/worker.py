"""The child process that computes embeddings with llama.cpp. It may die of a model; its parent, the Embedder, may not.

Messages (agent.children.wire) in: ``load``, ``embed``, ``cancel``. Out: ``progress``
while loading, ``loaded``; of texts that cannot be embedded ``refused``
with the number of the first; else ``vectors``, some texts at a time in their order, and ``end``; or ``failed`` with one line.
"""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from agent.children.computing import ModelWorker
from agent.children.serve import serve
from agent.children.wire import Wire
from agent.engine.llama import Context, ContextSettings, LlamaError, LlamaModel
from agent.errors import SprigError

_ABORTED = 2  # of llama_decode

Row = list[int]  # the tokens of one text


class Refused(Exception):
    """A text cannot be embedded: its number, counted from 0, its tokens, and how many it may have."""


class EmbeddingWorker(ModelWorker):
    """One model, asked for the embeddings of texts."""

    failures = (LlamaError, SprigError)

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self.model: LlamaModel
        self.context: Context
        self._number = 0  # of the request that is computed
        self._most = self._pack = self._at_once = 0
        self._end: Row = []  # what the model wants behind every text

    def run(self) -> None:
        """Until the parent is gone."""
        with contextlib.suppress(EOFError):
            while True:
                self._handle(self._heard.pop(0) if self._heard else self.wire.receive())

    def _handle(self, message: dict[str, Any]) -> None:
        op, number = message.get("op"), message.get("id", 0)
        with self.answering(message):
            try:
                if op == "load":
                    self._load(message)
                elif op == "embed":
                    self._number = number
                    self._embed(message["texts"], bool(message["truncate"]))
                elif op != "cancel":  # of what is over
                    self.unknown(message)
            except Refused as e:
                text, tokens, most = e.args
                self.wire.send({"id": number, "event": "refused", "text": text, "tokens": tokens, "most": most})

    def _load(self, message: dict[str, Any]) -> None:
        told = self.ready_to_load(message)
        self.model = LlamaModel(
            message["path"], repack=message["repack"], on_progress=told, check_weights=message["check_weights"]
        )
        self._most, self._pack, self._at_once = message["most"], message["pack"], message["texts"]
        around = self.model.raw_tokenize("", parse_special=False, add_special=True)
        self._end = around[len(self.model.tokenize([])) :]
        batch, threads = message["batch"], message["threads"]
        settings = ContextSettings(
            max(self._most, batch), self._at_once, batch, threads, threads, cache="f16", flash=message["flash"], embeddings=True,
            pooling=message["pooling"], n_outputs=batch,
        )  # fmt: skip
        self.context = Context(self.model, settings)
        width = self.model.lib.llama_model_n_embd_out(self.model.handle)
        self.wire.send({"id": message["id"], "event": "loaded", "model": {"width": width}})

    def _embed(self, texts: Sequence[str], truncate: bool) -> None:
        for group in self._groups([self._tokens(i, text, truncate) for i, text in enumerate(texts)]):
            vectors = self._compute(group)
            if vectors is None:
                self.wire.send({"id": self._number, "event": "end", "reason": "cancelled"})
                return
            data = base64.b64encode(np.stack(vectors).tobytes()).decode()
            self.wire.send({"id": self._number, "event": "vectors", "data": data})
        self.wire.send({"id": self._number, "event": "end", "reason": "done"})

    def _tokens(self, number: int, text: str, truncate: bool) -> Row:
        """The tokens of a text, with those that the model wants around every text. A mark in it is plain text."""
        ids, end = self.model.tokenize([(text, False)]), self._end
        if truncate:
            ids = ids[: max(0, self._most - len(end))]
        row = ids + end
        if not 0 < len(row) <= self._most:
            raise Refused(number, len(row), self._most)
        return row

    def _groups(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """The texts in their order, as many together as make a good batch."""
        group: list[Row] = []
        for row in rows:
            if group and (len(group) == self._at_once or sum(map(len, group)) + len(row) > self._pack):
                yield group
                group = []
            group.append(row)
        if group:
            yield group

    def _compute(self, group: Sequence[Row]) -> list[Any] | None:
        """The vectors of some texts; None when nobody wants them any more. One alone may be longer than a batch."""
        context, room = self.context, self.context.settings.n_batch
        context.forget()
        pieces = range(0, len(group[0]), room) if len(group) == 1 else range(1)
        for start in pieces:
            context.clear_batch()
            for sequence, row in enumerate(group):
                for position, token in enumerate(row[start : start + room], start):
                    context.add(token, position, sequence, logits=True)
            context.on_abort(partial(self._unwanted, {self._number}))
            try:
                status = context.decode()
            finally:
                context.on_abort(None)
            if status == _ABORTED:
                return None
            if status:
                raise LlamaError(f"llama.cpp's decode ended with status {status}")
        return [context.embedding(sequence).copy() for sequence in range(len(group))]


def main() -> None:
    """Serve the parent."""
    serve(lambda: EmbeddingWorker(Wire(0)).run())


if __name__ == "__main__":
    main()
