"""Spends a budget: what is known of the model's sensitivity, completed where it must be, becomes one type for each tensor."""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np

from agent.errors import OutputError, RecipeError, UnsupportedError
from agent.files import free_disk, human_size, make_folder, scratch_folder
from agent.gguf.types import GGMLType
from agent.home import home
from agent.hub.download import OnBytes
from agent.models.file import read_model
from pipeline.budget.errors import GGML, Rounder
from pipeline.budget.measure import Inquiry, measure
from pipeline.budget.sensitivity import Sensitivity, read_sensitivity
from pipeline.budget.solver import Option, allocate, limits
from pipeline.format.gguf_file import padded
from pipeline.preflight import Preflight, Wishes
from pipeline.recipes.budget import FileBudget, candidates
from pipeline.recipes.mixtures import TypeChoice, Weight, named_types
from pipeline.sources.checkpoint import Checkpoint

log = logging.getLogger(__name__)


class MakeCopy(Protocol):
    """Writes the model as a GGUF to compute with, in one of these types, the first that has room, and gives its path."""

    def __call__(self, *, out: Path, kinds: Sequence[str]) -> Path: ...


def texts() -> list[str]:
    """What the probes read: the project's own text for calibration, never what ``sprig evaluate`` measures on."""
    from pipeline.text.calibration import own_text

    return [own_text()]


def spend(
    plan: Preflight,
    wishes: Wishes,
    checkpoint: Checkpoint,
    make: MakeCopy,
    executor: Executor,
    on_progress: OnBytes,
    rounder: Rounder = GGML,
) -> Wishes:
    """Choose the types that lose least, and measure first what is not known yet.

    Args:
        plan: of the same file in types that are not chosen yet.
        make: writes the model as a GGUF in F32 or F16.
        on_progress: of the measuring.
        rounder: who will round.

    Returns:
        The wishes with the types, and the recipe and the note that say so.

    Raises:
        SprigError: the budget cannot be met, or the model cannot be measured.
    """
    budget = _budget(wishes)
    kinds = _kinds(plan, wishes)
    _refuse_outside(plan, budget, kinds)
    own = identity(checkpoint)
    place = sensitivity_file(plan, budget, own, rounder.name)
    known = _known(place, plan, own, rounder.name)
    inquiry = _inquiry(plan, kinds, wishes, rounder)
    if inquiry.missing(known) or inquiry.probes(known):
        place.parent.mkdir(parents=True, exist_ok=True)
        beside, kinds_of_copy = _room(plan)
        with scratch_folder(beside.absolute() / f".{plan.out.name[:60]}.probes") as folder:
            work_file = make(out=folder / "model.gguf", kinds=kinds_of_copy)
            if not read_model(work_file).causal:
                raise UnsupportedError(
                    f"{plan.origin.name} writes no text, and a budget is spent by what the next word loses; use -q"
                )
            wanted = replace(inquiry, texts=texts())
            try:
                known = measure(work_file, known, wanted, executor, on_progress, lambda so_far: so_far.save(place))
            except KeyboardInterrupt:
                raise KeyboardInterrupt("the same command with --resume goes on from what was measured") from None
    return _with_types(plan, replace(wishes, weights=own), kinds, known.losses())


def foresee(plan: Preflight, wishes: Wishes, checkpoint: Checkpoint | None, rounder: Rounder = GGML) -> Wishes:
    """What ``spend`` would choose; where it would have to measure, a guess, with a note that says what.

    Args:
        checkpoint: None where the weights are not on this disk; a sensitivity that is named is then taken at its word.
    """
    budget, kinds = _budget(wishes), _kinds(plan, wishes)
    _refuse_outside(plan, budget, kinds)
    own = identity(checkpoint) if checkpoint else ""
    place = sensitivity_file(plan, budget, own, rounder.name)
    known = _known(place, plan, own, rounder.name)
    inquiry = _inquiry(plan, kinds, wishes, rounder)
    missing, probes = inquiry.missing(known), inquiry.probes(known)
    if not missing and not probes:
        return _with_types(plan, replace(wishes, weights=own or wishes.weights), kinds, known.losses())
    guess = {t.name: {k.name: prod(t.shape) * 4.0**-k.bits_per_weight for k in kinds[t.name]} for t in plan.tensors}
    note = f"the types are a guess: a run measures {len(missing)} tensors and {len(probes)} probes first"
    return replace(_with_types(plan, wishes, kinds, guess), note=note)


def _budget(wishes: Wishes) -> FileBudget:
    assert wishes.budget is not None
    return wishes.budget


def _weights(plan: Preflight) -> list[Weight]:
    return [Weight(t.name, t.shape, plan.model.stored[t.name]) for t in plan.tensors]


def _kinds(plan: Preflight, wishes: Wishes) -> dict[str, tuple[GGMLType, ...]]:
    weights = _weights(plan)
    named = named_types(weights, plan.recipe, plan.model.facts, wishes.overrides, has_imatrix=wishes.imatrix is not None)
    imatrix = wishes.imatrix
    measured = {w.name for w in weights if imatrix and imatrix.of(w.name, w.shape) is not None}
    return candidates(weights, _budget(wishes).types, named, measured)


def _options(
    plan: Preflight, kinds: Mapping[str, Sequence[GGMLType]], losses: Mapping[str, Mapping[str, float]]
) -> dict[str, list[Option]]:
    return {
        t.name: [Option(k.name, padded(k.size(t.shape)), losses.get(t.name, {}).get(k.name, 0.0)) for k in kinds[t.name]]
        for t in plan.tensors
    }


def _refuse_outside(plan: Preflight, budget: FileBudget, kinds: Mapping[str, Sequence[GGMLType]]) -> None:
    """Raise RecipeError if the budget is below the smallest file or above the largest."""
    nbytes, header = budget.nbytes(plan.n_weights), len(plan.layout.header)
    least, most = (n + header for n in limits(_options(plan, kinds, {})))
    if not least <= nbytes <= most:
        asked = f"{nbytes:,} bytes" + (f" ({budget.bits:g} bits per weight)" if budget.bits else "")
        either = "more" if nbytes < least else "less, or name larger types with --types: nothing is gained beyond that"
        raise RecipeError(
            f"{plan.origin.name} cannot be {asked}: with {', '.join(budget.types)} it has {least:,} to {most:,} bytes "
            f"({8 * least / plan.n_weights:.2f} to {8 * most / plan.n_weights:.2f} bits per weight); spend {either}"
        )


def _with_types(
    plan: Preflight, wishes: Wishes, kinds: Mapping[str, Sequence[GGMLType]], losses: Mapping[str, Mapping[str, float]]
) -> Wishes:
    """The wishes with the types that lose least."""
    budget = _budget(wishes)
    found = allocate(_options(plan, kinds, losses), budget.nbytes(plan.n_weights) - len(plan.layout.header))
    chosen = {name: next(k for k in kinds[name] if k.name == kind) for name, kind in found.kinds.items()}
    recipe = budget.recipe({name: TypeChoice(kind, kind) for name, kind in chosen.items()}, _weights(plan))
    note = (
        f"the types are the solver's: about {found.loss:.3g} nats of KL divergence are lost, at most {found.gap:.2%} more than "
        "the least possible by what was measured"
    )
    return replace(wishes, chosen=chosen, recipe=recipe, note=note)


def _inquiry(plan: Preflight, kinds: Mapping[str, Sequence[GGMLType]], wishes: Wishes, rounder: Rounder) -> Inquiry:
    free = {name: some for name, some in kinds.items() if len(some) > 1}
    parts = {t.name: prod(t.shape) / plan.n_weights for t in plan.tensors}
    return Inquiry(free, parts, wishes.imatrix, rounder, (), wishes.threads)


def identity(checkpoint: Checkpoint) -> str:
    """A hash of a model's weights, wherever they lie, with the names and shapes of its tensors."""
    digest = hashlib.blake2b(digest_size=32)
    for name in sorted(checkpoint.tensors):
        info = checkpoint.tensors[name]
        digest.update(f"{name} {info.dtype} {info.shape}\n".encode("utf-8", "surrogateescape"))
        step = max(1, (8 << 20) // max(1, info.row_bytes))
        for start in range(0, info.n_rows, step):
            digest.update(np.ascontiguousarray(checkpoint.rows(name, start, min(start + step, info.n_rows))).data)
    return digest.hexdigest()


def sensitivity_file(plan: Preflight, budget: FileBudget, own: str, encoder: str) -> Path:
    """Where the sensitivity of a model is kept."""
    if budget.sensitivity is not None:
        return budget.sensitivity
    name = re.sub(r"[^\w.-]+", "-", plan.origin.named.name.rsplit("/", 1)[-1]).strip(".-") or "model"
    rounded = (f"-{plan.imatrix.sha256[:8]}" if plan.imatrix else "") + (f"-{encoder}" if encoder != GGML.name else "")
    return home() / "sensitivity" / f"{name}-{own[:12] or 'unknown'}{rounded}.json"


def _known(place: Path, plan: Preflight, own: str, encoder: str) -> Sensitivity:
    """What a file holds; nothing, if it is not there. Raises RecipeError if it is another model's, or of another imatrix."""
    imatrix = plan.imatrix.sha256 if plan.imatrix else ""
    name = plan.origin.named.name
    if not place.exists():
        return Sensitivity(name, own, imatrix, encoder, "", plan.model.facts.n_layers)
    known = read_sensitivity(place)
    if (own and known.identity != own) or known.n_layers != plan.model.facts.n_layers:
        raise RecipeError(f"{place} was measured on another model ({known.model}) than {name}; name another file")
    if known.imatrix != imatrix:
        having = "another importance matrix" if known.imatrix else "no importance matrix"
        raise RecipeError(f"{place} was measured with {having}; give the same --imatrix, or name another file")
    if known.encoder != encoder:
        raise RecipeError(f"{place} was measured for the encoder {known.encoder}, not for {encoder}; name another file")
    return known


def _room(plan: Preflight) -> tuple[Path, tuple[str, ...]]:
    """The folder beside the output, where there must be room anyway, and the types of which it holds two copies of the model.

    Raises OutputError if there is too little for F16.
    """
    folder, needed = plan.out.parent, 2 * 2 * plan.n_weights
    if needed > (free := free_disk(folder)):
        raise OutputError(
            f"measuring needs {human_size(needed)} in {folder}, {human_size(free)} free; name another place with -o"
        )
    make_folder(folder)
    return folder, ("F32", "F16") if 2 * needed < free else ("F16",)
