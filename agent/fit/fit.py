"""Which form of a model fits a device: size, memory at each context, speed, and what to take and why."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from agent.errors import SprigError
from agent.files import human_size
from agent.fit.profile import DeviceProfile, Figure
from agent.fit.speed import Prediction, bytes_per_token, kernel, predict
from agent.gguf.types import TYPES_BY_NAME
from agent.models.file import ModelFile
from agent.models.memory import (
    BATCH,
    CONVERSATIONS,
    FREE_PART,
    STEP,
    Cache,
    LoadPlan,
    MemoryBudget,
    Need,
    least_context,
    longest_context,
    need,
    plan_load,
)

MEMORY_ERROR = 5  # per cent, against ggml's own log of its buffers (tests/agent/models/test_memory.py)
_LONGEST = 32768  # tokens; what is longer no small device can hold
_WANTED_CONTEXT = 4096  # tokens an agent needs to work with
_COMFORTABLE = 10.0  # tokens a second: as fast as a person reads
_ALMOST = 0.9  # of the best speed: what is so fast and better is taken
_FEWEST_BITS = 4.2  # of a weight; below, small models lose their sense
_SLOW_PART = 0.1  # of the weights, in types that the processor reads slowly
_SLOW_RATE = 0.65  # of the speed with types that are repacked
_FLOATS = frozenset({"F32", "F16", "BF16"})


@dataclass(frozen=True, slots=True)
class ModelForm:
    """One form of a model: a file that is there, or one that a recipe would make."""

    recipe: str
    file: ModelFile


@dataclass(frozen=True, slots=True)
class ContextNeed:
    """Memory with a context of so many tokens, with K and V in F16 and in Q8_0, as the weights would be held."""

    context: int
    f16: Need
    q8_0: Need


@dataclass(frozen=True, slots=True)
class FormEstimate:
    """What is to be expected of one form of a model on a device.

    Attributes:
        plan: how it would be loaded; None when it does not fit.
        least: bytes that it needs with the shortest context.
        contexts: memory at each context, whether it fits or not.
        speed: as it would be loaded, or with the shortest context.
        bits: of a weight, on average.
        slow, slow_types: the part of the weights that the processor reads much slower than what it repacks, and its types.
    """

    recipe: str
    file: ModelFile
    plan: LoadPlan | None
    least: int
    contexts: tuple[ContextNeed, ...]
    speed: Prediction
    bits: float
    slow: float
    slow_types: tuple[str, ...]

    @property
    def hazard(self) -> str:
        """What speaks against it on this device, in one phrase; empty when nothing does."""
        return f"{self.slow:.0%} of it is {'/'.join(self.slow_types)}, slow to read here" if self.slow >= _SLOW_PART else ""


@dataclass(frozen=True, slots=True)
class Fit:
    """All that was found out.

    Attributes:
        budget: what a model may take there.
        estimates: in the order of quality, the best first.
        chosen: the one to take; None when none fits.
        why: the reason, or what the smallest would need, in one line.
    """

    device: DeviceProfile
    budget: MemoryBudget
    estimates: tuple[FormEstimate, ...]
    chosen: FormEstimate | None
    why: str


def device_budget(device: DeviceProfile, memory: int | None) -> MemoryBudget:
    """What a model may take on a device: what a person says, or a part of what its system leaves."""
    if memory is not None:
        return MemoryBudget.of(memory)
    free = human_size(device.memory - device.system)
    return MemoryBudget(
        device.budget, f"{human_size(device.budget)} may be taken, {100 * FREE_PART:.0f} % of the {free} that its system leaves"
    )


def fit(forms: Iterable[ModelForm], device: DeviceProfile, budget: MemoryBudget, context: int | None = None) -> Fit:
    """Estimate every form of a model on a device, and choose one.

    Args:
        forms: in the order of quality, the best first.
        budget: what a model may take there.
        context: tokens that are wanted; by default what would be chosen when it is loaded.

    Raises:
        SprigError: the model was not trained for so much context, or it writes no text.
    """
    estimates = tuple(_estimate(one, device, budget, context) for one in forms)
    chosen, why = choose(estimates, budget, context)
    return Fit(device, budget, estimates, chosen, why)


def _estimate(form: ModelForm, device: DeviceProfile, budget: MemoryBudget, context: int | None) -> FormEstimate:
    file, processor = form.file, device.processor
    if not file.causal:
        raise SprigError(f"{file.name} is an embedding model; it writes no text, and only models that do are fitted")
    if context is not None and context > longest_context(file):
        raise SprigError(f"{file.name} was trained for {file.n_ctx_train} tokens of context, and {context} were asked for")
    try:
        plan = plan_load(file, budget, context=context, processor=processor)
    except SprigError:
        plan = None
    held = _held(file, device) if plan is None or plan.repack else frozenset()

    def needs(tokens: int, cache: Cache) -> Need:
        return need(file, context=tokens, sequences=CONVERSATIONS, batch=BATCH, cache=cache, repacked=held)

    shortest = context or least_context(file)
    rows = tuple(ContextNeed(n, needs(n, "f16"), needs(n, "q8_0")) for n in _contexts(file, context))
    least = need(file, context=shortest, sequences=CONVERSATIONS, batch=BATCH, cache="q8_0").total
    speed = predict(
        file, device, context=plan.context if plan else shortest, cache=plan.cache if plan else "q8_0",
        repack=plan.repack if plan else True,
    )  # fmt: skip
    types = bytes_per_token(file)
    plain = sorted((k for k in types if k not in _FLOATS and is_slow(device, k)), key=lambda k: -types[k])
    slow = sum(types[k] for k in plain) / max(1, sum(types.values()))
    weights = sum(8 * size / TYPES_BY_NAME[k].bits_per_weight for k, size in types.items())
    bits = 8 * sum(types.values()) / max(1.0, weights)
    return FormEstimate(form.recipe, file, plan, least, rows, speed, bits, slow, tuple(plain))


def _held(file: ModelFile, device: DeviceProfile) -> frozenset[str]:
    """Types that would be held repacked."""
    return device.processor.repacked & (file.matrices.keys() | file.tied.keys())


def _contexts(file: ModelFile, context: int | None) -> list[int]:
    if context is not None:
        return [-(-context // STEP) * STEP]
    longest = min(_LONGEST, longest_context(file))
    return [n for n in (1024 << i for i in range(6)) if n <= longest] or [longest]


def choose(
    estimates: Sequence[FormEstimate], budget: MemoryBudget, context: int | None = None
) -> tuple[FormEstimate | None, str]:
    """Which to take and why: the best that fits, has no slow types and writes as fast as one reads; else the fastest good one."""
    fitting = [e for e in estimates if e.plan]
    if not fitting:
        smallest = min(estimates, key=lambda e: e.least)
        return None, (
            f"none fits: the smallest, {smallest.recipe}, needs {human_size(smallest.least)} with a context of "
            f"{context or smallest.contexts[0].context}, and {budget.words}; take a smaller model or a device with more memory"
        )
    if len(estimates) == 1:
        return fitting[0], "it fits"
    roomy = [e for e in fitting if is_roomy(e, context)]
    if not roomy:
        best = max(fitting, key=lambda e: e.plan.context if e.plan else 0)
        return best, f"none has room for a context of {_WANTED_CONTEXT} tokens; this one has the most"
    sound = [e for e in roomy if not e.hazard and e.bits >= _FEWEST_BITS and not _is_float(e)] or roomy
    quick = next((e for e in sound if e.speed.writes >= _COMFORTABLE), None)
    if quick:
        return quick, f"the best quality that writes at least {_COMFORTABLE:.0f} tokens a second, as fast as one reads"
    most = max(e.speed.writes for e in sound)
    best = next(e for e in sound if e.speed.writes >= _ALMOST * most)
    return best, f"none writes {_COMFORTABLE:.0f} tokens a second; this is the best of the fastest"


def is_roomy(estimate: FormEstimate, context: int | None = None) -> bool:
    """Whether it fits with as much context as an agent needs to work with, or as is wanted."""
    plan = estimate.plan
    return plan is not None and plan.context >= min(_WANTED_CONTEXT, context or estimate.file.n_ctx_train)


def is_quick(estimate: FormEstimate, chosen: FormEstimate) -> bool:
    """Whether it writes as fast as one reads, or at least as fast as the form that was chosen."""
    return estimate.speed.writes >= min(_COMFORTABLE, chosen.speed.writes)


def is_slow(device: DeviceProfile, kind: str) -> bool:
    """Whether a device reads weights of this type much slower than what it repacks."""
    return kernel(device, kind).value < _SLOW_RATE * device.prefill.repacked.value


def keeps_sense(kind: str) -> bool:
    """Whether a type has enough bits for a small model, and is none of the floats."""
    return kind not in _FLOATS and TYPES_BY_NAME[kind].bits_per_weight >= _FEWEST_BITS


def _is_float(estimate: FormEstimate) -> bool:
    return not bytes_per_token(estimate.file).keys() - _FLOATS


def basis(device: DeviceProfile, estimate: FormEstimate) -> list[tuple[str, str, Figure]]:
    """The figures behind the speeds of one estimate: what each is, its unit, and itself."""
    decode, prefill, types = device.decode, device.prefill, bytes_per_token(estimate.file)
    used = sorted((k for k in types if types[k] >= _SLOW_PART * sum(types.values())), key=lambda k: -types[k])
    found = [("a layer", "ms", decode.layer)]
    found += [(f"of {kind}", "GB/s", decode.types[kind]) for kind in used if kind in decode.types]
    if any(kind not in decode.types for kind in used):
        found.append(("of memory", "GB/s", decode.bandwidth))
    repack = estimate.plan.repack if estimate.plan else True
    found += [(f"with {kind}", "GFLOP/s", kernel(device, kind, repack)) for kind in used]
    return [*found, ("in attention", "GFLOP/s", prefill.attention)]


def to_dict(found: Fit, model: str) -> dict[str, Any]:
    """For a script."""
    device, chosen = found.device, found.chosen
    shown = chosen or min(found.estimates, key=lambda e: e.least)
    return {
        "model": model,
        "device": {
            "name": device.full_name or "this machine", "title": device.title, "memory": device.memory, "cores": device.cores,
            "features": sorted(device.processor.features), "budget": found.budget.size,
        },
        "recipes": [_recipe(one, found.budget) for one in found.estimates],
        "choice": chosen.recipe if chosen else None,
        "why": found.why,
        "basis": [{"figure": what, "unit": unit, **asdict(figure)} for what, unit, figure in basis(device, shown)],
        "error": {"memory": MEMORY_ERROR, "writes": device.decode.error, "reads": device.prefill.error},
    }  # fmt: skip


def _recipe(one: FormEstimate, budget: MemoryBudget) -> dict[str, Any]:
    plan = one.plan
    return {
        "recipe": one.recipe,
        "size": one.file.size,
        "fits": plan is not None,
        "plan": asdict(plan) | {"total": plan.need.total} if plan else None,
        "least": one.least,
        "reads": round(one.speed.reads, 2),
        "writes": round(one.speed.writes, 2),
        "writes_full": round(one.speed.writes_full, 2),
        "slow": round(one.slow, 3),
        "slow_types": list(one.slow_types),
        "contexts": [
            {"context": row.context, "f16": _need(row.f16, budget), "q8_0": _need(row.q8_0, budget)} for row in one.contexts
        ],
    }


def _need(one: Need, budget: MemoryBudget) -> dict[str, Any]:
    return {**asdict(one), "total": one.total, "fits": one.total <= budget.size}
