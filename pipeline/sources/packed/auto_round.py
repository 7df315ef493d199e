"""Intel's AutoRound: weights packed as GPTQ or AWQ has them, under a name of its own.

``extra_config`` of config.json names modules with settings of their own. Source: https://github.com/intel/auto-round.
"""

from __future__ import annotations

from dataclasses import replace

from agent.errors import UnsupportedError
from pipeline.sources.packed import awq, gptq
from pipeline.sources.packed.shared.view import PackedSource, Packing

# GPTQ's two versions differ in how zeros are stored.
_GPTQ = {"auto_round": "gptq_v2", "auto_round:gptqmodel": "gptq_v2", "auto_round:auto_gptq": "gptq"}


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError, or UnsupportedError for a layout that is not known."""
    form = str(source.settings.get("packing_format"))
    if form not in (*_GPTQ, "auto_round:auto_awq"):
        raise UnsupportedError(f"the checkpoint is AutoRound in the layout {form[:40]!r}, which Sprig does not read")
    extra = source.settings.get("extra_config")
    own = {f"(?:{module})$": settings for module, settings in extra.items()} if isinstance(extra, dict) else {}
    settings = {**source.settings, "dynamic": own, "checkpoint_format": _GPTQ.get(form)}
    read_as = gptq.read if form in _GPTQ else awq.read
    found = read_as(PackedSource(settings, source.tensors, source.content))
    return replace(found, label=f"AutoRound ({found.label})")
