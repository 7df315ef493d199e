"""The child process of agent.engine.trial: the only module here that loads a model, because llama.cpp may abort it.

Reads a JSON object from standard input and writes one to standard output: the fields of TrialResult, or {"failed": why}, or
{"missing": why} when llama.cpp itself is not there. Everything that llama.cpp prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.engine.llama_import import import_llama
from agent.errors import SprigError

_CONTEXT, _BATCH, _STEPS, _MAX_PROMPT = 256, 32, 2, 8
_RANK_POOLING = 4
_NO_POOLING = 0


class _Failed(Exception):
    """llama.cpp said no, in an orderly way."""


class _Model:
    """One loaded model. Never freed: the process ends with it."""

    def __init__(self, llama: Any, path: str, threads: int) -> None:
        self.llama = llama
        llama.llama_backend_init()
        started = time.monotonic()
        params = llama.llama_model_default_params()
        params.load_mode = llama.LLAMA_LOAD_MODE_MMAP
        params.n_gpu_layers = 0
        # Repacking for the CPU's kernels would copy all weights.
        params.use_extra_bufts = False
        self.model = llama.llama_model_load_from_file(os.fsencode(path), params)
        if not self.model:
            raise _Failed("it was not loaded")
        self.load_seconds = time.monotonic() - started
        self.vocab = llama.llama_model_get_vocab(self.model)
        self.n_vocab: int = llama.llama_vocab_n_tokens(self.vocab)
        self.embedding = self._key(f"{self._key('general.architecture')}.attention.causal") == "false"
        self.context = self._open(threads)

    def _key(self, name: str) -> str:
        buffer = ctypes.create_string_buffer(256)
        length = self.llama.llama_model_meta_val_str(self.model, name.encode("utf-8", "surrogateescape"), buffer, 256)
        return buffer.value.decode("utf-8", "surrogateescape") if length >= 0 else ""

    def _open(self, threads: int) -> Any:
        params = self.llama.llama_context_default_params()
        params.n_ctx, params.n_batch, params.n_ubatch, params.n_seq_max = _CONTEXT, _BATCH, _BATCH, 1
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = self.embedding
        params.offload_kqv = params.op_offload = params.swa_full = False
        params.no_perf = True
        context = self.llama.llama_init_from_model(self.model, params)
        if not context:
            raise _Failed("no context could be made")
        return context

    @property
    def description(self) -> str:
        buffer = ctypes.create_string_buffer(256)
        self.llama.llama_model_desc(self.model, buffer, 256)
        return buffer.value.decode("utf-8", "replace")

    def tokenize(self, text: str, *, add_special: bool) -> list[int]:
        raw = text.encode("utf-8", "surrogateescape")
        room = len(raw) + 16
        for _ in range(2):
            ids = (self.llama.llama_token * room)()
            count = self.llama.llama_tokenize(self.vocab, raw, len(raw), ids, room, add_special, True)
            if count >= 0:
                return list(ids[:count])
            room = -count
        raise _Failed("a text could not be tokenized")

    def pieces(self, ids: Sequence[int]) -> bytes:
        out = b""
        for token in ids:
            room = 64
            for _ in range(2):
                buffer = ctypes.create_string_buffer(room)
                count = self.llama.llama_token_to_piece(self.vocab, token, buffer, room, 0, True)
                if count >= 0:
                    out += buffer.raw[:count]
                    break
                room = -count
        return out

    def run(self, ids: Sequence[int]) -> None:
        tokens = (self.llama.llama_token * len(ids))(*ids)  # the batch points into it
        status = self.llama.llama_decode(self.context, self.llama.llama_batch_get_one(tokens, len(ids)))
        if status:
            raise _Failed(f"decoding ended with status {status}")

    def encode(self, ids: Sequence[int]) -> int:
        """Give the prompt to the encoder; the token with which the decoder starts."""
        tokens = (self.llama.llama_token * len(ids))(*ids)  # the batch points into it
        status = self.llama.llama_encode(self.context, self.llama.llama_batch_get_one(tokens, len(ids)))
        if status:
            raise _Failed(f"encoding ended with status {status}")
        start: int = self.llama.llama_model_decoder_start_token(self.model)
        return start if start >= 0 else int(self.llama.llama_vocab_bos(self.vocab))

    def logits(self) -> npt.NDArray[np.float32]:
        return self._floats(self.llama.llama_get_logits_ith(self.context, -1), self.n_vocab)

    def vector(self) -> npt.NDArray[np.float32]:
        pooling = self.llama.llama_pooling_type(self.context)
        size = self.llama.llama_model_n_embd_out(self.model)
        if pooling == _NO_POOLING:
            return self._floats(self.llama.llama_get_embeddings_ith(self.context, -1), size)
        if pooling == _RANK_POOLING:
            size = self.llama.llama_model_n_cls_out(self.model)
        return self._floats(self.llama.llama_get_embeddings_seq(self.context, 0), size)

    def _floats(self, pointer: Any, count: int) -> npt.NDArray[np.float32]:
        if not pointer:
            raise _Failed("it gave no output")
        return np.ctypeslib.as_array(pointer, (count,)).copy()


def _sound(logits: npt.NDArray[np.float32]) -> bool:
    # A model may forbid tokens with minus infinity, but must leave one to choose.
    return not np.isnan(logits).any() and bool(np.isfinite(logits.max()))


def _try(model: _Model, prompt: list[int]) -> tuple[list[int], bool]:
    """The tokens it says next, and whether all numbers were sound."""
    if model.embedding:
        model.run(prompt)
        return [], bool(np.isfinite(model.vector()).all())
    if model.llama.llama_model_has_encoder(model.model):
        prompt = [model.encode(prompt)]
    ids: list[int] = []
    following, sound = prompt, True
    for _ in range(_STEPS):
        model.run(following)
        logits = model.logits()
        sound = sound and _sound(logits)
        ids.append(int(logits.argmax()))
        following = ids[-1:]
    return ids, sound


def _answer(path: str, job: dict[str, Any]) -> dict[str, Any]:
    try:
        model = _Model(import_llama(), path, job["threads"])
    except SprigError as e:
        return {"missing": str(e)}
    prompt = job["prompt"] or model.tokenize("Hello, world", add_special=True) or [0]
    ids, finite = _try(model, prompt[:_MAX_PROMPT])
    return {
        "ids": ids,
        "text": model.pieces(ids).decode("utf-8", "replace"),
        "finite": finite,
        "probe_ids": [model.tokenize(text, add_special=False) for text in job["probes"]],
        "load_seconds": model.load_seconds,
        "n_vocab": model.n_vocab,
        "description": model.description,
    }


def main() -> None:
    """One model, one answer."""
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 24, 1 << 24))  # the log; a model may make llama.cpp talk without end
    answers = os.dup(1)
    os.dup2(2, 1)
    job = json.loads(sys.stdin.buffer.read())
    try:
        answer = _answer(sys.argv[1], job)
    except _Failed as e:
        answer = {"failed": str(e)}
    with os.fdopen(answers, "w") as out:
        json.dump(answer, out)
    # Nothing is worth freeing, and a destructor of a broken model must not spoil the answer.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
