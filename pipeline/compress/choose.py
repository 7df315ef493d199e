"""Which candidate is the best, by what was measured: each must beat the whole model in the same bytes, or that is taken."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.errors import SprigError
from agent.text import display
from pipeline.compress.plan import WHOLE
from pipeline.compress.stage import StageAnswer
from pipeline.compress.stages import WayStages
from pipeline.steps.pairs import Measured, paired

_ERRORS = 2.0  # standard errors that a difference must have to be one


@dataclass(frozen=True, slots=True)
class MeasuredWay:
    """A candidate and what its file is worth.

    Attributes:
        size: bytes; 0 when it was not made.
        kld, kld_over: mean KL divergence from the original in nats, and that less the whole model's, paired window by window;
            None where the vocabulary is another one.
        bits, bits_over: bits per byte, and those less the whole model's, paired piece by piece; None where no vocabulary was cut.
        beats: whether it is better than the whole model, beyond what chance explains; None for that itself and where it is not
            there.
        error: why it was not made or measured; empty otherwise.
    """

    name: str
    why: str
    size: int
    kld: Measured | None
    kld_over: Measured | None
    bits: Measured | None
    bits_over: Measured | None
    beats: bool | None
    error: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class ChosenWay:
    """All candidates, the name of the one that is taken, and why, in one line."""

    ways: tuple[MeasuredWay, ...]
    chosen: str
    why: str


def choose_way(ways: Sequence[WayStages], answers: Mapping[str, StageAnswer]) -> ChosenWay:
    """Compare the candidates.

    Raises:
        SprigError: none was made, or not the whole model, without which nothing can be said of the others.
    """
    whole = next((way for way in ways if way.way.name == WHOLE), None)
    found = tuple(_measured(way, whole, answers) for way in ways)
    made = [one for one in found if not one.error]
    if whole is not None:
        base = next(one for one in found if one.name == WHOLE)
        if base.error:
            raise SprigError(f"the whole model could not be made or measured, so that nothing can be compared: {base.error}")
        better = [one for one in made if one.beats]
        if not better:
            return ChosenWay(found, WHOLE, _none_better(base, found))
        best = _best(better)
        return ChosenWay(found, best.name, f"{best.name} beats the whole model in the same bytes: {_over(best)}")
    if not made:
        raise SprigError(f"no candidate could be made: {'; '.join(f'{one.name}: {one.error}' for one in found)}")
    best = _best(made)
    return ChosenWay(found, best.name, f"{best.name}: the whole model cannot be so small{_of_others(made)}")


def _measured(way: WayStages, whole: WayStages | None, answers: Mapping[str, StageAnswer]) -> MeasuredWay:
    failed = next((answers[name] for name in way.stages if name in answers and answers[name].error), None)
    missing = next((name for name in way.stages if name not in answers), None)
    made = answers.get(way.quantize)
    kld, kld_over = _pair(way.evaluate, whole.evaluate if whole else None, answers, _divergences)
    bits, bits_over = _pair(way.bits, whole.bits if whole else None, answers, _bits)
    over = bits_over if way.way.cuts_vocabulary else kld_over
    error = f"{failed.name}: {failed.error}" if failed else f"{missing} was not done" if missing else ""
    own = whole is None or way.way.name == WHOLE
    return MeasuredWay(
        way.way.name, way.way.why, made.size if made else 0, kld, kld_over, bits, bits_over,
        None if own or error or over is None else _less(over), error,
    )  # fmt: skip


def _pair(
    own: str | None, whole: str | None, answers: Mapping[str, StageAnswer], rows: Any
) -> tuple[Measured | None, Measured | None]:
    """The mean of a figure, and that less the whole model's."""
    mine = rows(answers[own].result) if own and own in answers and not answers[own].error else None
    if not mine:
        return None, None
    base = rows(answers[whole].result) if whole and whole in answers and whole != own and not answers[whole].error else None
    nothing = [{**one, "kld": 0.0} for one in mine]
    return paired(mine, nothing, "kld"), paired(mine, base, "kld") if base else None


def _divergences(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    return list(result["candidates"][0]["per_window"])


def _bits(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Bits per byte in the place of a divergence per token."""
    return [{"domain": one["domain"], "tokens": one["bytes"], "kld": one["bits"]} for one in result["per_piece"]]


def _less(over: Measured) -> bool:
    value, error = over
    return error is not None and value < -_ERRORS * error  # one window has no error, and says nothing


def _best(ways: Sequence[MeasuredWay]) -> MeasuredWay:
    """By divergence where all have one; by bits per byte where a vocabulary is another one."""
    if all(one.kld is not None for one in ways):
        return min(ways, key=lambda one: one.kld[0] if one.kld else 0.0)
    return min(ways, key=lambda one: one.bits[0] if one.bits else float("inf"))


def _none_better(base: MeasuredWay, ways: Sequence[MeasuredWay]) -> str:
    others = [one for one in ways if one.name != WHOLE]
    if not others:
        return "whole: nothing was cut"
    told = "; ".join(f"{one.name} {_over(one)}" for one in others)
    return f"whole: nothing that was cut beats the whole model in the same bytes ({told})"


def _over(one: MeasuredWay) -> str:
    """A candidate beside the whole model, in words."""
    if one.error:
        return f"failed: {display(one.error)}"
    for over, unit in ((one.kld_over, "nats of KL divergence"), (one.bits_over, "bits per byte")):
        if over is not None:
            return f"{over[0]:+.4f}{'' if over[1] is None else f' ± {over[1]:.4f}'} {unit}"
    return "cannot be compared"


def _of_others(made: Sequence[MeasuredWay]) -> str:
    return f", and it is the best of {len(made)}" if len(made) > 1 else ""
