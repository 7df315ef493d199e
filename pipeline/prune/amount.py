"""How much of a dimension stays, as a person says it: 1280 stay, or 20% go."""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.errors import RecipeError
from agent.text import brief

_FINE, _COARSE = 32, 256  # the blocks of Q4_0 and Q8_0, and those of the K-quants
_NAMED = "drop:"
_NEAR = 0.05  # a multiple of 256 is taken if it is within this share of what was asked


@dataclass(frozen=True, slots=True)
class Amount:
    """One of the two.

    Attributes:
        stay: how many stay.
        go: which share goes, above 0 and below 1.
        option: for messages.
    """

    stay: int | None
    go: float | None
    option: str

    def of(self, total: int) -> int:
        """How many of ``total`` stay, unrounded. Raises RecipeError if that is none, or all."""
        stay = self.stay if self.stay is not None else round(total * (1 - (self.go or 0)))
        if not 0 < stay < total:
            raise RecipeError(f"{self.option} {self}: the model has {total}, so 1 to {total - 1} can stay")
        return stay

    def of_kernels(self, total: int) -> int:
        """The same, rounded to what kernels like: the nearest multiple of 256 if that is near, else of 32."""
        stay = self.of(total)
        for unit, near in ((_COARSE, _NEAR), (_FINE, 1.0)):
            size = min(round(stay / unit) * unit, (total - 1) // unit * unit)
            if size and abs(size - stay) <= near * stay:
                return size
        raise RecipeError(f"{self.option} {self}: sizes are multiples of {_FINE}, and {total} has none near {stay}")

    def __str__(self) -> str:
        return str(self.stay) if self.stay is not None else f"{100 * (self.go or 0):g}%"


def read_amount(said: str | int | None, option: str) -> Amount | None:
    """What an option says. Raises RecipeError."""
    if said is None:
        return None
    text = str(said).strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return Amount(int(text), None, option)
    if match := re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]+)?) ?%", text):
        share = float(match[1]) / 100
        if 0 < share < 1:
            return Amount(None, share, option)
    raise RecipeError(f"{option} {brief(text)} is no amount: a number says how many stay, a percentage how many go, as 20%")


@dataclass(frozen=True, slots=True)
class Depth:
    """How many layers stay, or which go."""

    amount: Amount | None
    drop: tuple[int, ...]


def read_depth(said: str | int | None) -> Depth | None:
    """What ``--depth`` says: "24" stay, "20%" go, or "drop:10,12-14". Raises RecipeError."""
    text = str(said).strip() if said is not None else ""
    if not text.startswith(_NAMED):
        amount = read_amount(said, "--depth")
        return Depth(amount, ()) if amount else None
    layers: set[int] = set()
    for part in text.removeprefix(_NAMED).split(","):
        match = re.fullmatch(r"\s*([0-9]{1,4})(?:-([0-9]{1,4}))?\s*", part)
        if match is None or int(match[2] or match[1]) < int(match[1]):
            raise RecipeError(f"--depth {brief(text)} names no layers: drop:10,12-14 is how")
        layers |= set(range(int(match[1]), int(match[2] or match[1]) + 1))
    return Depth(None, tuple(sorted(layers)))
