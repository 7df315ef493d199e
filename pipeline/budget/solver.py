"""The exact choice: one type for each tensor, the least loss in all, not more bytes than there are.

This is a multiple-choice knapsack. HiGHS solves it (``scipy.optimize.milp``) by branch and bound, and says how far the choice can
be from the best one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.errors import RecipeError, SprigError

_GAP, _SECONDS = 1e-6, 20.0  # where the search ends: it is proved so near to the best, or has taken so long


@dataclass(frozen=True, slots=True)
class Option:
    """One way to store a tensor: the type's name, its bytes in the file, and what is lost (in any unit, never negative)."""

    kind: str
    nbytes: int
    loss: float


@dataclass(frozen=True, slots=True)
class Allocation:
    """What was chosen.

    Attributes:
        kinds: tensor name -> type name.
        nbytes: of all tensors.
        loss: of all tensors.
        bound: no choice within the budget loses less than this.
    """

    kinds: Mapping[str, str]
    nbytes: int
    loss: float
    bound: float

    @property
    def gap(self) -> float:
        """By which share of its loss the choice can be worse than the best one."""
        return max(0.0, self.loss - self.bound) / self.loss if self.loss > 0 else 0.0


def limits(options: Mapping[str, Sequence[Option]]) -> tuple[int, int]:
    """Bytes with the smallest and with the largest option of every tensor."""
    sizes = [[o.nbytes for o in some] for some in options.values()]
    return sum(map(min, sizes)), sum(map(max, sizes))


def allocate(options: Mapping[str, Sequence[Option]], nbytes: int) -> Allocation:
    """Choose one option for each tensor, so that the sum of the losses is least and the bytes are at most ``nbytes``.

    Of options that lose the same, the smaller one is taken.

    Raises:
        RecipeError: the smallest options together are larger.
    """
    if limits(options)[0] > nbytes:
        raise RecipeError(f"the smallest types need {limits(options)[0]:,} bytes, and {nbytes:,} are to be spent")
    useful = {name: _useful(some) for name, some in options.items()}
    fixed = {name: some[0] for name, some in useful.items() if len(some) == 1}
    free = {name: some for name, some in useful.items() if len(some) > 1}
    chosen, bound = _solve(free, nbytes - sum(o.nbytes for o in fixed.values())) if free else ({}, 0.0)
    chosen |= fixed
    loss = sum(o.loss for o in chosen.values())
    return Allocation(
        {name: chosen[name].kind for name in options},
        sum(o.nbytes for o in chosen.values()),
        loss,
        min(loss, bound + sum(o.loss for o in fixed.values())),
    )


def _useful(options: Sequence[Option]) -> list[Option]:
    """The options that are better than every smaller one, the smallest first."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.nbytes, o.loss)):
        if not kept or option.loss < kept[-1].loss:
            kept.append(option)
    return kept


def _solve(options: Mapping[str, Sequence[Option]], nbytes: int) -> tuple[dict[str, Option], float]:
    """The choice, and the bound of its loss."""
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_array

    flat = [(i, option) for i, some in enumerate(options.values()) for option in some]
    rows, columns = np.array([i for i, _ in flat]), np.arange(len(flat))
    losses, sizes = np.array([o.loss for _, o in flat]), np.array([float(o.nbytes) for _, o in flat])
    scale = losses.max()  # HiGHS has absolute tolerances, so the numbers are brought near to one
    one_each = csr_array((np.ones(len(flat)), (rows, columns)), shape=(len(options), len(flat)))
    found = milp(
        losses / scale,
        integrality=np.ones(len(flat)),
        bounds=Bounds(0, 1),
        constraints=[LinearConstraint(one_each, 1, 1), LinearConstraint(sizes[None] / nbytes, 0, 1)],
        options={"mip_rel_gap": _GAP, "time_limit": _SECONDS},
    )
    if found.x is None:
        raise SprigError(f"the types could not be chosen: {found.message}; report this as a bug")
    taken = [option for (_, option), x in zip(flat, found.x, strict=True) if x > 0.5]
    return _within(dict(zip(options, taken, strict=True)), options, nbytes), float(found.mip_dual_bound) * scale


def _within(chosen: dict[str, Option], options: Mapping[str, Sequence[Option]], nbytes: int) -> dict[str, Option]:
    """The choice without the few bytes by which the solver's tolerance lets it pass the budget."""
    while (over := sum(o.nbytes for o in chosen.values()) - nbytes) > 0:
        steps = [(o.loss - chosen[n].loss, n, o) for n, some in options.items() for o in some if o.nbytes < chosen[n].nbytes]
        enough = [step for step in steps if chosen[step[1]].nbytes - step[2].nbytes >= over]
        _, name, smaller = min(enough or steps, key=lambda step: step[0])
        chosen[name] = smaller
    return chosen
