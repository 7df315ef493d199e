"""Low-rank changes of frozen matrices (Hu et al., "LoRA", 2021), as torch's parametrizations.

PEFT does this too, and brings accelerate and more for it; what is needed here is forty lines.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrize

_SCALE = 2.0  # of the change; usual is an alpha of twice the rank
Tensor = Any


class LowRankChange(nn.Module):  # type: ignore[misc]  # torch is not typed
    """Adds a product of two thin matrices to a weight [rows, columns]. It is zero at first."""

    def __init__(self, rows: int, columns: int, rank: int, generator: Any) -> None:
        super().__init__()
        bound = 1 / math.sqrt(columns)
        self.down = nn.Parameter((2 * torch.rand(rank, columns, generator=generator) - 1) * bound)
        self.up = nn.Parameter(torch.zeros(rows, rank))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + _SCALE * (self.up @ self.down)


def add_changes(network: Any, rank: int, seed: int) -> None:
    """Put a learnable change on each matrix of the layers, in place; embedding and head stay, as do all other weights."""
    generator = torch.Generator().manual_seed(seed)
    head = network.get_output_embeddings() if hasattr(network, "get_output_embeddings") else None
    for module in list(network.modules()):
        weight = getattr(module, "weight", None)
        if module is head or isinstance(module, nn.Embedding) or not isinstance(weight, nn.Parameter) or weight.ndim != 2:
            continue
        rows, columns = weight.shape
        change = LowRankChange(rows, columns, min(rank, rows, columns), generator)
        parametrize.register_parametrization(module, "weight", change.to(weight.device))


def merged(network: Any) -> dict[str, Tensor]:
    """The weights as a checkpoint has them, by name: changes added, any other parametrization left out, each weight once."""
    out: dict[str, Tensor] = {}
    seen: set[int] = set()
    kept = network.state_dict()
    with torch.no_grad():
        for path, module in network.named_modules():
            prefix = f"{path}." if path else ""
            own = dict(module.named_parameters(recurse=False)) | dict(module.named_buffers(recurse=False))
            changed = dict(module.parametrizations.items()) if parametrize.is_parametrized(module) else {}
            for name, value in [*own.items(), *((name, held.original) for name, held in changed.items())]:
                there = f"{prefix}parametrizations.{name}.original" if name in changed else prefix + name
                if ".parametrizations." in f".{path}." or value is None or id(value) in seen or there not in kept:
                    continue
                seen.add(id(value))
                for step in changed.get(name, ()):
                    value = step(value) if isinstance(step, LowRankChange) else value
                out[prefix + name] = value.detach()
    return out
