"""The shape of a model as a GGUF holds it: how large it is in any types, also after a cut that has not been made yet."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

from pipeline.format.gguf_file import padded
from pipeline.preflight import Preflight
from pipeline.recipes.budget import candidates
from pipeline.recipes.mixtures import Weight

_VOCABULARY = re.compile(r"(?:token_embd|output)\.(?:weight|bias)")
_FFN_ROWS = re.compile(r"blk\.\d+\.ffn_(?:gate|up)\.(?:weight|bias)")
_FFN_COLUMNS = re.compile(r"blk\.\d+\.ffn_down\.weight")


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Weights by name and shape, and the bytes before them, most of which are the vocabulary."""

    weights: tuple[Weight, ...]
    header: int
    layers: int
    experts: int

    @classmethod
    def of(cls, plan: Preflight) -> ModelShape:
        """Of the file that a plan would make."""
        weights = tuple(Weight(t.name, t.shape, plan.model.stored[t.name]) for t in plan.tensors)
        return cls(weights, len(plan.layout.header), plan.model.facts.n_layers, plan.model.facts.n_experts)

    @property
    def n_weights(self) -> int:
        return sum(prod(one.shape) for one in self.weights)

    @property
    def vocabulary(self) -> int:
        """Tokens."""
        return next((one.shape[0] for one in self.weights if one.name == "token_embd.weight"), 0)

    @property
    def ffn(self) -> int:
        """Neurons of the feed-forward part of a layer; 0 where layers differ, or are mixtures of experts."""
        sizes = {one.shape[-1] for one in self.weights if _FFN_COLUMNS.fullmatch(one.name)}
        return sizes.pop() if len(sizes) == 1 and not self.experts else 0

    @property
    def vocabulary_part(self) -> float:
        """Share of the weights in embedding and head."""
        return sum(prod(one.shape) for one in self.weights if _VOCABULARY.fullmatch(one.name)) / self.n_weights

    @property
    def largest(self) -> int:
        """Weights of the largest tensor."""
        return max(prod(one.shape) for one in self.weights)

    def limits(self, types: Sequence[str]) -> tuple[int, int]:
        """Bytes of the smallest and of the largest file in these types.

        Raises:
            RecipeError: a tensor can have none of them.
        """
        kinds = candidates(self.weights, types, measured={one.name for one in self.weights})
        sizes = [[padded(kind.size(one.shape)) for kind in kinds[one.name]] for one in self.weights]
        return self.header + sum(map(min, sizes)), self.header + sum(map(max, sizes))

    def moments(self) -> int:
        """Bytes of the second moments of all inputs of matrices in the blocks: float32, two folds, those of one input once."""
        matrices = [one for one in self.weights if len(one.shape) == 2 and one.name.startswith("blk.")]
        return sum(4 * columns * columns for _, columns in {(_input_of(one.name), one.shape[-1]) for one in matrices})

    def with_vocabulary(self, size: int) -> ModelShape:
        """After all but so many tokens are dropped."""
        part = size / max(1, self.vocabulary)
        weights = tuple(
            replace(one, shape=(size, *one.shape[1:])) if _VOCABULARY.fullmatch(one.name) else one for one in self.weights
        )
        return replace(self, weights=weights, header=int(self.header * part) + 1024)

    def with_ffn(self, size: int) -> ModelShape:
        """After all but so many neurons of each layer's feed-forward part are dropped."""
        whole = self.ffn

        def cut(one: Weight) -> Weight:
            if _FFN_ROWS.fullmatch(one.name):
                return replace(one, shape=(one.shape[0] * size // whole, *one.shape[1:]))
            return replace(one, shape=(*one.shape[:-1], size)) if _FFN_COLUMNS.fullmatch(one.name) else one

        return replace(self, weights=tuple(map(cut, self.weights)))


def _input_of(name: str) -> str:
    """A word for what a matrix is multiplied with: q, k and v read the same, gate and up too."""
    return re.sub(r"attn_[qkv]\b", "attn", re.sub(r"ffn_(?:gate|up)\b", "ffn", name))
