"""The forms that a model can have: each recipe's file as it would be, from a checkpoint's headers; or the GGUF that is there.

No weight is read, but for the few rows that show whether a head is a copy of the embedding (pipeline/model.py).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import SprigError
from agent.files import human_size
from agent.fit.fit import Fit, FormEstimate, ModelForm, device_budget, fit, is_quick, is_roomy, is_slow, keeps_sense
from agent.fit.profile import DeviceProfile, find_profile
from agent.gguf.types import TYPES_BY_NAME
from agent.models.file import ModelFile, model_facts, read_model
from agent.models.find import find_model, needs_pipeline
from pipeline.recipes.names import RECIPES, WRITABLE, find_recipe, find_type
from pipeline.sources.extra import missing_extra, need_pipeline_extra

if TYPE_CHECKING:
    from agent.gguf.types import GGMLType
    from pipeline.recipes.mixtures import Weight
    from pipeline.recipes.rules import ModelFacts

log = logging.getLogger(__name__)

# The recipes in the order of what is kept of a model.
_BY_QUALITY = (
    "F16", "Q8_0", "Q6_K", "Q5_K_M", "Q5_K_S", "Q4_K_M", "Q4_K_S", "IQ4_NL", "Q4_0", "IQ4_XS", "Q3_K_M",
)  # fmt: skip
_SLACK = 4096  # bytes by which a header may be longer than here: it names its recipe


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


@dataclass(frozen=True, slots=True)
class DeviceChoice:
    """What to make of a model for a device: a recipe, or the best file of a size; and why, in one line.

    Attributes:
        size: bytes at most, with ``types`` to choose from; None where there is a recipe.
    """

    recipe: str | None
    size: int | None
    types: tuple[str, ...]
    why: str


def recipe_for(model: str, device: str, wanted: str, **named: Any) -> DeviceChoice:
    """Judge the recipe that a person wants to make of a model for a device.

    Args:
        model: a Hub id, a checkpoint folder, or a GGUF that can be quantized.
        device: the name of a profile.
        wanted: a recipe, as a person says it; it is given back so.
        named: ``base`` (the model of an adapter, in the place of the one that it names), ``revision``, ``token``, ``offline``.

    Raises:
        SprigError: there is no such device or recipe, or what is wanted, or everything, is too large for it.
    """
    profile = find_profile(device)
    name = find_recipe(wanted).name
    recipes = _BY_QUALITY if name in _BY_QUALITY else (name, *_BY_QUALITY)
    found = _fitted(model, profile, _read_headers(model, **named).recipe_forms(recipes))
    one, chosen, title = next(e for e in found.estimates if e.recipe == name), _taken(found), profile.words
    if one.plan is None:
        raise SprigError(
            f"{name} needs {human_size(one.least)} with the shortest context on a {title}, and {found.budget.words}; "
            f"{chosen.recipe} fits"
        )
    why = f"{name} on a {title}: about {one.speed.writes:.3g} tokens a second"
    better = f"; {chosen.recipe} would be better" if chosen.recipe != name else ""
    return DeviceChoice(wanted, None, (), f"{why}; {one.hazard}{better}" if one.hazard else why)


def budget_for(model: str, device: str, types: Sequence[str] = (), **named: Any) -> DeviceChoice:
    """How large a file of a model may be on a device, and of which types: the largest that has room for an agent's context and
    writes as fast as one reads, or as fast as the recipe that ``fit`` would take.

    Where all tensors may have the largest type there is nothing to choose, and where the smallest types do not fit a budget has
    none to choose from; then it is a recipe, the latter by ``fit``.

    Args:
        types: that may be chosen; by default those that the device reads fast.
        named: as of ``recipe_for``.

    Raises:
        SprigError: there is no such device or type, or nothing fits.
    """
    from pipeline.recipes.budget import FAST, candidates

    profile = find_profile(device)
    allowed = tuple(find_type(name, "--types").name for name in types) or fast_types(profile) or FAST
    headers = _read_headers(model, **named)
    found = _fitted(model, profile, headers.recipe_forms(_BY_QUALITY))
    chosen = _taken(found)
    kinds = candidates(headers.weights, allowed, measured=[w.name for w in headers.weights])
    by_size = [{w.name: of(kinds[w.name], key=lambda k: k.size(w.shape)) for w in headers.weights} for of in (min, max)]
    small, large = (headers.form(name, choice) for name, choice in zip(("smallest", "largest"), by_size, strict=True))
    share, one = _largest(small, large, found)
    if one.plan is None:
        return _as_recipe(chosen.recipe, chosen, found)
    if share == 1 and not types and allowed[0] in RECIPES:
        return _as_recipe(allowed[0], one, found)
    room = min(max(one.file.size, small.file.size + _SLACK), large.file.size - _SLACK)
    why = (
        f"at most {human_size(room)} for a {profile.words}, about {one.speed.writes:.3g} tokens a second with room for "
        f"{one.plan.context:,} tokens, in {', '.join(allowed)}"
    )
    return DeviceChoice(None, room, allowed, why)


def _as_recipe(name: str, one: FormEstimate, found: Fit) -> DeviceChoice:
    why = f"{name} for a {found.device.words} (about {one.speed.writes:.3g} tokens a second): {found.why}"
    return DeviceChoice(name, None, (), why)


def fast_types(profile: DeviceProfile) -> tuple[str, ...]:
    """The types that a device reads fast and that keep the sense of a small model, the largest first."""
    kinds = (kind for kind in WRITABLE if kind != "MXFP4" and keeps_sense(kind) and not is_slow(profile, kind))
    return tuple(sorted(kinds, key=lambda kind: -TYPES_BY_NAME[kind].bits_per_weight))


def _largest(small: ModelForm, large: ModelForm, found: Fit) -> tuple[float, FormEstimate]:
    """The largest mixture of two forms that serves: the share of the larger one, and what is to be expected of it."""
    chosen = _taken(found)

    def at(share: float) -> FormEstimate:
        return fit([ModelForm("", _mixed(small.file, large.file, share))], found.device, found.budget).estimates[0]

    least, most = at(0.0), at(1.0)

    def serves(one: FormEstimate) -> bool:
        return is_roomy(one) and is_quick(one, chosen)

    if serves(most):
        return 1.0, most
    low, high, best = 0.0, 1.0, least
    for _ in range(12 if is_roomy(least) else 0):
        middle = (low + high) / 2
        one = at(middle)
        if serves(one):
            low, best = middle, one
        else:
            high = middle
    return low, best


def _mixed(small: ModelFile, large: ModelFile, share: float) -> ModelFile:
    """A file between two of the same model, with this share of the larger one's types."""

    def between(name: str) -> dict[str, int]:
        held = Counter({kind: int((1 - share) * n) for kind, n in getattr(small, name).items()})
        held.update({kind: int(share * n) for kind, n in getattr(large, name).items()})
        return {kind: n for kind, n in held.items() if n}

    size, weights = (round((1 - share) * a + share * b) for a, b in ((small.size, large.size), (small.weights, large.weights)))
    parts = {name: between(name) for name in ("matrices", "tied", "head", "experts")}
    return replace(small, size=size, weights=weights, **parts)  # type: ignore[arg-type]


def _fitted(model: str, profile: DeviceProfile, forms: Sequence[ModelForm]) -> Fit:
    found = fit(forms, profile, device_budget(profile, None))
    if found.chosen is None:
        raise SprigError(f"{model} does not fit a {profile.words}: {found.why}")
    return found


def _taken(found: Fit) -> FormEstimate:
    assert found.chosen is not None
    return found.chosen


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


@dataclass(frozen=True, slots=True)
class Headers:
    """What a checkpoint's headers say of the file that it becomes.

    Attributes:
        path: what the model is called, where its keys do not say.
        header: bytes before the first tensor.
    """

    path: Path
    keys: Mapping[str, Any]
    weights: Sequence[Weight]
    facts: ModelFacts
    header: int

    def recipe_forms(self, recipes: Sequence[str]) -> list[ModelForm]:
        """The file that each recipe makes."""
        from pipeline.recipes.mixtures import choose_types

        choices = ((name, choose_types(self.weights, find_recipe(name), self.facts)) for name in recipes)
        return [self.form(name, {tensor: one.type for tensor, one in some.items()}) for name, some in choices]

    def form(self, name: str, kinds: Mapping[str, GGMLType]) -> ModelForm:
        """The file with these types."""
        from pipeline.format.gguf_file import TensorSpec, padded

        specs = {w.name: TensorSpec(w.name, w.shape, kinds[w.name]) for w in self.weights}
        size = self.header + sum(padded(spec.nbytes) for spec in specs.values())
        keys = {**self.keys, "sprig.recipe": name}
        return ModelForm(name, model_facts(keys, specs, path=self.path, size=size, identity=""))


def _of_source(
    model: str, recipes: Sequence[str], *, revision: str | None = None, token: str | None = None, offline: bool = False
) -> list[ModelForm]:
    return _read_headers(model, revision=revision, token=token, offline=offline).recipe_forms(recipes)


def _read_headers(
    model: str, *, base: str | None = None, revision: str | None = None, token: str | None = None, offline: bool = False
) -> Headers:
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
    return Headers(Path(model), keys, weights, read.facts, header)
