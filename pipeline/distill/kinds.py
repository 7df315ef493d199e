"""Which ggml type each tensor of a checkpoint gets from a recipe: what a training for that recipe rounds through."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from agent.errors import RecipeError, UnsupportedError
from pipeline.architectures.shared.tensor import Tensor
from pipeline.model import from_checkpoint
from pipeline.recipes.mixtures import Weight, choose_types, needs_imatrix, quantizable
from pipeline.recipes.names import find_recipe
from pipeline.sources.checkpoint import TensorInfo
from pipeline.sources.source import open_source


def kinds_of(folder: Path, recipe: str) -> Mapping[str, str]:
    """What ``sprig quantize -q RECIPE`` without an imatrix makes of a checkpoint's matrices.

    Args:
        folder: the checkpoint; only its small files and its headers are read.
        recipe: as ``pipeline.recipes.names.find_recipe`` reads it.

    Returns:
        checkpoint tensor -> ggml type, of the tensors that do not stay in F32. A head that is the embedding has no entry.

    Raises:
        SprigError: the folder is no checkpoint that converts, or there is no such recipe.
        RecipeError: the recipe keeps all weights, or needs an importance matrix.
        UnsupportedError: the GGUF holds a tensor otherwise than in whole rows of the checkpoint.
    """
    chosen = find_recipe(recipe)
    model = from_checkpoint(open_source(str(folder)), chosen)
    weights = [Weight(t.name, t.shape, model.stored[t.name]) for t in model.tensors]
    choices = choose_types(weights, chosen, model.facts)
    kinds: dict[str, str] = {}
    for tensor, weight in zip(model.tensors, weights, strict=True):
        kind = choices[tensor.name].type
        if not quantizable(weight) or kind.name == "F32":
            continue
        if needs_imatrix(tensor.name, kind, chosen):
            raise RecipeError(
                f"--for {chosen.name}: {kind.name} (for {tensor.name}) needs an importance matrix, and weights that are still "
                "learned have none; take Q4_0, IQ4_NL or Q4_K_M"
            )
        _refuse_rebuilt(tensor, model.infos, chosen.name)
        for piece in tensor.sources:
            if kinds.setdefault(piece.source, kind.name) != kind.name:
                raise UnsupportedError(
                    f"--for {chosen.name}: the rows of {piece.source} become tensors of two types, {kinds[piece.source]} and "
                    f"{kind.name}; take Q8_0 or Q4_0, or train without --for"
                )
    if not kinds:
        raise RecipeError(f"--for {chosen.name}: it keeps all weights as they are; leave it out")
    return kinds


def _refuse_rebuilt(tensor: Tensor, infos: Mapping[str, TensorInfo], recipe: str) -> None:
    """Raise UnsupportedError if a row of the tensor is not a row of the checkpoint, in the same order of columns."""
    same = all(infos[piece.source].shape[-1] == tensor.row_length for piece in tensor.sources)
    if tensor.transposed or tensor.function or tensor.scale is not None or tensor.column_order is not None or not same:
        raise UnsupportedError(
            f"--for {recipe}: the GGUF holds {tensor.name} turned or scaled, and not in the rows of the checkpoint; "
            "train without --for"
        )
