"""A trial run of a GGUF: a child process loads it in llama.cpp and decodes a few tokens, and may die of it.

llama.cpp aborts its process on some models that parse well, so nothing here loads a model in the caller's process.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.children.launch import run_module
from agent.device.processor import cores
from agent.engine.last_words import last_words
from agent.errors import GGUFError, SprigError

MAX_PROMPT = 8  # tokens of a prompt that are decoded; the trial proves that the model runs, not what it knows
_MAX_THREADS = 4


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What a model did."""

    ids: list[int]  # the greedy tokens that followed the prompt; empty for an embedding model
    text: str  # the same as text; bytes that are not UTF-8 are replaced
    finite: bool  # whether all logits, or all of the embedding, are numbers (minus infinity is the logit of a forbidden token)
    probe_ids: list[list[int]]  # the token ids of each probe
    load_seconds: float  # that llama.cpp took
    n_vocab: int  # tokens in its vocabulary
    description: str  # what llama.cpp calls the model


def trial(
    path: Path,
    prompt_ids: Sequence[int] | None = None,
    *,
    probes: Sequence[str] = (),
    timeout: float = 120,
    threads: int | None = None,
) -> TrialResult:
    """Load a GGUF in llama.cpp, decode a prompt and two greedy tokens (or one embedding), and tokenize some texts.

    Beside the mapped file it takes less than 150 MB: a context of 256, batches of 32, no second copy of the weights.

    Args:
        prompt_ids: tokens to start with, the first ``MAX_PROMPT`` of them; by default llama.cpp's tokens of a short text.
        probes: texts to tokenize, control tokens parsed and no BOS or EOS added; surrogates stand for bytes (PEP 383).
        timeout: seconds for everything.
        threads: of the computation; by default the cores that there are, at most 4.

    Raises:
        GGUFError: llama.cpp refused the file, died of it or did not end; with its own last error in one line.
        SprigError: llama.cpp itself cannot be loaded.
    """
    job = {
        "prompt": None if prompt_ids is None else [int(i) for i in prompt_ids[:MAX_PROMPT]],
        "probes": list(probes),
        "threads": threads or min(_MAX_THREADS, cores()),
    }
    # Without the first, an abort starts a debugger to print its stack; with the last, threads do not wait at full speed.
    waits = {"OMP_NUM_THREADS": str(job["threads"]), "OMP_WAIT_POLICY": "passive"}
    environment = {"GGML_NO_BACKTRACE": "1", "OPENBLAS_NUM_THREADS": "1", **waits}
    ended = run_module("agent.engine.trial_child", [str(path.absolute())], json.dumps(job).encode(), timeout, environment)
    if ended.timed_out:
        raise GGUFError(f"{path} did not load and decode within {timeout:g} s in llama.cpp; it may be broken")
    try:
        answer = json.loads(ended.output)
    except ValueError:
        answer = {}
    if ended.status == 0 and "ids" in answer:
        return TrialResult(**answer)
    if "missing" in answer:
        raise SprigError(str(answer["missing"]))
    raise GGUFError(f"{path} does not run in llama.cpp: {last_words(ended.status, ended.log, answer.get('failed'))}")
