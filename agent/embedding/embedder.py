"""The handle of one loaded embedding model: texts in, vectors out. llama.cpp runs in a child process, agent.embedding.worker."""

from __future__ import annotations

import base64
import contextlib
import logging
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.device.processor import choose_threads
from agent.embedding.plan import TEXTS, plan_embedding
from agent.embedding.prompts import prompts_of
from agent.engine.connection import Request, WorkerConnection
from agent.engine.model_process import ModelProcess
from agent.engine.until import FOREVER, Until
from agent.errors import EngineError, SprigError, Unanswered
from agent.models.file import ModelFile, read_model
from agent.models.find import find_model
from agent.models.memory import MemoryBudget, flash_attention

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Vectors = npt.NDArray[np.float32]

log = logging.getLogger(__name__)

_WORKER = "agent.embedding.worker"
_TOGETHER = 256  # texts of one message
_POOLINGS = {"mean": 1, "cls": 2, "last": 3}  # enum llama_pooling_type


class Embedder(ModelProcess, contextlib.AbstractContextManager["Embedder"]):
    """One embedding model, loaded once. Any thread may use it.

    Args:
        model: a GGUF, or the name of one in the store.
        pooling: how one vector comes of all tokens, "mean", "cls" or "last", where the file does not say: that of a chat model.
        context: tokens that one text may have; by default 2048, less where the model was trained for less or memory is short.
        threads: of the computation; by default one for each big core that this process may use.
        memory: bytes that may be used; by default 70 % of what the machine has free.

    Attributes:
        file: facts of the model.
        context: tokens that one text may have.
        prompts: what the model wants put before a "query" and before a "document"; often nothing. For ``embed(prompt=...)``.
        pooling: how one vector comes of all tokens.

    Raises:
        SprigError: there is no such model, it gives no vectors, llama.cpp would abort over it, or it does not fit the memory.
    """

    kind = "embedder"

    def __init__(
        self,
        model: str | Path,
        *,
        pooling: str | None = None,
        context: int | None = None,
        threads: int | None = None,
        memory: int | None = None,
    ) -> None:
        path = find_model(model)
        super().__init__(_WORKER)
        try:
            self.file = read_model(path)
            self.pooling = _pooling(self.file, pooling)
            self.prompts: Mapping[str, str] = prompts_of(self.file)
            plan = plan_embedding(self.file, MemoryBudget.of(memory), pooling=self.pooling, context=context)
            self.context = plan.context
            chosen = choose_threads(wanted=threads)
            log.info("%s: texts of %d tokens, %d in a batch, %d threads", path, plan.context, plan.pack, chosen.prefill)
            message = {
                "op": "load", "path": str(path), "repack": plan.repack, "cores": chosen.cores, "threads": chosen.prefill,
                "flash": flash_attention("f16"), "pooling": _POOLINGS[self.pooling],
                "most": plan.context, "batch": plan.batch, "pack": plan.pack,
                "texts": 1 if self.file.state else TEXTS,  # llama.cpp may cut a recurrent model's texts into unequal parts
            }  # fmt: skip
            self._load_model(message)
        except BaseException:
            self.close()
            raise

    @property
    def width(self) -> int:
        """Numbers of a vector. Waits until the model is loaded, as ``wait`` does."""
        return int(self._ready(FOREVER)[1]["width"])

    @property
    def identity(self) -> str:
        """Changes with the model and with what decides its vectors: those of two identities cannot be compared."""
        return f"{self.file.identity} {self.pooling}"

    def wait(self, timeout: float | None = None, cancelled: threading.Event | None = None) -> None:
        """Wait until the model is loaded. EngineError when it cannot be, SprigError when it is not within so many seconds."""
        try:
            self._ready(_until(timeout, cancelled))
        except Unanswered as e:
            raise _given_up("the model was not loaded", e, timeout) from None

    def embed(
        self,
        texts: Sequence[str] | str,
        *,
        prompt: str = "",
        normalise: bool = True,
        truncate: bool = False,
        seconds: float | None = None,
        cancelled: threading.Event | None = None,
    ) -> Vectors:
        """The vectors of some texts, float32 [n, width], in their order; [0, width] of none.

        Args:
            texts: any number; one alone counts as a list of one. Of an empty text the model sees what it puts around every text.
            prompt: put before each, as many models want it: ``prompts`` has it for those that are known.
            normalise: make each vector 1 long, so that the product of two is their cosine.
            truncate: take the beginning of a text that is longer than ``context`` tokens, instead of refusing it.
            seconds: limit on all of it.
            cancelled: set from any thread, it ends the work within a batch.

        Raises:
            SprigError: a text is too long, or is empty and the model makes no token of it (``texts[i]`` is named); time was up;
                it was cancelled.
            EngineError: the model could not be loaded, or its process died; it starts again at the next call.
        """
        import numpy as np

        texts = [texts] if isinstance(texts, str) else list(texts)
        if (wrong := next((i for i, text in enumerate(texts) if not isinstance(text, str)), None)) is not None:
            raise SprigError(f"texts[{wrong}] is {type(texts[wrong]).__name__} and must be a text")
        until = _until(seconds, cancelled)
        try:
            connection, loaded = self._ready(until)
            width = int(loaded["width"])
            parts = [np.empty((0, width), np.float32)]
            for start in range(0, len(texts), _TOGETHER):
                some = [prompt + text for text in texts[start : start + _TOGETHER]]
                for message in _answers(connection, {"op": "embed", "texts": some, "truncate": truncate}, until):
                    if message["event"] == "refused":
                        raise SprigError(self._refusal(start + message["text"], message["tokens"], message["most"]))
                    parts.append(np.frombuffer(base64.b64decode(message["data"]), np.float32).reshape(-1, width))
        except Unanswered as e:
            raise _given_up("the texts were not embedded", e, seconds) from None
        vectors = np.concatenate(parts)
        if not np.isfinite(vectors).all():
            raise EngineError(f"{self.file.name} gave a vector that holds NaN or infinity; get or make another file of it")
        return normalised(vectors) if normalise else vectors

    def _refusal(self, text: int, tokens: int, most: int) -> str:
        if not tokens:
            return f"texts[{text}] is empty, and {self.file.name} makes no token of that; leave it out"
        longer = f"; context={self.file.n_ctx_train} takes more" if most < self.file.n_ctx_train else ""
        return (
            f"texts[{text}] has {tokens} tokens, and {self.file.name} takes {most} at once here: cut it, or take its beginning "
            f"with truncate=True{longer}"
        )

    @staticmethod
    def similarity(a: Vectors, b: Vectors) -> Vectors:
        """The cosines, float32 [n, m], of vectors [n, width] with [m, width]: 1 for one direction, -1 for the opposite."""
        return normalised(a) @ normalised(b).T


def _until(seconds: float | None, cancelled: threading.Event | None) -> Until:
    return Until(cancelled, None if seconds is None else time.monotonic() + seconds)


def _given_up(what: str, error: Unanswered, seconds: float | None) -> SprigError:
    if error.reason == "cancelled":
        return SprigError(f"{what}: it was cancelled")
    return SprigError(f"{what} within {seconds:g} s; give it more time, or fewer texts at once")


def _answers(connection: WorkerConnection, message: Mapping[str, Any], until: Until) -> Iterator[dict[str, Any]]:
    """What the worker says before its last word. Unanswered when nobody wants to wait any more; the worker is told then."""
    if reason := until.over():
        raise Unanswered(reason, "the texts were not embedded")
    request = connection.ask(message, Request)
    over = False
    try:
        while not over:
            answer = request.answer(until)
            over = answer["event"] in ("end", "refused")
            if answer["event"] == "end":
                if answer["reason"] != "done":
                    raise Unanswered(answer["reason"], "the texts were not embedded")
                return
            yield answer
    finally:
        if not over:
            with contextlib.suppress(EngineError):
                request.cancel()


def normalised(vectors: Vectors) -> Vectors:
    """The same directions, each 1 long; a vector of zeros stays one."""
    import numpy as np

    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    result: Vectors = (vectors / np.maximum(lengths, np.finfo(np.float32).tiny)).astype(np.float32)
    return result


def _pooling(file: ModelFile, wanted: str | None) -> str:
    """How to pool. SprigError where that cannot be known, or gives no vector."""
    if file.pooling == "rank":
        raise SprigError(f"{file.name} is a reranker: it scores pairs of texts and gives no vectors; take an embedding model")
    if wanted is not None and wanted not in _POOLINGS:
        raise SprigError(f"pooling is {wanted!r} and can be mean, cls or last")
    found = wanted or file.pooling
    if not found:
        kind = "a chat model" if file.causal else "a model whose file says no pooling"
        raise SprigError(
            f"{file.name} is {kind}; take an embedding model, or say pooling='mean' (--pooling mean) for the mean of its tokens"
        )
    return found
