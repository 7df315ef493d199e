"""A look at a few rows of a model before its weights are here: what is not on this disk comes over HTTP, but for an adapter."""

from __future__ import annotations

from dataclasses import replace

from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.merged import MergedCheckpoint
from pipeline.sources.source import Source, cached_bytes, changes_by, open_checkpoint


def open_sample(source: Source) -> Checkpoint:
    """The tensors of a model. Raises as ``open_checkpoint``."""
    base = open_checkpoint(replace(source, adapter=None), stream=not is_here(source))
    if source.adapter is None:
        return base
    adapter = open_checkpoint(source.adapter)
    return MergedCheckpoint(base, adapter, changes_by(source.adapter, adapter.tensors, base.tensors))


def is_here(source: Source) -> bool:
    """Whether all weights of a model, of an adapter the base's, are on this disk."""
    return cached_bytes(source) == sum(w.size for w in source.weights)
