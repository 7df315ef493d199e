"""The small files of a checkpoint that go along into one made of it: the tokenizer, the templates, the settings of generation."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.sources.adapter import CONFIG
from pipeline.sources.packed.find import SETTINGS_FILES

_WRITTEN_ANEW = {"config.json", "README.md", CONFIG}


def carried_files(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """All but what is written anew, and what says how the old weights lie and are packed."""
    packing = SETTINGS_FILES if "config.json" in files else ()
    return {
        name: raw for name, raw in files.items()
        if name not in _WRITTEN_ANEW and name not in packing and not name.endswith((".index.json", ".safetensors"))
    }  # fmt: skip
