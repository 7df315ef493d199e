"""What a person wants cut, read and proved before anything is measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.errors import RecipeError
from pipeline.prune.amount import Amount, read_amount
from pipeline.prune.parts.depth import Depth, check_depth, read_depth
from pipeline.prune.parts.heads import wanted_groups
from pipeline.prune.parts.width import check_width
from pipeline.prune.structure import Structure
from pipeline.prune.zeros.methods import Sparsity, read_sparsity

_WHOLE = ("llama", "gemma2", "gemma3_text")  # model types whose configuration in transformers wants channels for whole heads


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts of one run; None for those that are not wanted.

    Attributes:
        vocab: texts whose tokens stay; ``vocab_size`` how many tokens stay.
    """

    vocab: tuple[Path, ...]
    vocab_size: int | None
    ffn: Amount | None
    heads: Amount | None
    width: Amount | None
    depth: Depth | None
    sparsity: Sparsity | None

    @property
    def cuts_vocabulary(self) -> bool:
        return bool(self.vocab) or self.vocab_size is not None

    @property
    def needs_activations(self) -> bool:
        sparse = self.sparsity is not None and self.sparsity.method != "magnitude"
        return sparse or any(one is not None for one in (self.ffn, self.heads, self.width))

    @property
    def needs_influence(self) -> bool:
        return self.depth is not None and self.depth.amount is not None

    def check(self, structure: Structure) -> None:
        """Raises SprigError for what this model cannot have."""
        if self.ffn is not None:
            self.ffn.of_kernels(structure.ffn)
        self._check_attention(structure)
        if self.depth is not None:
            check_depth(structure, self.depth)
        if self.sparsity is not None and self.sparsity.group:
            for name, tensor in structure.tensors.items():
                if name.startswith("blk.") and len(tensor.shape) == 2 and tensor.shape[-1] % self.sparsity.group:
                    raise RecipeError(
                        f"--pattern {self.sparsity.keep}:{self.sparsity.group} does not fit {name}, "
                        f"whose rows have {tensor.shape[-1]} weights"
                    )

    def _check_attention(self, structure: Structure) -> None:
        """Heads and channels together."""
        if self.heads is None and self.width is None:
            return
        heads, hidden = structure.heads.queries, structure.hidden
        if self.heads is not None:
            heads = wanted_groups(structure.heads, self.heads) * structure.heads.shared
        if self.width is not None:
            hidden = check_width(structure, self.width)
        if structure.config.get("model_type") in _WHOLE and hidden % heads:
            raise RecipeError(
                f"{heads} heads in {hidden} channels: transformers takes a {structure.config['model_type']} only where the heads "
                "divide the channels, so another number must stay"
            )


def read_cuts(
    *, vocab: tuple[Path, ...], vocab_size: int | None, ffn: str | int | None, heads: str | int | None, width: str | int | None,
    depth: str | int | None, sparsity: float | None, pattern: str | None, method: str | None,
) -> Cuts:  # fmt: skip
    """Raises RecipeError if an option says nothing that can be, or if there is none."""
    cuts = Cuts(
        vocab, vocab_size, read_amount(ffn, "--ffn"), read_amount(heads, "--heads"), read_amount(width, "--width"),
        read_depth(depth), read_sparsity(sparsity, pattern, method),
    )  # fmt: skip
    parts = (cuts.cuts_vocabulary, cuts.ffn, cuts.heads, cuts.width, cuts.depth, cuts.sparsity)
    if not any(part is not None and part is not False for part in parts):
        raise RecipeError(
            "nothing to cut: name one or several of --vocab, --vocab-size, --ffn, --heads, --width, --depth, --sparsity"
        )
    return cuts
