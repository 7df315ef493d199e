"""The forms that a model can have: each recipe's file as it would be, from a checkpoint's headers; or the GGUF that is there.

No weight is read, but for the few rows that show whether a head is a copy of the embedding (pipeline/model.py).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import SprigError
from agent.files import human_size
from agent.fit.fit import ModelForm, device_budget, fit
from agent.fit.profile import find_profile
from agent.models.file import model_facts, read_model
from agent.models.find import find_model, needs_pipeline
from pipeline.recipes.names import find_recipe
from pipeline.sources.extra import missing_extra, need_pipeline_extra

if TYPE_CHECKING:
    from pipeline.recipes.mixtures import Weight
    from pipeline.recipes.rules import ModelFacts

log = logging.getLogger(__name__)

# The recipes in the order of what is kept of a model.
_BY_QUALITY = (
    "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0", "IQ4_XS", "Q3_K_M",
)  # fmt: skip


def model_forms(model: str, *, revision: str | None = None, token: str | None = None, offline: bool = False) -> list[ModelForm]:
    """Every form that a model has or can have, the best quality first.

    Args:
        model: a Hub id, a checkpoint folder, a GGUF, the name of a stored model, or "demo".

    Raises:
        SprigError: there is no such model, it cannot be reached, or it is broken or not known.
    """
    if revision is None and not needs_pipeline(model):
        return _of_file(find_model(model))
    need_pipeline_extra()
    return _of_source(model, _BY_QUALITY, revision=revision, token=token, offline=offline)


def recipe_for(
    model: str,
    device: str,
    wanted: str | None = None,
    *,
    base: str | None = None,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
) -> tuple[str, str]:
    """The recipe to make of a model for a device, and why, in one line. What a person wants is only judged.

    Args:
        model: a Hub id, a checkpoint folder, or a GGUF that can be quantized.
        device: the name of a profile.
        wanted: a recipe, as a person says it; it is given back so. None chooses one.
        base: the model of an adapter, in the place of the one that it names.

    Raises:
        SprigError: there is no such device or recipe, or what is wanted, or everything, is too large for it.
    """
    profile = find_profile(device)
    named = None if wanted is None else find_recipe(wanted).name
    recipes = _BY_QUALITY if named is None or named in _BY_QUALITY else (named, *_BY_QUALITY)
    budget = device_budget(profile, None)
    forms = _of_source(model, recipes, base=base, revision=revision, token=token, offline=offline)
    found = fit(forms, profile, budget)
    title = profile.words
    if found.chosen is None:
        raise SprigError(f"{model} does not fit a {title}: {found.why}")
    if wanted is None:
        speed = f"about {found.chosen.speed.writes:.3g} tokens a second"
        return found.chosen.recipe, f"{found.chosen.recipe} for a {title} ({speed}): {found.why}"
    one = next(e for e in found.estimates if e.recipe == named)
    if one.plan is None:
        raise SprigError(
            f"{named} needs {human_size(one.least)} with the shortest context on a {title}, and {budget.words}; "
            f"{found.chosen.recipe} fits"
        )
    why = f"{named} on a {title}: about {one.speed.writes:.3g} tokens a second"
    better = f"; {found.chosen.recipe} would be better" if found.chosen.recipe != named else ""
    return wanted, f"{why}; {one.hazard}{better}" if one.hazard else why


def _of_file(path: Path) -> list[ModelForm]:
    """The file as it is, and what could be made of it, where that can be made here."""
    file = read_model(path)
    own = ModelForm(file.type, file)
    if missing_extra() or not file.matrices.keys() <= {"F32", "F16", "BF16"}:
        return [own]
    try:
        made = _of_source(str(path), _BY_QUALITY)
    except SprigError as e:
        log.info("%s cannot be quantized: %s", path, e)
        return [own]
    return [own, *(one for one in made if one.recipe != file.type)]


def _of_source(
    model: str, recipes: Sequence[str], *, base: str | None = None, revision: str | None = None, token: str | None = None,
    offline: bool = False,
) -> list[ModelForm]:  # fmt: skip
    from agent.gguf.check import check
    from pipeline.card import provenance_keys
    from pipeline.format.gguf_file import TensorSpec, lay_out
    from pipeline.model import from_checkpoint, from_gguf
    from pipeline.recipes.mixtures import Weight
    from pipeline.sources.base_model import open_model

    source = open_model(model, base=base, revision=revision, token=token, offline=offline)
    first = find_recipe("Q8_0")  # which one it is only changes a word in the header
    read = from_gguf(source, first) if source.kind == "gguf" else from_checkpoint(source, first)
    written = {**read.keys, **provenance_keys(source, first, [], None)}
    weights = [Weight(t.name, t.shape, read.stored[t.name]) for t in read.tensors]
    header = len(lay_out(written, [TensorSpec(w.name, w.shape, w.stored) for w in weights]).header)
    keys: Mapping[str, Any] = check(source.path).keys if source.kind == "gguf" and source.path else written
    return recipe_forms(Path(model), keys, weights, read.facts, header, recipes)


def recipe_forms(
    path: Path, keys: Mapping[str, Any], weights: Sequence[Weight], facts: ModelFacts, header: int, recipes: Sequence[str]
) -> list[ModelForm]:
    """The file that each recipe makes of a model with these keys and weights.

    Args:
        path: what the model is called, where its keys do not say.
        header: bytes before the first tensor.
    """
    from pipeline.format.gguf_file import TensorSpec, padded
    from pipeline.recipes.mixtures import choose_types

    found: list[ModelForm] = []
    for name in recipes:
        choices = choose_types(weights, find_recipe(name), facts)
        specs = {w.name: TensorSpec(w.name, w.shape, choices[w.name].type) for w in weights}
        size = header + sum(padded(spec.nbytes) for spec in specs.values())
        file = model_facts({**keys, "sprig.recipe": name}, specs, path=path, size=size, identity="")
        found.append(ModelForm(name, file))
    return found
