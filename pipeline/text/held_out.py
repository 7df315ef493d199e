"""The held-out texts that `sprig evaluate` takes by default, by domain; no sentence of them is in any calibration text.

All of it was written, or is generated, for this project, so that no model can have learnt it by heart.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files

from pipeline.text.configs import config_files
from pipeline.text.tool_talk import tool_talks

PROSE = ("en", "de", "fr", "es", "pt", "zh", "ja", "hi", "ar")
_SEED = 20260
_CONFIGS = 4


def domains() -> dict[str, str]:
    """Domain name -> text: chat, tools, code, and prose under its language's code (``PROSE``).

    Each domain has at least three windows of 512 tokens under the vocabulary of SmolLM2.
    """
    return dict(_domains())


@cache
def _domains() -> dict[str, str]:
    code = "\n\n".join([_read("code"), *config_files(_SEED, _CONFIGS)])
    return {
        "chat": _read("chat"),
        "tools": "\n\n".join(tool_talks(_SEED)),
        "code": code,
        **{language: _read(language) for language in PROSE},
    }


def _read(name: str) -> str:
    return (files("pipeline.text") / "held_out" / f"{name}.txt").read_text(encoding="utf-8").strip()
