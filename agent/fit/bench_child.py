"""The child process of agent.fit.bench: one model, one way to compute, the seconds of each run.

Reads a JSON object from standard input and writes one to standard output: {"prefill": [tokens/s ...], "decode": [...], "load": s,
"resident": bytes, "peak": bytes}, or {"failed": why}. Everything that llama.cpp prints goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

from agent.children.computing import confine_to
from agent.children.orphan import end_with_parent
from agent.engine.llama import Context, ContextSettings, LlamaModel
from agent.engine.worker import peak_resident, resident
from agent.errors import SprigError


def _measure(job: dict[str, Any]) -> dict[str, Any]:
    start = time.monotonic()
    confine_to([job["path"]])
    model = LlamaModel(job["path"], repack=job["repack"])
    context = Context(model, ContextSettings(**job["context"]))
    load = time.monotonic() - start
    draw = random.Random(1)
    tokens = [draw.randrange(model.n_vocab) for _ in range(max(job["prompt"], job["generate"], 1))]
    before = [draw.randrange(model.n_vocab) for _ in range(job["depth"])]
    clock = time.thread_time if job["own_time"] else time.monotonic
    rates: dict[str, list[float]] = {"prefill": [], "decode": []}
    for turn in range(job["repeat"] + 1):  # the first one only wakes everything up
        for what, count, at_once in (("prefill", job["prompt"], context.settings.n_batch), ("decode", job["generate"], 1)):
            if count:
                done, seconds = 0, 0.0
                while not done or (turn and seconds < job["least"]):
                    seconds += _run(context, before, tokens[:count] if turn else tokens[:8], at_once, clock)
                    done += count
                rates[what] += [done / seconds] if turn else []
    return {**rates, "load": load, "resident": resident(), "peak": peak_resident()}


def _run(context: Context, before: list[int], tokens: list[int], at_once: int, clock: Callable[[], float]) -> float:
    """Seconds to compute tokens after others, so many at once."""
    if context.position_max(0) < len(before) or not context.remove(0, len(before)):
        context.remove(0, 0)
        _compute(context, before, 0, context.settings.n_batch)
    start = clock()
    _compute(context, tokens, len(before), at_once)
    return clock() - start


def _compute(context: Context, tokens: list[int], first: int, at_once: int) -> None:
    for at in range(0, len(tokens), at_once):
        context.clear_batch()
        part = tokens[at : at + at_once]
        for i, token in enumerate(part):
            context.add(token, first + at + i, 0, logits=i == len(part) - 1)
        if status := context.decode():
            raise SprigError(f"llama.cpp ended a batch with status {status}")


def main() -> None:
    end_with_parent(signal.SIGKILL)
    job = json.load(sys.stdin)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    if job["cores"]:
        with contextlib.suppress(OSError, AttributeError):
            os.sched_setaffinity(0, job["cores"])  # ggml's threads inherit it
    try:
        found = _measure(job)
    except Exception as e:
        found = {"failed": " ".join(str(e).split()) or type(e).__name__}
    json.dump(found, out)
    out.close()


if __name__ == "__main__":
    main()
