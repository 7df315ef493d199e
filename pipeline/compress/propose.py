"""Which candidates are worth their time, from the budget, the model's shape, the data and the time that there is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.files import human_size
from pipeline.compress.plan import WHOLE, CompressPlan, WayDown
from pipeline.compress.shape import ModelShape
from pipeline.recipes.budget import FAST

# Below so many bits for each weight, rounding alone loses so much that neurons may be the cheaper loss; well above it never is.
_FEW_BITS = 4.75
_VOCABULARY_PART = 0.08  # of the weights: a smaller vocabulary would hardly make room
_KEPT_TOKENS, _FEWEST_TOKENS = 1 / 3, 8192
_KEPT_NEURONS, _FEWEST_NEURONS = 5 / 6, 256
DISTILL_SECONDS = 600  # less teaches nothing that could be measured
_MOST_SHARE = 0.9  # of the time that is left is planned for learning


@dataclass(frozen=True, slots=True)
class Proposal:
    """Candidates, and what a person should know about them."""

    ways: tuple[WayDown, ...]
    notes: tuple[str, ...]


def types_of(plan: CompressPlan) -> tuple[str, ...]:
    """The types that a budget may choose from."""
    said = plan.quantize.get("types")
    return tuple(name.strip() for name in str(said).split(",")) if said else FAST


def propose(plan: CompressPlan, shape: ModelShape, size: int) -> Proposal:
    """The candidates for so many bytes. The first is the whole model, where it can be so small; nothing learns yet.

    Raises:
        RecipeError: a type is not known.
    """
    least, most = shape.limits(types_of(plan))
    bits = 8 * (size - shape.header) / shape.n_weights
    if size >= most:
        note = f"all of it fits: with its largest types it has {human_size(most)}, so that nothing is cut"
        return Proposal((WayDown(WHOLE, why="all of it fits"),), (note,))
    ways, notes = [WayDown(WHOLE, why=f"{bits:.2f} bits for each weight")], []
    ways += _vocabulary(plan, shape)
    if bits >= _FEW_BITS:
        notes.append(f"no neurons are cut: {bits:.2f} bits for each weight lose less than that would")
    elif cut := _ffn(shape):
        ways.append(cut)
        if len(ways) == 3:  # both together
            ways.append(WayDown("vocab-ffn", {**(ways[1].prune or {}), **(cut.prune or {})}, why="both"))
    kept = tuple(way for way in ways if way_shape(way, shape).limits(types_of(plan))[0] <= size)
    if WHOLE not in [way.name for way in kept]:
        notes.append(f"the whole model cannot be so small: with {', '.join(types_of(plan))} it has at least {human_size(least)}")
    return Proposal(kept, tuple(notes))


def _vocabulary(plan: CompressPlan, shape: ModelShape) -> list[WayDown]:
    size = max(_FEWEST_TOKENS, int(shape.vocabulary * _KEPT_TOKENS) // 256 * 256)
    if not plan.data or shape.vocabulary_part < _VOCABULARY_PART or size >= shape.vocabulary:
        return []
    why = f"embedding and head are {shape.vocabulary_part:.0%} of the weights; {size:,} tokens stay, chosen by the data"
    return [WayDown("vocab", {"vocab_size": size}, why=why)]


def _ffn(shape: ModelShape) -> WayDown | None:
    unit = 256 if shape.ffn >= 1536 else 32
    size = int(shape.ffn * _KEPT_NEURONS) // unit * unit
    if shape.ffn < _FEWEST_NEURONS or not 0 < size < shape.ffn:
        return None
    return WayDown(
        "ffn", {"ffn": str(size)}, why=f"{size:,} of {shape.ffn:,} neurons of each layer stay; what follows is repaired"
    )


def way_shape(way: WayDown, shape: ModelShape) -> ModelShape:
    """What is left of the model, as far as the options say it; cuts that are not known beforehand leave it as it is."""
    cut = way.prune or {}
    if str(tokens := cut.get("vocab_size", "")).isdecimal() and 0 < int(tokens) < shape.vocabulary:
        shape = shape.with_vocabulary(int(tokens))
    neurons = _stay(str(cut.get("ffn", "")), shape.ffn)
    return shape.with_ffn(neurons) if 0 < neurons < shape.ffn else shape


def _stay(said: str, total: int) -> int:
    """How many stay: "1280", or "20%" that go; 0 where that is not said."""
    if said.isdecimal():
        return int(said)
    share = said.removesuffix("%").strip()
    return int(total * (1 - float(share) / 100)) if said.endswith("%") and share.replace(".", "", 1).isdecimal() else 0


def with_learning(ways: Sequence[WayDown], seconds: float | None, per_token: Sequence[float]) -> Proposal:
    """The candidates; those that lost neurons have a share of the time to learn in, as tokens, so that it can be repeated.

    Args:
        seconds: that are left beside everything else; None where no time was given.
        per_token: seconds that each candidate takes for a token.
    """
    pupils = [way for way in ways if set(way.prune or {}) - {"vocab", "vocab_size"} and way.distill is None]
    if not pupils:
        return Proposal(tuple(ways), ())
    if seconds is None:
        return Proposal(tuple(ways), ("nothing learns again: no --time was given",))
    share = _MOST_SHARE * seconds / len(pupils)
    if share < DISTILL_SECONDS:
        return Proposal(
            tuple(ways), (f"nothing learns again: {max(0, seconds) / 60:.0f} minutes of the time would be left for it",)
        )
    found = tuple(
        WayDown(way.name, way.prune, {"tokens": max(1024, int(share / each) // 1024 * 1024)}, way.why) if way in pupils else way
        for way, each in zip(ways, per_token, strict=True)
    )
    return Proposal(found, ())
