"""Finds what a person names, and where that is a LoRA adapter, the model that it is merged into."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

from agent.errors import SourceError
from agent.models.find import expanded
from agent.text import one_line
from pipeline.sources.adapter import CONFIG, LoraConfig, read_lora_config
from pipeline.sources.source import Source, open_source

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def open_model(
    model: str, *, base: str | None = None, revision: str | None = None, token: str | None = None, offline: bool = False
) -> Source:
    """``open_source``, and of an adapter the base model with the adapter in it.

    Args:
        base: the model of an adapter, named as ``model`` is, in the place of the one that the adapter names.
        revision: of ``model``.

    Raises:
        SourceError: there is no such model or no base, or ``model`` is no adapter and a base was named.
    """
    found = open_source(model, revision=revision, token=token, offline=offline)
    if not found.is_adapter:
        if base is not None:
            raise SourceError(f"{found.name} is a whole model; --base is for an adapter (LoRA), leave it out")
        return found
    config = read_lora_config(found.files.get(CONFIG), found.name)
    wanted = base or config.base
    if wanted is None:
        raise SourceError(f"{found.name} is an adapter (LoRA) and does not say of which model; name that with --base")
    try:
        of = _open(wanted, None if base else config, found, token, offline)
        if of.is_adapter or of.format == "gguf":
            raise SourceError(f"that is {'an adapter too' if of.is_adapter else 'a GGUF'}, where a checkpoint is needed")
    except SourceError as e:
        hint = "" if base else "; --base names another place or model"
        raise SourceError(f"{found.name} is an adapter (LoRA) of {one_line(repr(wanted))}: {e}{hint}") from None
    return replace(of, files=_with_tokenizer(of.files, found.files), adapter=found)


def _open(wanted: str, config: LoraConfig | None, adapter: Source, token: str | None, offline: bool) -> Source:
    """The base model that a person wants, or that the adapter names in its ``config``."""
    revision = None
    if config is not None:
        here = os.path.exists(expanded(wanted))  # noqa: PTH110 - a stranger may have written anything
        if here and adapter.kind == "hub":  # what a stranger wrote opens no file of this machine
            raise SourceError("that is a place on this disk, and the adapter comes from the Hub")
        revision = None if here else config.revision
    return open_source(wanted, revision=revision, token=token, offline=offline)


def _with_tokenizer(base: Mapping[str, bytes], adapter: Mapping[str, bytes]) -> dict[str, bytes]:
    """The small files of a base, with the tokenizer and the chat template of an adapter where it brings its own."""
    files, brought = dict(base), {name for name in adapter if _is_template(name)}
    if brought:
        files = {name: raw for name, raw in files.items() if not _is_template(name)}
    if any(name in adapter for name in _TOKENIZERS):
        files = {name: raw for name, raw in files.items() if not _is_vocabulary(name)}
        brought |= {name for name in adapter if _is_vocabulary(name)}
    return files | {name: adapter[name] for name in brought}


def _is_template(name: str) -> bool:
    return name.startswith(("chat_template.", "additional_chat_templates/"))


def _is_vocabulary(name: str) -> bool:
    return name in ("added_tokens.json", "special_tokens_map.json", "merges.txt") or name.startswith(("tokenizer", "vocab."))
