"""Random damage to a model's header: whatever passes the check, llama.cpp survives."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import agent
from tests.fixtures import tiny

# Loads llama.cpp once and forks for every mutant, which is thirty times faster than a child of its own for each.
PROGRAM = """
import contextlib, json, os, random, signal, struct, sys
from pathlib import Path
from agent.engine import trial_child
from agent.errors import GGUFError
from agent.gguf.check import check
from agent.gguf.reader import read_header
from agent.engine.llama import LlamaError
from agent.engine.llama_import import import_llama

import_llama()
base, count = Path(sys.argv[1]), int(sys.argv[2])
raw, end = base.read_bytes(), read_header(base).data_offset
random = random.Random(6)
words = [0, 1, 512, 513, 1024, 1025, 99999, 2**31 - 1, 2**32 - 1, 0x7FC00000, 0xFF800000, 0x3F800000]
tally = {}
for i in range(count):
    mutant = bytearray(raw)
    for _ in range(random.choice([1, 1, 1, 2, 4])):
        # Most of the header is vocabulary, and most of the rules are about the hyperparameters in front of it.
        at = random.randrange(24, end if random.random() < 0.5 else 700)
        mutant[at : at + 4] = random.choice([
            bytes([mutant[at] ^ 1 << random.randrange(8)]) + mutant[at + 1 : at + 4],
            bytes([random.choice([0, 1, 2, 127, 128, 255])]) + mutant[at + 1 : at + 4],
            struct.pack("<I", random.choice(words)),
        ])
    path = base.with_name("mutant.gguf")
    path.write_bytes(mutant)
    try:
        check(path)
        verdict = "passed"
    except GGUFError:
        verdict = "refused"
    child = os.fork()
    if not child:
        signal.alarm(20)
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        with contextlib.suppress(LlamaError):
            trial_child._answer(str(path), {"prompt": None, "probes": ["hello w\\u00f6rld"], "threads": 1})
        os._exit(0)
    end_of_child = "died" if os.WIFSIGNALED(os.waitpid(child, 0)[1]) else "lived"
    tally[f"{verdict}, {end_of_child}"] = tally.get(f"{verdict}, {end_of_child}", 0) + 1
print(json.dumps(tally))
"""


@pytest.mark.slow
def test_what_passes_the_check_does_not_kill_llama_cpp(tmp_path: Path) -> None:
    base = tiny.llama(tmp_path / "base.gguf")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(base), "300"],
        capture_output=True, text=True, timeout=120, cwd=Path(agent.__file__).parent.parent,
        env={**os.environ, "GGML_NO_BACKTRACE": "1"},
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr[-2000:]
    tally = json.loads(ended.stdout)
    assert "passed, died" not in tally
    # The damage is neither too little nor too much to show anything.
    assert {"passed, lived", "refused, lived", "refused, died"} == set(tally)
