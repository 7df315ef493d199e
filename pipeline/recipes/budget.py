"""A budget in the place of a recipe's name: how large the file may be, and which types may be in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

from agent.errors import RecipeError
from agent.files import parse_size
from agent.gguf.types import ARM_REPACKED, TYPES_BY_NAME, GGMLType
from pipeline.recipes.mixtures import TypeChoice, Weight, fit, needs_imatrix, quantizable
from pipeline.recipes.names import RECIPES, WRITABLE, Recipe, find_type

# With fast kernels on ARM, which are fast enough everywhere else.
FAST = tuple(name for name in WRITABLE if name in ARM_REPACKED and name != "MXFP4")


@dataclass(frozen=True, slots=True)
class FileBudget:
    """What may be spent.

    Attributes:
        size: bytes of the file.
        bits: bits for each weight, counted over the whole file; one of the two is given.
        types: the names of the types that may be chosen.
        sensitivity: the file in which what was measured is kept, in the place of the usual one.
    """

    size: int | None = None
    bits: float | None = None
    types: tuple[str, ...] = FAST
    sensitivity: Path | None = None

    @property
    def name(self) -> str:
        """A word for the file's name and its record: budget-400MB, budget-4.5bpw."""
        return f"budget-{self.size / 1e6:.4g}MB" if self.size is not None else f"budget-{self.bits:g}bpw"

    def nbytes(self, n_weights: int) -> int:
        """Bytes of the file at most."""
        return self.size if self.size is not None else int((self.bits or 0) * n_weights / 8)

    def recipe(self, choices: Mapping[str, TypeChoice] | None = None, weights: Sequence[Weight] = ()) -> Recipe:
        """The budget as a recipe, whose base is the type that holds the most weights; before they are chosen, the smallest."""
        held: Counter[GGMLType] = Counter()
        for weight in filter(quantizable, weights if choices else ()):
            held[choices[weight.name].type] += prod(weight.shape)  # type: ignore[index]
        return Recipe(self.name, held.most_common(1)[0][0] if held else self.smallest)

    @property
    def smallest(self) -> GGMLType:
        return min((TYPES_BY_NAME[name] for name in self.types), key=lambda kind: kind.bits_per_weight)


def read_budget(
    size: str | int | None, bits: float | None, types: Sequence[str] | None, sensitivity: Path | None
) -> FileBudget | None:
    """What a person wants to spend; None when that is not said.

    Args:
        size: bytes, or a text such as "400MB".
        bits: for each weight.
        types: names of types; by default those with fast kernels on ARM.

    Raises:
        RecipeError: it makes no sense.
    """
    if size is None and bits is None:
        if types or sensitivity:
            raise RecipeError(f"{'--types' if types else '--sensitivity'} belongs to a budget: give --size or --bpw")
        return None
    if size is not None and bits is not None:
        raise RecipeError("--size and --bpw are one budget: give one of them")
    if isinstance(size, str):
        try:
            size = parse_size(size)
        except ValueError:
            raise RecipeError(f"--size: {size!r} is not a size such as 400MB or 1.5GB") from None
    if bits is not None and not 0 < bits <= 32:
        raise RecipeError(f"--bpw: {bits:g} bits for each weight cannot be; it is a number such as 4.5")
    names = tuple(dict.fromkeys(find_type(name, "--types").name for name in types or FAST))
    return FileBudget(size, bits, names, sensitivity)


def candidates(
    weights: Sequence[Weight],
    types: Sequence[str],
    named: Mapping[str, TypeChoice] | None = None,
    measured: Collection[str] = (),
) -> dict[str, tuple[GGMLType, ...]]:
    """The types that each tensor may have, the one that it must have where there is no choice.

    Args:
        types: names of the types that may be chosen.
        named: the types that a person named.
        measured: the tensors for which an importance matrix has values; the others get none of the types that need them.

    Raises:
        RecipeError: a tensor can have none of them.
    """
    kinds = [TYPES_BY_NAME[name] for name in types]
    found: dict[str, tuple[GGMLType, ...]] = {}
    for weight in weights:
        if not quantizable(weight) or weight.name in (named or {}):
            found[weight.name] = ((named or {}).get(weight.name, TypeChoice(weight.stored, weight.stored)).type,)
            continue
        length = weight.shape[-1]
        whole = [kind for kind in kinds if length % kind.block == 0] or [fit(kind, length) for kind in kinds]
        if length % 32:  # no block divides it, and how much it matters cannot be tried
            whole = whole[:1]
        blind = weight.name not in measured
        seen = [kind for kind in whole if not (blind and needs_imatrix(weight.name, kind, RECIPES["Q2_K_S"]))]
        if not seen:
            raise RecipeError(f"--types: {', '.join(types)} all need an importance matrix for {weight.name}; name others too")
        found[weight.name] = tuple(dict.fromkeys(seen))
    return found
