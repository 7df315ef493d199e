"""The child process of ``pipeline.refine.refine``: the original and a rounded file compute the same text in step.

All windows are one batch. Whenever both have an input, and before the rounded file's weights are multiplied with it, these are
rounded again and written into the file, which llama.cpp has mapped: it goes on with the new ones.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from queue import Empty, Full, Queue
from typing import Any

from agent.engine.llama import Context, ContextSettings, LlamaError
from pipeline.format.ggml import Floats
from pipeline.forward.child import Forward, main
from pipeline.refine.again import RoundingAgain
from pipeline.refine.watch import InputWatch

_EVERY = 4  # of so many tokens one has logits: a model computes its last layer for these alone
_LOOK_SECONDS = 0.5


class _Watched(Forward):
    """A model that computes all windows at once, and stops at inputs."""

    def __init__(self, message: Mapping[str, Any]) -> None:
        self.windows: list[list[int]] = message["windows"]
        self.watch = InputWatch(message["weights"])
        super().__init__(message)

    def make_context(self, settings: ContextSettings) -> Context:
        tokens = sum(map(len, self.windows))
        rows = -(-tokens // _EVERY)
        wanted = replace(settings, n_ctx=tokens, n_seq=len(self.windows), n_batch=tokens, n_outputs=rows)
        return Context(self.model, wanted, self.watch)

    def read(self, windows: list[list[int]]) -> None:
        """Compute windows, each a sequence of its own, as one batch."""
        self.context.forget()
        self.context.clear_batch()
        for sequence, ids in enumerate(windows):
            for position, token in enumerate(ids):
                self.context.add(token, position, sequence, logits=self.context.count % _EVERY == 0)
        status = self.context.decode()
        if self.watch.error is not None:
            raise LlamaError(f"its activations cannot be read: {self.watch.error}") from self.watch.error
        if status:
            raise LlamaError(f"decoding ended with status {status}")


class InStep(_Watched):
    """The rounded file, with the original beside it."""

    ops = (*Forward.ops, "again")

    def __init__(self, message: Mapping[str, Any]) -> None:
        os.environ["NUMBA_CACHE_DIR"] = message["compiled"]  # read by numba when it is imported, which is later
        super().__init__(message)
        self.original = _Watched({**message, "path": message["original"]})
        self.rounding = RoundingAgain(Path(message["path"]), Path(message["original"]), int(message["threads"]))
        self.waiting: Queue[tuple[str, Floats] | Exception] = Queue(1)
        self.over = threading.Event()

    def again(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Round all weights again; the names of those that changed."""
        for one in (self, self.original):
            one.read([one.windows[0][:32]])
        if self.watch.inputs != self.original.watch.inputs or not self.watch.inputs:
            raise LlamaError("the two files do not compute the same")
        self.original.watch.on_input, self.watch.on_input = self._given, self._met
        beside = threading.Thread(target=self._read_original, daemon=True)
        beside.start()
        try:
            self.read(self.windows)
        finally:
            self.over.set()
            beside.join()
        if self.rounding.seen != set(self.watch.inputs):
            raise LlamaError("an input was not met")
        return {"changed": self.rounding.changed, "tensors": self.rounding.tensors}

    def _read_original(self) -> None:
        try:
            self.original.read(self.windows)
        except Exception as e:
            self._put(e)

    def _given(self, label: str, rows: Floats) -> bool:
        return self._put((label, rows.copy()))

    def _put(self, what: tuple[str, Floats] | Exception) -> bool:
        while not self.over.is_set():
            try:
                self.waiting.put(what, timeout=_LOOK_SECONDS)
            except Full:
                continue
            return True
        return False

    def _met(self, label: str, rows: Floats) -> bool:
        try:
            given = self.waiting.get(timeout=3600)
        except Empty:
            raise LlamaError("the original does not answer") from None
        if isinstance(given, Exception):
            raise given
        if given[0] != label or given[1].shape != rows.shape:
            raise LlamaError(f"the original computes {given[0]} where the file computes {label}")
        return self.rounding.input(label, self.watch.inputs[label], given[1], rows, [len(w) for w in self.windows], _EVERY)


if __name__ == "__main__":
    main(InStep)
