"""Layers go: those that turn what flows through them least, or those that a person names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.errors import RecipeError, UnsupportedError
from pipeline.architectures.shared.decoder import Windowed
from pipeline.forward.process import ForwardProcess
from pipeline.prune.amount import Depth
from pipeline.prune.edits import Edits
from pipeline.prune.outcome import CutPart
from pipeline.prune.structure import Structure

_CHILD = "pipeline.prune.parts.influence_child"
_BUILT_IN = ("smollm3",)  # families in which llama.cpp counts layers to know what each one is


def measure_influence(gguf: Path, layers: int, windows: Sequence[Sequence[int]], *, threads: int | None = None) -> list[float]:
    """Block influence of each layer: mean of 1 - cos(input, output) over all tokens.

    Raises:
        GGUFError: llama.cpp does not run the model, or does not say what leaves its layers.
    """
    n_ctx = max(map(len, windows))
    with ForwardProcess(gguf, _CHILD, n_ctx=n_ctx, threads=threads, layers=layers) as process:
        for ids in windows:
            process.ask("read", ids=list(ids))
        return [float(one) for one in process.ask("influence")["influence"]]


def check_depth(structure: Structure, wish: Depth) -> None:
    """Raises SprigError for layers that are not there, if none would stay, and where none can go."""
    total, kind = structure.layers, structure.architecture.gguf
    if kind in _BUILT_IN:
        raise UnsupportedError(f"llama.cpp's {kind} counts its layers to know their kind, so none can go")
    if wish.amount is not None:
        wish.amount.of(total)
        if not structure.is_decoder:
            raise UnsupportedError("no influence is measured in an encoder: name those that go, as --depth drop:1,3")
    elif wish.drop[-1] >= total or len(wish.drop) >= total:
        raise RecipeError(f"--depth: the model has layers 0 to {total - 1}, and one must stay")


def cut_depth(
    structure: Structure, edits: Edits, wish: Depth, influence: Sequence[float] | None
) -> tuple[CutPart, tuple[int, ...]]:
    """Choose the layers and note the edits.

    Args:
        influence: of each layer; None where the layers are named.

    Returns:
        the part, and the layers that stay.
    """
    total = structure.layers
    if wish.drop:
        gone, why = wish.drop, ""
    else:
        assert wish.amount is not None
        assert influence is not None
        order = sorted(range(total), key=lambda i: (influence[i], i))
        gone = tuple(sorted(order[: total - wish.amount.of(total)]))
        least = min(influence[i] for i in order[len(gone) :])
        why = f" (block influence {', '.join(f'{influence[i]:.3f}' for i in gone)}; the others from {least:.3f} on)"
    kept = tuple(i for i in range(total) if i not in gone)
    edits.keep_blocks(kept)
    return CutPart("depth", total, len(kept), f"without {', '.join(map(str, gone))}{why}"), kept


def config_of(structure: Structure, kept: tuple[int, ...]) -> dict[str, Any]:
    """What config.json says of the layers that stay."""
    arch, total = structure.architecture, structure.layers
    changes: dict[str, Any] = structure.settings(num_hidden_layers=len(kept))
    if isinstance(arch, Windowed):
        kinds = ["sliding_attention" if sliding else "full_attention" for sliding in arch.is_sliding()]
        changes["layer_types"] = [kinds[i] for i in kept]
    for key, value in structure.config.items():
        if isinstance(value, list) and len(value) == total and (key.startswith("layer") or key.endswith("layers")):
            changes[key] = [value[i] for i in kept]
    return changes
