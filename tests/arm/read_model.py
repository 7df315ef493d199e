"""What a processor makes of a model file: ``python -m tests.arm.read_model JOB`` prints it as JSON, emulated or not.

An emulated Python takes seconds to start, so one process finds out all that is asked of one file on one processor.
"""

from __future__ import annotations

import json
import platform
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from agent.engine.llama import Context
from agent.models.file import read_model
from agent.models.memory import Cache, MemoryBudget, flash_attention, plan_load
from tests.fixtures.ggml_buffers import load_aloud

TOKENS = 16  # that are written
LIKELIEST = 16  # whose log-probabilities are told, at each of them


def loaded(path: str, *, context: int = 1024, cache: Cache | None = None) -> tuple[Context, dict[str, Any]]:
    """A model as the agent loads it on this processor: what that is planned to take, and what ggml says of its buffers."""
    plan = plan_load(read_model(Path(path)), MemoryBudget(10**10, ""), context=context, cache=cache)
    flash = flash_attention(plan.cache)
    made, buffers = load_aloud(Path(path), repack=plan.repack, context=plan.context, cache=plan.cache, flash=flash)
    planned = {part: size for part, size in asdict(plan.need).items() if part != "process"}
    return made, {"repack": plan.repack, "planned": planned, "buffers": buffers}


def memory(*loads: dict[str, Any]) -> list[dict[str, Any]]:
    """Each load, as ``loaded`` takes it."""
    return [loaded(**load)[1] for load in loads]


def words(path: str, prompt: str) -> dict[str, Any]:
    """The likeliest continuation of a text, and the log-probabilities of the likeliest tokens at each step."""
    context, found = loaded(path)
    ids = context.model.tokenize([(prompt, False)])
    new, tokens, steps = ids, [], []
    while len(tokens) < TOKENS:
        context.clear_batch()
        for i, token in enumerate(new, len(ids) - len(new)):
            context.add(token, i, 0, logits=i == len(ids) - 1)
        assert context.decode() == 0
        logits = context.logits(context.count - 1).astype(np.float64)
        logits -= logits.max() + np.log(np.exp(logits - logits.max()).sum())
        best = np.argsort(-logits)[:LIKELIEST].tolist()
        steps.append({token: float(logits[token]) for token in best})
        new = best[:1]
        tokens += new
        ids = ids + new
    libraries = sorted(set(re.findall(r"libggml-cpu[\w.-]*", Path("/proc/self/maps").read_text())))
    return {**found, "machine": platform.machine(), "libraries": libraries, "tokens": tokens, "steps": steps}


if __name__ == "__main__":
    job, arguments = json.loads(sys.argv[1])
    print(json.dumps(words(**arguments) if job == "words" else memory(*arguments)))
