"""Whether a model can be cut as a person wants it, seen before anything is measured."""

from __future__ import annotations

from agent.errors import RecipeError
from pipeline.prune.cuts import Cuts
from pipeline.prune.parts.depth import check_depth
from pipeline.prune.parts.heads import wanted_groups
from pipeline.prune.parts.width import check_width
from pipeline.prune.structure import Structure

_WHOLE = ("llama", "gemma2", "gemma3_text")  # model types whose configuration in transformers wants channels for whole heads


def check_cuts(cuts: Cuts, structure: Structure) -> None:
    """Raises SprigError for what this model cannot have."""
    if cuts.ffn is not None:
        cuts.ffn.of_kernels(structure.ffn)
    _check_attention(cuts, structure)
    if cuts.depth is not None:
        check_depth(structure, cuts.depth)
    if cuts.sparsity is not None and cuts.sparsity.group:
        for name, tensor in structure.tensors.items():
            if name.startswith("blk.") and len(tensor.shape) == 2 and tensor.shape[-1] % cuts.sparsity.group:
                raise RecipeError(
                    f"--pattern {cuts.sparsity.keep}:{cuts.sparsity.group} does not fit {name}, "
                    f"whose rows have {tensor.shape[-1]} weights"
                )


def _check_attention(cuts: Cuts, structure: Structure) -> None:
    """Heads and channels together."""
    if cuts.heads is None and cuts.width is None:
        return
    heads, hidden = structure.heads.queries, structure.hidden
    if cuts.heads is not None:
        heads = wanted_groups(structure.heads, cuts.heads) * structure.heads.shared
    if cuts.width is not None:
        hidden = check_width(structure, cuts.width)
    if structure.config.get("model_type") in _WHOLE and hidden % heads:
        raise RecipeError(
            f"{heads} heads in {hidden} channels: transformers takes a {structure.config['model_type']} only where the heads "
            "divide the channels, so another number must stay"
        )
