"""The recipes and the types that there are, and which of them a person means."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from dataclasses import dataclass

from agent.errors import RecipeError
from agent.gguf.types import TYPES_BY_NAME, GGMLType
from agent.models.find import expanded
from agent.models.reference import hub_reference
from agent.text.nearest import nearest


@dataclass(frozen=True, slots=True)
class Recipe:
    """A named mixture. ``base`` is the type of most tensors."""

    name: str
    base: GGMLType

    @property
    def ftype(self) -> int:
        """The number that ``general.file_type`` carries."""
        from gguf import LlamaFileType  # help lists the recipes, and must not wait for gguf

        name = self.name if self.name in RECIPES else _said(self.base.name) or self.base.name  # a budget is no name there
        return int(LlamaFileType["ALL_F32" if name == "F32" else f"MOSTLY_{name}"])

    @property
    def quantized(self) -> bool:
        return self.base.block > 1


USUAL = "Q4_K_M"
# Recipes whose base type has another name than they have without their size: S, M or L says how many tensors get a better type.
_BASES = {"IQ3_XS": "IQ3_S", "IQ3_M": "IQ3_S", "IQ2_S": "IQ2_XS", "IQ2_M": "IQ2_S"}
RECIPES: dict[str, Recipe] = {
    name: Recipe(name, TYPES_BY_NAME[_BASES.get(name) or re.sub("(?<=K)_[SML]$", "", name)])
    for name in (
        "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q5_1", "Q5_0", "Q4_K_M", "Q4_K_S", "Q4_1", "Q4_0",
        "IQ4_NL", "IQ4_XS", "Q3_K_L", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "Q2_K", "Q2_K_S",
        "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS",
    )
}  # fmt: skip

# The types that --tensor-type, --output-type and --embedding-type may name.
WRITABLE = (
    "F32", "F16", "BF16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K", "Q2_K", "Q5_0", "Q5_1", "Q4_0", "Q4_1", "IQ4_NL", "IQ4_XS",
    "IQ3_S", "IQ3_XXS", "IQ2_S", "IQ2_XS", "IQ2_XXS", "MXFP4",
)  # fmt: skip

# What people say, in capitals and without dashes. Q3_K, Q4_K and Q5_K mean to llama-quantize what they mean here.
_MEANT = {
    "Q3K": "Q3_K_M", "Q4K": "Q4_K_M", "Q5K": "Q5_K_M",
    "16BIT": "F16", "FP16": "F16", "FLOAT16": "F16", "HALF": "F16", "BFLOAT16": "BF16",
    "32BIT": "F32", "FP32": "F32", "FLOAT32": "F32", "FLOAT": "F32",
}  # fmt: skip
_BITS = {"2": "Q2_K", "3": "Q3_K_M", "4": "Q4_K_M", "5": "Q5_K_M", "6": "Q6_K", "8": "Q8_0"}  # the usual recipe of so many
_SAYS_BITS = re.compile(r"(?:Q|INT)([2-68])|([2-68])BITS?")


def _written(name: str) -> str:
    return name.strip().upper().replace("-", "_").replace(" ", "_")


def _said(name: str) -> str | None:
    """The recipe that people mean by such a name."""
    word = _written(name).replace("_", "")
    bits = _SAYS_BITS.fullmatch(word)
    return _BITS[bits[1] or bits[2]] if bits else _MEANT.get(word)


def find_recipe(name: str) -> Recipe:
    """The recipe of this name, or that people mean by it: ``q4_k_m``, ``Q4_K``, ``q4``, ``int8``, ``fp16``.

    Capitals do not matter, nor whether it is a dash, a space or ``_``.

    Raises:
        RecipeError: there is none, with the nearest name.
    """
    recipe = RECIPES.get(_written(name)) or RECIPES.get(_said(name) or "")
    if recipe is None:
        raise RecipeError(f"{name!r} is not a recipe; {_hint(name, RECIPES)}")
    return recipe


def wanted_recipe(model: str, recipe: str | None) -> str | None:
    """The recipe that a person wants: the one named by itself, or else behind the model's name, as in ``org/name:Q8_0``.

    Raises:
        RecipeError: two are named and they differ, or what stands behind the model is none.
    """
    reference = None if os.path.exists(expanded(model)) else hub_reference(model)  # noqa: PTH110 - any text may be typed
    behind = reference.selector if reference else None
    if reference and behind and behind.lower().endswith(".gguf"):
        pulled = shlex.quote(f"{reference.repo_id}:{behind}")
        raise RecipeError(f"{behind!r} is a file of {reference.repo_id} and no recipe; `sprig pull {pulled}` brings it as it is")
    if behind and "." in behind:  # the address of a file of the checkpoint, as a browser has it
        behind = None
    if recipe and behind and find_recipe(recipe) != find_recipe(behind):
        raise RecipeError(f"two recipes are named, {behind!r} behind the model and {recipe!r}; leave one out")
    return recipe or behind


def taken_note(name: str) -> str | None:
    """One line when the recipe was named by another word than its own."""
    return None if _written(name) in RECIPES else f"{name!r} was taken as {find_recipe(name).name}"


def find_type(name: str, where: str) -> GGMLType:
    """The ggml type of this name, or the base type of the recipe that people mean by it.

    Args:
        where: the option that named it.

    Raises:
        RecipeError: there is none, with the nearest name.
    """
    written, meant = _written(name), _said(name)
    if written in WRITABLE:
        return TYPES_BY_NAME[written]
    if meant is None:
        raise RecipeError(f"{where}: {name!r} is not a type that can be written; {_hint(name, WRITABLE)}")
    return RECIPES[meant].base


def _hint(name: str, known: Iterable[str]) -> str:
    names = list(known)
    meant = nearest(_written(name), names)
    return f"did you mean {meant}?" if meant else f"choose one of {', '.join(names)}"
