"""Models of text and images or sound: which part of their config.json and which of their tensors are text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

# What config.json describes beside the text -> what a person calls it.
_OTHERS = {
    "vision_config": "vision", "audio_config": "audio", "encoder_config": "audio", "talker_config": "speech",
}  # fmt: skip
_TENSORS = re.compile(
    r"(?:thinker\.)?(?:model\.)?(?:vision_tower|vision_model|visual|embed_vision|audio_tower|embed_audio|multi_modal_projector"
    r"|connector|image_newline|encoder|projector)\b|(?:talker|token2wav)\."
)


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters of the text part, {} where config.json has no part of that name."""
    thinker = config.get("thinker_config")
    found = (thinker if isinstance(thinker, dict) else config).get("text_config")
    return found if isinstance(found, dict) else {}


def other_parts(config: Mapping[str, Any]) -> list[str]:
    """What the model has beside its text part, in words; nothing for a model of text alone."""
    thinker = config.get("thinker_config")
    keys = {**config, **(thinker if isinstance(thinker, dict) else {})}
    return list(dict.fromkeys(word for key, word in _OTHERS.items() if isinstance(keys.get(key), dict)))


def is_text(name: str, others: list[str]) -> bool:
    """Whether a tensor belongs to the text part of a model that has these other parts."""
    return not others or not _TENSORS.match(name)
