"""The libraries of the extra ``pipeline``: a checkpoint needs them, a device does not install them."""

from __future__ import annotations

from importlib.util import find_spec

from agent.errors import SprigError

_LIBRARIES = ("gguf", "huggingface_hub", "sentencepiece", "tokenizers", "yaml")


def missing_extra() -> list[str]:
    """Those of the libraries that are not installed."""
    return [name for name in _LIBRARIES if find_spec(name) is None]


def need_pipeline_extra() -> None:
    """Raises SprigError, with what to install, when one of the libraries is missing."""
    if lost := missing_extra():
        raise SprigError(
            f"this needs the pipeline extra ({', '.join(lost)} not found): pip install '.[pipeline]' in the checkout of Sprig"
        )
