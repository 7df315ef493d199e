"""The binding of llama.cpp, in a process that holds more than one model in its life."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.paths import ROOT

ONE_AFTER_ANOTHER = """
import gc, sys
from agent.engine.llama import LlamaModel
model = LlamaModel(sys.argv[1], repack=False)
lib = model.lib
del model
gc.collect()
taken = [bytes(64) for _ in range(10_000)]  # the place where the first one's things were
lib.llama_model_free(lib.llama_model_load_from_file(sys.argv[1].encode(), lib.llama_model_default_params()))
print("alive")
"""


def test_llama_cpp_calls_nothing_that_went_with_a_model(tmp_path: Path) -> None:
    command = [sys.executable, "-c", ONE_AFTER_ANOTHER, str(chat_model(tmp_path / "m.gguf", "hermes"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "alive\n"), done.stderr
