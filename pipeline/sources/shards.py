"""Checkpoints in several files: which there should be, and which tensor is in which."""

from __future__ import annotations

import json
import re

from agent.errors import CheckpointError, SourceError
from agent.hub.download import safe_name
from agent.text import one_line

_SERIES = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")


def series(there: set[str], stem: str, suffix: str) -> list[str]:
    """All shards of the largest series ``stem-00001-of-0000N``, those that are not there included."""
    counts = [int(m[3]) for m in map(_SERIES.fullmatch, there) if m and m[1] == stem and m[4] == suffix]
    return [f"{stem}-{i:05}-of-{max(counts):05}{suffix}" for i in range(1, max(counts) + 1)] if counts else []


def complete(shards: list[str], there: set[str], where: str, suffix: str) -> list[str]:
    """The shards, all of which are there. Raises SourceError if one is not, or if its name is no weight file's."""
    for shard in shards:
        if not safe_name(shard, where).endswith(suffix):
            raise SourceError(f"the index of {where} names {one_line(repr(shard))} as a weight file; do not use this model")
    lost = [s for s in shards if s not in there]
    if lost:
        raise SourceError(f"{where} lacks {len(lost)} of its {len(shards)} weight files: {some(lost)}; download it again")
    return shards


def weight_map(raw: bytes, name: str, where: str) -> dict[str, str]:
    """Tensor -> shard, from an index. Raises CheckpointError if it is none."""
    try:
        table = json.loads(raw)["weight_map"]
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        raise CheckpointError(f"{name} of {where} is not an index of weights ({one_line(e)}); download it again") from None
    if not isinstance(table, dict) or not table or not all(isinstance(file, str) for file in table.values()):
        raise CheckpointError(f"{name} of {where} is not an index of weights; download it again")
    return table


def some(names: list[str]) -> str:
    """The first of these names, for a message."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
