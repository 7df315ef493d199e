"""Finds the architecture of a checkpoint: the ``model_type`` in config.json is the name of a file in this folder.

A new architecture is a new file with one class in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from agent.errors import UnsupportedError
from pipeline import architectures
from pipeline.architectures.shared.base import Architecture, short


@cache
def supported() -> list[str]:
    """Every model_type that Sprig converts itself, sorted."""
    here = __name__.rpartition(".")[2]
    return sorted(m.name for m in iter_modules(architectures.__path__) if not m.ispkg and m.name != here)


def find_architecture(config: Mapping[str, Any]) -> type[Architecture]:
    """The class for a parsed config.json. Raises UnsupportedError if there is none."""
    named = config.get("model_type")
    text = config.get("text_config")
    if named in supported() and isinstance(text, Mapping) and text.get("model_type"):
        named = text["model_type"]  # a model of text and images; its text part is what is converted
    # The name comes from a stranger: only one that is in the list is ever imported.
    if isinstance(named, str) and named in supported():
        return _class_in(f"{architectures.__name__}.{named}")
    what = named or config.get("architectures") or "unknown"
    raise UnsupportedError(
        f"architecture {short(what)} is not supported (docs/architectures.md lists the {len(supported())} that are); "
        "--llama-cpp DIR converts it with the script of a llama.cpp checkout"
    )


def _class_in(module: str) -> type[Architecture]:
    """The module defines one class, which is returned."""
    (found,) = (v for v in vars(import_module(module)).values() if isinstance(v, type) and v.__module__ == module)
    assert issubclass(found, Architecture), f"{module} defines no architecture"
    return found
