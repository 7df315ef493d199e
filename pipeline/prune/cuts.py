"""What a person wants cut, read before a model is opened."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.errors import RecipeError
from pipeline.prune.amount import Amount, Depth, read_amount, read_depth
from pipeline.prune.zeros.methods import Sparsity, read_sparsity


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
