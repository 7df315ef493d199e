"""Token ids in config.json and generation_config.json."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

# bos_token_id, image_token_index, eos_token_id (also a list), decoder_start_token_id, ...; of generation also lists of lists
_ID = re.compile(r"(?:\w*_)?token_(?:id|ids|index)|(?:begin_)?suppress_tokens|bad_words_ids|force_words_ids")
_REQUIRED = re.compile(r"(?:\w*_)?token_(?:id|ids|index)")
_SIZE = re.compile(r"vocab_size(?:_per_layer_input)?")


def named_ids(config: Mapping[str, Any]) -> Iterator[int]:
    """Every id that a configuration gives a part, those of its inner parts (``text_config``) too."""
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from named_ids(value)
        elif _REQUIRED.fullmatch(key):
            yield from (n for n in (value if isinstance(value, list) else [value]) if type(n) is int and n >= 0)


def renumbered(config: Mapping[str, Any], new: Mapping[int, int], old_rows: int) -> dict[str, Any]:
    """The entries of a configuration that change; an inner part whole.

    Args:
        config: a configuration.
        new: old id -> new id of the tokens that are kept.
        old_rows: of the embedding. A ``vocab_size`` of another number belongs to something else and stays.
    """
    changed: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            if inner := renumbered(value, new, old_rows):
                changed[key] = {**value, **inner}
        elif _SIZE.fullmatch(key) and value == old_rows:
            changed[key] = len(new)
        elif _ID.fullmatch(key) and (moved := _moved(value, new)) != value:
            changed[key] = moved
    return changed


def _moved(value: Any, new: Mapping[int, int]) -> Any:
    """A number under its new id. A token that is gone leaves a list; a sequence with one that is gone leaves a list of lists."""
    if isinstance(value, list):
        if value and all(isinstance(entry, list) for entry in value):
            return [moved for entry in value if len(moved := _moved(entry, new)) == len(entry)]
        return [moved for entry in value if (moved := _moved(entry, new)) is not None]
    if type(value) is int and value >= 0:
        return new.get(value)
    return value
