"""The held-out texts that `sprig evaluate` takes by default, by domain; no sentence of them is in any calibration text.

All of it was written, or is generated, for this project, so that no model can have learnt it by heart.
"""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Literal

from agent.messages import Message
from pipeline.text.configs import config_files
from pipeline.text.digest import digest_of
from pipeline.text.tool_talk import tool_talks

PROSE = ("en", "de", "fr", "es", "pt", "zh", "ja", "hi", "ar")
_SEED = 20260
_CONFIGS = 4
_ROLES: dict[str, Literal["user", "assistant"]] = {"User": "user", "Assistant": "assistant"}


def domains() -> dict[str, str]:
    """Domain name -> text: chat, tools, code, and prose under its language's code (``PROSE``).

    Each domain has at least three windows of 512 tokens under the vocabulary of SmolLM2.
    """
    return dict(_domains())


def chat() -> list[list[Message]]:
    """The conversations of the domain ``chat`` as messages, for a model's own template."""
    talks = domains()["chat"].split("\n\n---\n\n")
    return [_turns(talk) for talk in talks]


def digest() -> str:
    """SHA-256 of all domains, in hexadecimal: changes with any character of them."""
    return digest_of(domains())


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


def _turns(talk: str) -> list[Message]:
    """Split at the lines that begin with a speaker's name; an answer may have empty lines in it."""
    turns: list[tuple[Literal["user", "assistant"], str]] = []
    for line in talk.split("\n"):
        who, _, said = line.partition(": ")
        if who in _ROLES:
            turns.append((_ROLES[who], said))
        else:
            role, before = turns[-1]
            turns[-1] = role, f"{before}\n{line}"
    return [Message(role, text.strip()) for role, text in turns]
