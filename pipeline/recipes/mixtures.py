"""Which ggml type each tensor gets: the recipe's base type, what its rules say, or what a person says.

The rules look at a tensor's name and shape, at a few facts of the model, and at how many tensors of the same role came before,
in the order of (block number, name).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from agent.errors import RecipeError
from agent.gguf.types import ARM_REPACKED, TYPES_BY_NAME, GGMLType
from pipeline.recipes.names import Recipe, find_type
from pipeline.recipes.rules import ModelFacts, TensorPlace, role_of, rule_type


@dataclass(frozen=True, slots=True)
class Weight:
    """One tensor before quantization. ``stored`` is the type in which it would be copied."""

    name: str
    shape: tuple[int, ...]
    stored: GGMLType


@dataclass(frozen=True, slots=True)
class Overrides:
    """The types that a person chose instead of the recipe's.

    Attributes:
        tensor_types: (regular expression searched in the tensor's name, type); the first that matches wins.
        pure: every eligible tensor gets the base type.
        output_type: for the head.
        embedding_type: for the token embedding.
    """

    tensor_types: tuple[tuple[str, str], ...] = ()
    pure: bool = False
    output_type: str | None = None
    embedding_type: str | None = None

    def words(self) -> list[str]:
        """What was overridden, for the file's own record."""
        named = (("output", self.output_type), ("embedding", self.embedding_type))
        words = [f"{pattern}={kind}" for pattern, kind in (*self.tensor_types, *named) if kind]
        return [*words, "pure"] if self.pure else words


@dataclass(frozen=True, slots=True)
class TypeChoice:
    """The type of one tensor; ``wanted`` differs from ``type`` when the row length forced a fallback."""

    type: GGMLType
    wanted: GGMLType


def block_order(name: str) -> tuple[int, str]:
    """llama.cpp's order of tensors: those outside the blocks first, then by block number, then by name."""
    match = re.match(r"blk\.(\d+)\.", name)
    return (int(match[1]) if match else -1, name)


# Parts of names whose tensors are small or delicate and stay as they are.
_KEPT = re.compile(
    r"_norm\.weight|ffn_gate_inp\.weight|ffn_gate_tid2eid\.weight|altup|laurel|per_layer_model_proj|ssm_conv1d|shortconv\.conv\.weight"
    r"|indexer\.[kq]_proj\.weight|time_mix_(first|w[012]|v[012]|a[012]|g[12]|decay_w[12]|lerp_fused)\.weight|attn_rel_b\.weight"
    r"|^position_embd\.weight$|^token_types\.weight$|\.position_embd|sam\.pos_embd|sam\.neck\.|sam\.net_|\.rel_pos|\.patch_embd"
    r"|\.patch_merger|a\.rvq\.codebook|mm\.a\.code_embd"
)


def quantizable(weight: Weight) -> bool:
    """Whether llama.cpp would touch this tensor at all: a matrix, named weight, not one of the small delicate ones."""
    dims = len(weight.shape)
    while dims > 1 and weight.shape[len(weight.shape) - dims] == 1:
        dims -= 1
    return dims >= 2 and weight.name.endswith("weight") and not _KEPT.search(weight.name)


_FALLBACK = {"Q2_K": "Q4_0", "Q3_K": "Q4_0", "Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}  # and IQ4_NL for every other


def fit(kind: GGMLType, row_length: int) -> GGMLType:
    """``kind``, or what llama.cpp takes instead when its blocks do not divide the row."""
    if row_length % kind.block == 0:
        return kind
    smaller = TYPES_BY_NAME[_FALLBACK.get(kind.name, "IQ4_NL" if kind.block == 256 else kind.name)]
    return smaller if row_length % smaller.block == 0 else TYPES_BY_NAME["F16"]


class _Mixture:
    """Walks the tensors in order and counts, as llama.cpp's ``quantize_state_impl`` does."""

    def __init__(
        self, weights: Sequence[Weight], recipe: Recipe, facts: ModelFacts, overrides: Overrides, has_imatrix: bool
    ) -> None:
        self.recipe, self.facts, self.pure, self.has_imatrix = recipe, facts, overrides.pure, has_imatrix
        self.count = Counter(role_of(w.name) for w in weights)
        self.seen: Counter[str] = Counter()
        self.output_type = find_type(overrides.output_type, "--output-type") if overrides.output_type else None
        self.embedding_type = find_type(overrides.embedding_type, "--embedding-type") if overrides.embedding_type else None
        self.patterns = [(_compile(p), find_type(t, f"--tensor-type {p}")) for p, t in overrides.tensor_types]
        self._refuse_idle(weights)

    def _refuse_idle(self, weights: Sequence[Weight]) -> None:
        for pattern, _ in self.patterns:
            if not any(pattern.search(w.name) and quantizable(w) for w in weights):
                raise RecipeError(
                    f"--tensor-type: {pattern.pattern!r} matches no tensor that can be quantized; "
                    "`sprig inspect --tensors` lists them"
                )
        if self.patterns and not self.recipe.quantized:
            raise RecipeError(f"--tensor-type needs a quantized recipe, {self.recipe.name} is not one")

    def choose(self, weight: Weight) -> TypeChoice:
        if not quantizable(weight):
            return TypeChoice(weight.stored, weight.stored)
        if named := self.named(weight):
            return named
        if not self.recipe.quantized:
            return TypeChoice(self.recipe.base, self.recipe.base)
        wanted = self.recipe.base if self.pure else self._rule(weight, role_of(weight.name))
        return TypeChoice(fit(wanted, weight.shape[-1]), wanted)

    def named(self, weight: Weight) -> TypeChoice | None:
        """The type that a person named for this tensor."""
        role = role_of(weight.name)
        named = next((t for pattern, t in self.patterns if pattern.search(weight.name)), None)
        if self.embedding_type and role == "embedding" and not (named and weight.name.startswith("per_layer")):
            return self._forced(weight, self.embedding_type)
        if self.output_type and role == "head":
            return self._forced(weight, self.output_type)
        return TypeChoice(fit(named, weight.shape[-1]), named) if named else None

    def _forced(self, weight: Weight, kind: GGMLType) -> TypeChoice:
        if weight.shape[-1] % kind.block:
            raise RecipeError(
                f"{weight.name} has rows of {weight.shape[-1]} weights, which {kind.name} cannot hold; choose Q8_0 or F16"
            )
        return TypeChoice(kind, kind)

    def _rule(self, weight: Weight, role: str) -> GGMLType:
        if role == "embedding" and not self.count["head"]:
            role = "head"
            if self.output_type:
                return self.output_type
        i, n = self.seen[role], self.count[role]
        self.seen[role] += 1
        seen = i
        if role.startswith("ffn_"):
            n = self.facts.n_layers
            if self.facts.n_experts > 1:  # experts need not come in the order of the blocks, so the block's own number counts
                i = block_order(weight.name)[0]
        whole_rows = weight.shape[-1] % self.recipe.base.block == 0
        kind = rule_type(self.recipe.name, TensorPlace(self.facts, role, i, seen, n, whole_rows, self.has_imatrix))
        return TYPES_BY_NAME[kind] if kind else self.recipe.base


# llama-quantize asks for an imatrix for these, and for Q2_K in a Q2_K_S file; not for the embedding and the head, but ggml's
# kernels end the process without one for the types of the second list.
_BLIND = frozenset({"IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS"})
_FATAL = frozenset({"IQ2_XS", "IQ2_XXS"})


def needs_imatrix(name: str, kind: GGMLType, recipe: Recipe) -> bool:
    """Whether a tensor of this name can only be quantized to ``kind`` with the values of an importance matrix."""
    if role_of(name) in ("head", "embedding"):
        return kind.name in _FATAL
    return kind.name in _BLIND or (kind.name == "Q2_K" and recipe.name == "Q2_K_S")


def _compile(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.IGNORECASE)
    except re.error as e:
        raise RecipeError(f"--tensor-type: {pattern!r} is not a regular expression ({e})") from None


def choose_types(
    weights: Sequence[Weight], recipe: Recipe, facts: ModelFacts, overrides: Overrides = Overrides(), *, has_imatrix: bool = False
) -> dict[str, TypeChoice]:
    """The type of each tensor, in llama.cpp's order of tensors.

    Raises:
        RecipeError: an override that is malformed, matches no tensor or cannot hold the tensor's rows.
    """
    ordered = sorted(weights, key=lambda w: block_order(w.name))
    mixture = _Mixture(ordered, recipe, facts, overrides, has_imatrix)
    return {w.name: mixture.choose(w) for w in ordered}


def named_types(
    weights: Sequence[Weight], recipe: Recipe, facts: ModelFacts, overrides: Overrides, *, has_imatrix: bool = False
) -> dict[str, TypeChoice]:
    """Only the types that a person named; that of the head is the embedding's too where one tensor is both.

    Raises:
        RecipeError: as ``choose_types``.
    """
    if overrides.output_type and not any(role_of(w.name) == "head" for w in weights):
        overrides = replace(overrides, embedding_type=overrides.embedding_type or overrides.output_type)
    mixture = _Mixture(weights, recipe, facts, overrides, has_imatrix)
    found = {w.name: mixture.named(w) for w in weights if quantizable(w)}
    return {name: choice for name, choice in found.items() if choice is not None}


def fallback_note(choices: Mapping[str, TypeChoice], weights: Sequence[Weight], recipe: Recipe) -> str | None:
    """One line when row lengths push much of the model into blocks that ARM does not repack, with the better choice."""
    sizes = {w.name: w.shape for w in weights}
    fallen = {n: c for n, c in choices.items() if c.type != c.wanted}
    slow = sum(c.type.size(sizes[n]) for n, c in fallen.items() if c.type.name not in ARM_REPACKED)
    total = sum(c.type.size(sizes[n]) for n, c in choices.items())
    if not total or slow < 0.1 * total:
        return None
    odd = sorted({sizes[n][-1] for n in fallen})
    kinds = sorted({c.type.name for c in fallen.values()})
    better = "Q4_0 (or IQ4_NL)" if recipe.base.bits_per_weight < 5 else "Q8_0"
    return (
        f"{len(fallen)} of {len(choices)} tensors fall back to {'/'.join(kinds)}: rows of {'/'.join(map(str, odd))} "
        f"are not a multiple of {recipe.base.block}; ARM has no fast kernels for {slow / total:.0%} of this file, "
        f"{better} is smaller or faster there"
    )
