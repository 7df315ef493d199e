"""Which files of a checkpoint are read: the small ones, and its weights, of which there may be several shards."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Literal

from agent.errors import CheckpointError, SourceError
from agent.hub.download import safe_name
from agent.text import one_line
from pipeline.sources.adapter import CONFIG, STEM
from pipeline.sources.packed.find import SETTINGS_FILES
from pipeline.sources.unread import no_checkpoint

# Everything that a conversion reads beside the weights. The last five say what an embedding model does behind its layers.
SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "chat_template.*", "additional_chat_templates/*", "README.md",
    "modules.json", "sentence_bert_config.json", "*_Pooling/config.json", "*_Dense/config.json", "*_Dense/model.safetensors",
    CONFIG, *SETTINGS_FILES,
)  # fmt: skip

Format = Literal["safetensors", "bin", "gguf"]
_SERIES = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")


def is_small(name: str) -> bool:
    """Whether a conversion reads this file. A pattern reaches no deeper than it is written."""
    return any(
        fnmatchcase(name, pattern) and (name.count("/") == pattern.count("/") or ".." in name or "\\" in name)
        for pattern in SMALL_FILES
    )


def choose_weights(names: Iterable[str], where: str, read: Callable[[str], bytes]) -> tuple[Format, list[str], str | None]:
    """The best format there is, its weight files, and the index file if it has one.

    Raises:
        SourceError: no weights, a shard is missing, or a name is not safe.
    """
    there = set(names)
    for name in filter(is_small, there):
        safe_name(name, where)
    kinds: tuple[tuple[Format, str, str], ...] = (("safetensors", "model", ".safetensors"), ("bin", "pytorch_model", ".bin"))
    for kind, stem, suffix in kinds:
        index = f"{stem}{suffix}.index.json"
        if f"{stem}{suffix}" in there:
            return kind, [f"{stem}{suffix}"], None
        if index in there:
            shards = sorted(set(weight_map(read(index), index, where).values()))
            return kind, complete(shards, there, where, suffix), index
        if shards := series(there, stem, suffix):
            return kind, complete(shards, there, where, suffix), None
    for kind, _, suffix in kinds:
        if f"{STEM}{suffix}" in there:
            return kind, [f"{STEM}{suffix}"], None
    if ggufs := sorted(n for n in there if "/" not in n and n.lower().endswith(".gguf")):
        return "gguf", ggufs, None
    raise no_checkpoint(there, where)


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
