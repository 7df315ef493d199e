"""Finds the architecture of a checkpoint: the ``model_type`` in config.json is the name of a file in this folder.

A new architecture is a new file with one class in it; a model_type that an old file describes too is a word in ``_AS``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from agent.errors import UnsupportedError
from agent.text import brief
from pipeline import architectures
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.wrapper import text_part

# Wrappers of text and images or sound, of which config.json may name no type for the text part, or state that flat; and text
# parts that have a name of their own.
_AS = {
    "gemma3n_text": "gemma3n", "gemma4_text": "gemma4", "granite_speech": "granite", "idefics3": "llama", "internvl": "qwen2",
    "lfm2_vl": "lfm2", "llava": "llama", "llava_next": "llama", "llava_onevision": "qwen2", "mistral3": "mistral",
    "qwen2_vl": "qwen2_vl_text", "qwen2_5_omni": "qwen2_vl_text", "qwen2_5_omni_text": "qwen2_vl_text",
    "qwen2_5_vl": "qwen2_vl_text", "qwen2_5_vl_text": "qwen2_vl_text", "qwen3_5_moe_text": "qwen3_5_moe",
    "qwen3_5_text": "qwen3_5", "qwen3_vl": "qwen3_vl_text", "smolvlm": "llama", "voxtral": "llama",
}  # fmt: skip


@cache
def supported() -> list[str]:
    """Every model_type that Sprig converts itself, sorted."""
    here = __name__.rpartition(".")[2]
    return sorted([*_AS, *(m.name for m in iter_modules(architectures.__path__) if not m.ispkg and m.name != here)])


def find_architecture(config: Mapping[str, Any]) -> type[Architecture]:
    """The class for a parsed config.json. Raises UnsupportedError if there is none."""
    named = config.get("model_type") or _by_class(config.get("architectures"))
    text = text_part(config)
    if _file(named) in supported() and text.get("model_type"):
        named = text["model_type"]  # a model of text and images; its text part is what is converted
    # The name comes from a stranger: only one that is in the list is ever imported.
    if (kind := _file(named)) in supported():
        return _class_in(f"{architectures.__name__}.{_AS.get(kind, kind)}")
    what = named or config.get("architectures") or "unknown"
    raise UnsupportedError(
        f"architecture {brief(what)} is not supported (docs/architectures.md lists the {len(supported())} that are); "
        "--llama-cpp DIR converts it with the script of a llama.cpp checkout"
    )


def _by_class(classes: object) -> str | None:
    """The model_type that a class of transformers has by its name: LlamaForCausalLM is a llama."""
    for name in classes if isinstance(classes, list) else ():
        if isinstance(name, str):
            stem = re.sub(r"(For[A-Z]\w*|LMHeadModel|DoubleHeadsModel|TextModel|Model)$", "", name)
            known = {re.sub("[-_]", "", kind): kind for kind in supported()}
            if found := known.get(stem.replace("_", "").lower()):
                return found
    return None


def _file(model_type: object) -> str:
    """The file that a model_type names, which has no hyphens."""
    return model_type.replace("-", "_") if isinstance(model_type, str) else ""


def _class_in(module: str) -> type[Architecture]:
    """The module defines one class, which is returned."""
    (found,) = (v for v in vars(import_module(module)).values() if isinstance(v, type) and v.__module__ == module)
    assert issubclass(found, Architecture), f"{module} defines no architecture"
    return found
