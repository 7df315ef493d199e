"""What a checkpoint with a cut vocabulary carries over from the whole one: the names by which llama.cpp knew its tokenizer.

They are found by comparing ids on probes, and ids change with the vocabulary. So the cut writes them down, in
tokenizer_config.json. The file is untrusted: a name only decides between those that fit the tokenizer anyway.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from pipeline.vocab.files import parse_json

_KEY = "gguf_tokenizer"


class Carried(NamedTuple):
    """``tokenizer.ggml.model`` and ``tokenizer.ggml.pre`` before the cut; None where nothing is said."""

    model: str | None
    pre: str | None


def carried(files: Mapping[str, bytes]) -> Carried:
    """What tokenizer_config.json says. Raises VocabError if it is broken."""
    said = parse_json(files, "tokenizer_config.json").get(_KEY)
    model, pre = (said.get(name) if isinstance(said, dict) else None for name in ("model", "pre"))
    return Carried(model if isinstance(model, str) else None, pre if isinstance(pre, str) else None)


def carry(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of tokenizer_config.json that carries over the names in these GGUF keys."""
    names = {name: keys.get(f"tokenizer.ggml.{name}") for name in Carried._fields}
    return {_KEY: {name: value for name, value in names.items() if isinstance(value, str)}}
