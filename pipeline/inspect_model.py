"""Inspects a model that is named as a file, in the store, as a checkpoint folder or on the Hub. No weight is read."""

from __future__ import annotations

from typing import Any

from agent.errors import UnsupportedError
from agent.gguf.inspection import Inspection, TensorLine, inspect_gguf, is_template, plain, vocabulary_facts
from agent.models.find import find_model, needs_pipeline
from pipeline.sources.extra import need_pipeline_extra


def inspect_model(model: str, *, revision: str | None = None, token: str | None = None, offline: bool = False) -> Inspection:
    """Inspect ``model``: a GGUF's path, the name of a stored model, a checkpoint folder or a Hub id.

    Raises:
        SprigError: there is no such model, it cannot be reached, or it is broken.
    """
    if revision is None and not needs_pipeline(model):
        return inspect_gguf(find_model(model))
    need_pipeline_extra()
    return _inspect_checkpoint(model, revision, token, offline)


def _inspect_checkpoint(model: str, revision: str | None, token: str | None, offline: bool) -> Inspection:
    from pipeline.architectures.find import find_architecture
    from pipeline.card import origin_keys
    from pipeline.sources.base_model import open_model
    from pipeline.sources.source import headers, read_config
    from pipeline.vocab.vocabulary import load_vocabulary

    source = open_model(model, revision=revision, token=token, offline=offline)
    if source.path is not None and source.kind == "gguf":
        return inspect_gguf(source.path)
    infos = headers(source)
    tensors = tuple(TensorLine(t.name, t.shape, t.packed or t.dtype, t.nbytes) for t in infos.values())
    packed = any(t.packed for t in infos.values())
    size = sum(w.size for w in source.weights) if packed else sum(t.nbytes for t in tensors)
    config = read_config(source)
    named = source.named
    name = f"{named.name}@{named.commit}" if named.commit else named.name
    keys: dict[str, Any] = dict(origin_keys(source))
    merged = () if source.adapter is None else (f"an adapter (LoRA), shown as it is when merged into {source.name}",)
    try:
        architecture = find_architecture(config)(config, infos, source.files)
        keys |= {"general.architecture": architecture.gguf}
        keys |= {key: plain(value) for key, value in architecture.gguf_keys().items()}
        vocabulary = load_vocabulary(source.files, architecture.vocab_rows, config)
    except UnsupportedError as e:
        keys |= {"general.architecture": str(config.get("model_type", "unknown"))}
        return Inspection(name, "checkpoint", size, None, keys, tensors, None, {}, (*merged, str(e)))
    keys |= {key: plain(value) for key, value in vocabulary.keys.items() if not is_template(key)}
    described = vocabulary_facts(vocabulary.keys)
    return Inspection(
        name, "checkpoint", size, None, keys, tensors, described, dict(vocabulary.templates), (*merged, *vocabulary.notes)
    )
