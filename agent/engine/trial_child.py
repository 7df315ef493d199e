"""The child process of agent.engine.trial. llama.cpp may abort it.

Reads a JSON object from standard input and writes one to standard output: the fields of TrialResult, or {"failed": why}, or
{"missing": why} when llama.cpp itself is not there. Everything that llama.cpp prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from agent.children.computing import confine_to
from agent.children.orphan import end_with_parent
from agent.engine.llama import Context, ContextSettings, LlamaError, LlamaModel
from agent.errors import SprigError

_CONTEXT, _BATCH, _STEPS, _MAX_PROMPT = 256, 32, 2, 8
_OWN_PROMPT = 4  # tokens of "Hello, world" in most vocabularies; one that has only letters would make it many
_LOG_BYTES = 1 << 24  # a model may make llama.cpp talk without end


class _Trial:
    """One model, asked for a few numbers."""

    def __init__(self, model: LlamaModel, threads: int) -> None:
        self.model = model
        arch = model.key("general.architecture")
        pools = model.key(f"{arch}.pooling_type") not in ("", "0")
        self.embeds = pools or model.key(f"{arch}.attention.causal") == "false"
        settings = ContextSettings(
            _CONTEXT, 1, _BATCH, threads, threads, cache="f16", flash=False, embeddings=self.embeds, n_outputs=_BATCH
        )  # fmt: skip
        self.context = Context(model, settings)

    def tokens(self, prompt: list[int]) -> tuple[list[int], bool]:
        """The tokens that the model says next, and whether all numbers were finite; an embedding model says nothing."""
        if self.embeds:
            self._decode(prompt, 0)
            return [], bool(np.isfinite(self.context.embedding()).all())
        if self.model.lib.llama_model_has_encoder(self.model.handle):
            self._fill(prompt, 0)
            prompt = [self.context.encode()]
        ids: list[int] = []
        following, position, finite = prompt, 0, True
        for _ in range(_STEPS):
            self._decode(following, position)
            logits = self.context.logits(-1)
            # A model may forbid tokens with minus infinity, but must leave one to choose.
            finite = finite and not np.isnan(logits).any() and bool(np.isfinite(logits.max()))
            position += len(following)
            following = [int(logits.argmax())]
            ids += following
        return ids, finite

    def _decode(self, ids: Sequence[int], position: int) -> None:
        self._fill(ids, position)
        if status := self.context.decode():
            raise LlamaError(f"decoding ended with status {status}")

    def _fill(self, ids: Sequence[int], position: int) -> None:
        self.context.clear_batch()
        for i, token in enumerate(ids):
            self.context.add(token, position + i, 0, logits=self.embeds or i == len(ids) - 1)


def _answer(path: str, job: dict[str, Any]) -> dict[str, Any]:
    confine_to([path])
    try:
        model = LlamaModel(path, repack=False, check_weights=True)
    except SprigError as e:
        return {"missing": str(e)}
    own = model.raw_tokenize("Hello, world", parse_special=True, add_special=True)[:_OWN_PROMPT]
    prompt = job["prompt"] or own or [0]
    ids, finite = _Trial(model, job["threads"]).tokens(prompt[:_MAX_PROMPT])
    return {
        "ids": ids,
        "text": b"".join(model.piece(token) for token in ids).decode("utf-8", "replace"),
        "finite": finite,
        "probe_ids": [model.raw_tokenize(text.encode("utf-8", "surrogateescape"), parse_special=True) for text in job["probes"]],
        "load_seconds": model.load_seconds,
        "n_vocab": model.n_vocab,
        "description": model.description,
    }


def main() -> None:
    """One model, one answer."""
    end_with_parent(signal.SIGKILL)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (_LOG_BYTES, _LOG_BYTES))
    answers = os.dup(1)
    os.dup2(2, 1)
    job = json.loads(sys.stdin.buffer.read())
    try:
        answer = _answer(sys.argv[1], job)
    except LlamaError as e:
        answer = {"failed": str(e)}
    with os.fdopen(answers, "w") as out:
        out.write(json.dumps(answer))  # json.dump encodes in Python, number by number
    # Nothing is worth freeing, and a destructor of a broken model must not spoil the answer.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
