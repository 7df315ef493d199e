"""Finds how a checkpoint is packed: the quantizer's name in config.json is the name of a file in this folder.

A new scheme is a new file with a function ``read`` in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from agent.errors import UnsupportedError
from pipeline.sources import packed
from pipeline.sources.json_object import json_object
from pipeline.sources.packed.shared.view import PackedSource, Packing, Settings, Tensors

# Where programs leave what they did when config.json does not have it.
SETTINGS_FILES = {"quantize_config.json": "gptq", "quant_config.json": "awq"}


@cache
def readable() -> list[str]:
    """Every scheme that Sprig reads, sorted."""
    here = __name__.rpartition(".")[2]
    return sorted(m.name for m in iter_modules(packed.__path__) if not m.ispkg and m.name != here)


def find_packing(
    config: Mapping[str, Any], files: Mapping[str, bytes], tensors: Tensors, content: Callable[[str], bytes]
) -> Packing | None:
    """How the weights are packed, or None when they are plain.

    Args:
        config: the parsed config.json.
        files: the small files.
        tensors: the stored tensors.
        content: gives the bytes of a small tensor.

    Raises:
        UnsupportedError: a scheme that Sprig does not read.
        CheckpointError: the tensors are not what their scheme has.
    """
    method, settings = _settings(config, files, tensors)
    if method is None:
        return None
    name = method.lower().replace("-", "_")
    if name not in readable():  # the name comes from a stranger: only one that is in the list is ever imported
        raise UnsupportedError(
            f"the checkpoint is already quantized ({method[:60]!r}, says config.json), which Sprig does not read (it reads "
            f"{', '.join(readable())}); take the full-precision checkpoint that it was made from"
        )
    found: Packing = import_module(f"{packed.__name__}.{name}").read(PackedSource(settings, tensors, content))
    return found if found.weights else None


def _settings(config: Mapping[str, Any], files: Mapping[str, bytes], tensors: Tensors) -> tuple[str | None, Settings]:
    text = config.get("text_config")
    for place in (config, text if isinstance(text, dict) else {}):
        for key in ("quantization_config", "compression_config", "quantization"):
            settings = place.get(key)
            if isinstance(settings, dict) and "quant_method" in settings:
                return str(settings["quant_method"]), settings
            if isinstance(settings, dict) and ("bits" in settings or "mode" in settings):
                return "mlx", settings  # it names no method
            if settings and key != "quantization":
                return "unknown", {}
    if any(name.endswith(".qweight") for name in tensors):
        for file, method in SETTINGS_FILES.items():
            if file in files:
                return method, json_object(files[file], file)
    return None, {}
