"""Which model the examples use: the first argument, else SPRIG_MODEL. They import this before the agent."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

if find_spec("agent") is None:  # run from a checkout that is not installed
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))


def chosen_model() -> str:
    """A GGUF file or the name of one in the store. Ends the script when none is named."""
    if len(sys.argv) > 1:
        return sys.argv[1]
    if model := os.environ.get("SPRIG_MODEL"):
        return model
    sys.exit(
        f"usage: python {sys.argv[0]} MODEL\n"
        "MODEL is a GGUF file or a name that `sprig models` shows; SPRIG_MODEL may name it instead.\n"
        "`make demo` makes a small one without a download: .demo/SmolLM2-135M-Instruct-Q8_0.gguf"
    )
