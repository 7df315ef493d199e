"""One small file per architecture, found by config.json's ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agent.errors import UnsupportedError
from pipeline.architectures.base import Architecture, Slice, Tensor
from pipeline.checkpoint import TensorInfo

# model_type -> (module, class). Only the module that is asked for is imported.
_REGISTRY: dict[str, tuple[str, str]] = {
    "llama": ("llama", "Llama"),
    "mistral": ("llama", "Llama"),
}


def supported() -> list[str]:
    """Every model_type that Sprig converts itself, sorted."""
    return sorted(_REGISTRY)


def find_architecture(config: Mapping[str, Any]) -> type[Architecture]:
    """The class for a parsed config.json. Raises UnsupportedError with the list of what is supported."""
    text = config.get("text_config")
    nested = text.get("model_type") if isinstance(text, Mapping) else None
    for model_type in (config.get("model_type"), nested):
        if isinstance(model_type, str) and model_type in _REGISTRY:
            module, name = _REGISTRY[model_type]
            found: type[Architecture] = getattr(import_module(f"{__name__}.{module}"), name)
            return found
    named = config.get("model_type") or (config.get("architectures") or ["unknown"])[0]
    raise UnsupportedError(
        f"architecture {named!r} is not supported (supported: {', '.join(supported())}); "
        "--llama-cpp DIR converts it with the script of a llama.cpp checkout"
    )


__all__ = ["Architecture", "Slice", "Tensor", "TensorInfo", "find_architecture", "supported"]
