"""The bytes that a plan may spend: what was said, what so many bits of each weight are, or what a device can hold."""

from __future__ import annotations

from dataclasses import dataclass

from agent.errors import RecipeError, SprigError
from agent.files import human_size
from agent.fit.fit import device_budget, fit
from agent.fit.profile import find_profile
from pipeline.compress.plan import CompressPlan
from pipeline.compress.shape import ModelShape
from pipeline.fit import model_forms


@dataclass(frozen=True, slots=True)
class ByteBudget:
    """Bytes of the file at most, and why so many, for a person."""

    size: int
    why: str


def byte_budget(plan: CompressPlan, shape: ModelShape) -> ByteBudget:
    """What may be spent.

    Raises:
        SprigError: there is no such device, or nothing of this model runs on it.
    """
    if plan.size is not None:
        return ByteBudget(plan.size, f"{human_size(plan.size)}, as was said")
    if plan.bpw is not None:
        size = int(plan.bpw * shape.n_weights / 8)
        return ByteBudget(size, f"{plan.bpw:g} bits for each of {shape.n_weights / 1e6:,.1f} M weights")
    assert plan.device is not None
    return _of_device(plan, plan.device)


def _of_device(plan: CompressPlan, device: str) -> ByteBudget:
    """The size of the form that fits it best; where none does, what is left of its memory beside all that is no weight."""
    profile = find_profile(device)
    budget = device_budget(profile, None)
    forms = model_forms(plan.model, revision=plan.revision)
    found = fit(forms, profile, budget)
    if found.chosen is not None:
        return ByteBudget(found.chosen.file.size, f"{profile.words}: as {found.chosen.recipe}, {found.why}")
    smallest = min(found.estimates, key=lambda one: one.least)
    left = budget.size - (smallest.least - smallest.file.size)
    if left <= 0:
        raise SprigError(f"{plan.model} does not fit a {profile.words}, however small its weights: {found.why}")
    return ByteBudget(left, f"{profile.words}: {budget.words}, and the shortest context takes the rest")


def refuse_budget(budget: ByteBudget, smallest: int, name: str) -> None:
    """Raise RecipeError if not even the smallest candidate can have so few bytes."""
    if budget.size < smallest:
        raise RecipeError(
            f"{name} cannot be {budget.size:,} bytes ({human_size(budget.size)}): the smallest of these candidates has "
            f"{smallest:,} ({human_size(smallest)}); give more, or cut more away with a plan (--save-plan writes one to edit)"
        )
