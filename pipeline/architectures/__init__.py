"""One small file per architecture, found by config.json's ``model_type``."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from agent.errors import UnsupportedError
from pipeline.architectures.base import Architecture, Slice, Tensor, short
from pipeline.sources.checkpoint import TensorInfo

# model_type -> (module, class). Only the module that is asked for is imported.
_REGISTRY: dict[str, tuple[str, str]] = {
    "bert": ("bert", "Bert"),
    "distilbert": ("bert", "DistilBert"),
    "gemma2": ("gemma2", "Gemma2"),
    "gemma3": ("gemma3", "Gemma3"),
    "gemma3_text": ("gemma3", "Gemma3"),
    "gemma4": ("gemma4", "Gemma4"),
    "gemma4_text": ("gemma4", "Gemma4"),
    "granite": ("granite", "Granite"),
    "granitemoe": ("granitemoe", "GraniteMoe"),
    "granitemoeshared": ("granitemoe", "GraniteMoeShared"),
    "lfm2": ("lfm2", "Lfm2"),
    "llama": ("llama", "Llama"),
    "ministral3": ("ministral3", "Ministral3"),
    "mistral": ("llama", "Mistral"),
    "mistral3": ("ministral3", "Ministral3"),
    "olmo2": ("olmo2", "Olmo2"),
    "olmo3": ("olmo2", "Olmo3"),
    "olmoe": ("olmoe", "Olmoe"),
    "phi3": ("phi3", "Phi3"),
    "qwen2": ("qwen2", "Qwen2"),
    "qwen3": ("qwen3", "Qwen3"),
    "qwen3_5": ("qwen3_5", "Qwen35"),
    "qwen3_5_text": ("qwen3_5", "Qwen35"),
    "qwen3_moe": ("qwen3_moe", "Qwen3Moe"),
    "smollm3": ("smollm3", "SmolLM3"),
}
# Models of text and images: the text part's own model_type decides, where config.json states it.
_WRAPPERS = frozenset({"gemma3", "gemma4", "mistral3", "qwen3_5"})


def supported() -> list[str]:
    """Every model_type that Sprig converts itself, sorted."""
    return sorted(_REGISTRY)


def find_architecture(config: Mapping[str, Any]) -> type[Architecture]:
    """The class for a parsed config.json. Raises UnsupportedError with the list of what is supported."""
    model_type = config.get("model_type")
    text = config.get("text_config")
    if isinstance(model_type, str) and model_type in _WRAPPERS and isinstance(text, Mapping):
        model_type = text.get("model_type") or ("mistral" if model_type == "mistral3" else model_type)
    if isinstance(model_type, str) and model_type in _REGISTRY:
        module, name = _REGISTRY[model_type]
        found: type[Architecture] = getattr(import_module(f"{__name__}.{module}"), name)
        return found
    named = model_type or config.get("architectures") or "unknown"
    raise UnsupportedError(
        f"architecture {short(named)} is not supported (supported: {', '.join(supported())}); "
        "--llama-cpp DIR converts it with the script of a llama.cpp checkout"
    )


__all__ = ["Architecture", "Slice", "Tensor", "TensorInfo", "find_architecture", "supported"]
