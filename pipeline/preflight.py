"""Plans the output from the small files and the headers alone: no weight is downloaded, nothing is written.

``plan_for`` refuses at once what cannot succeed, and otherwise lays the whole output out to the last byte. ``quantize`` then
only carries the plan out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypedDict

from gguf import Keys

from agent.device.machine import available_memory
from agent.device.processor import cores
from agent.errors import OutputError, RecipeError, SourceError
from agent.files import free_disk, human_size
from agent.gguf.types import GGMLType
from agent.home import models
from agent.hub.environment import cache_root
from pipeline.architectures.shared.tensor import Tensor
from pipeline.card import provenance_keys
from pipeline.format.gguf_file import Layout, TensorSpec, lay_out
from pipeline.format.imatrix import ImportanceMatrix, read_imatrix
from pipeline.model import Changes, Model, from_checkpoint, from_gguf
from pipeline.recipes.budget import FileBudget, read_budget
from pipeline.recipes.mixtures import Overrides, TypeChoice, Weight, block_order, choose_types, fallback_note, needs_imatrix
from pipeline.recipes.names import USUAL, Recipe, find_recipe, taken_note
from pipeline.rounding.blocks import FORMATS
from pipeline.rounding.encoder import TensorEncoder
from pipeline.sources.base_model import open_model
from pipeline.sources.source import Source, cached_bytes

ENCODER, TUNED = "sprig.encoder", "tune"  # the key, and its value where the tuning came last
WEIGHTS = "sprig.weights"  # a hash of the source's weights: files of the same can lend each other tensors
_MARGIN = 64 << 20  # disk kept free, and what a card and a journal take
# Measured: Python and its libraries, each token of a vocabulary while it is read, the slabs of a thread.
_BASE_MEMORY, _TOKEN_MEMORY, _THREAD_MEMORY = 140 << 20, 2300, 12 << 20


@dataclass(frozen=True, slots=True)
class Preflight:
    """The plan of one output file.

    Attributes:
        source: where the weights are.
        origin: the source that the file names.
        recipe: the mixture.
        out: the file to be made.
        model: the source, read.
        tensors: in the order of the file.
        choices: tensor name -> type.
        layout: header and offsets; ``layout.size`` is the exact size of the output in bytes.
        imatrix: the importance matrix, when one is used.
        download: bytes still to be fetched.
        disk: bytes needed on the output's file system, fetched files included where they share it.
        memory: bytes needed at the peak, beside file pages.
        notes: one-line remarks for a person.
    """

    source: Source
    origin: Source
    recipe: Recipe
    out: Path
    model: Model
    tensors: tuple[Tensor, ...]
    choices: Mapping[str, TypeChoice]
    layout: Layout
    imatrix: ImportanceMatrix | None
    download: int
    disk: int
    memory: int
    notes: tuple[str, ...]
    stream: bool
    encoder: TensorEncoder | None = None

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def types(self) -> dict[str, int]:
        """ggml type -> number of tensors, the most frequent first."""
        return dict(Counter(choice.type.name for choice in self.choices.values()).most_common())

    @property
    def n_weights(self) -> int:
        return sum(prod(t.shape) for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "model": self.origin.named.name,
            "kind": self.origin.named.kind,
            "commit": self.origin.named.commit,
            "base": self.origin.name if self.origin.adapter else None,
            "architecture": self.model.architecture,
            "recipe": self.recipe.name,
            "out": str(self.out),
            "size": self.size,
            "weights": self.n_weights,
            "bits_per_weight": round(8 * self.size / self.n_weights, 3),
            "tensors": len(self.tensors),
            "types": self.types,
            "tied_head_dropped": head.head if (head := self.model.tied_head) else None,
            "template": self.model.template,
            "download": self.download,
            "disk": self.disk,
            "memory": self.memory,
            "stream": self.stream,
            "encoder": self.encoder.name if self.encoder else "ggml",
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        named, bases = self.origin.named, [self.origin] if self.origin.adapter else []
        kinds = ", ".join(f"{n} {t}" for t, n in self.types.items())
        lines = [
            f"model         {_at_commit(named)}",
            *(f"base          {_at_commit(base)}, into which the adapter is merged" for base in bases),
            f"architecture  {self.model.architecture}, {self.n_weights / 1e6:,.1f} M weights in {len(self.tensors)} tensors",
            f"recipe        {self.recipe.name}: {kinds}",
            f"output        {self.out}",
            f"size          {self.size:,} bytes ({human_size(self.size)}, {8 * self.size / self.n_weights:.2f} bits per weight)",
            f"download      {human_size(self.download) if self.download else 'nothing'}"
            + (" (streamed, not kept)" if self.stream else ""),
            f"disk          {human_size(self.disk)} needed, {human_size(free_disk(self.out.parent))} free",
            f"memory        {human_size(self.memory)} needed, {human_size(available_memory())} free",
            f"template      {self.model.template}",
        ]
        if self.model.tied_head:
            lines.append(f"head          {self.model.tied_head.head} is a copy of the embedding and is left out")
        return lines + [f"note          {note}" for note in self.notes]


def _at_commit(source: Source) -> str:
    return source.name + (f" @ {source.commit[:12]}" if source.commit else "")


class PlanOptions(TypedDict, total=False):
    """Options of ``quantize`` and ``dry_run``. Each may be left out.

    Attributes:
        size, bpw: instead of a recipe, how large the file may be ("400MB" or bytes), or how many bits a weight may take.
        types: which types may be chosen then; by default those with fast kernels on ARM.
        sensitivity: a file for what is measured of the model then, in the place of the usual one.
        revision: branch, tag or commit on the Hub.
        base: the model of an adapter, in the place of the one that it names.
        token: for the Hub; by default HF_TOKEN or the stored login.
        offline: use nothing but the Hub cache.
        imatrix: a file of ``llama-imatrix`` in GGUF format.
        tensor_types: (regular expression, type) pairs; the first that matches a tensor's name wins.
        pure: the recipe's base type for every tensor that can have it.
        output_type, embedding_type: types of head and embedding.
        context_length: tokens that the file says it was trained for; by default what the source says.
        chat_template: a file whose chat template takes the place of the source's.
        stream: read the weights over HTTP, keep none.
        threads: how many will work; by default the cores of this machine.
        allow_requantize: take a GGUF that is quantized already, beyond Q8_0; what was lost stays lost, and more is.
        encoder: rounds the tensors that it wants; by default ggml's kernels round all but what lies on a grid.
    """

    size: str | int | None
    bpw: float | None
    types: Sequence[str] | None
    sensitivity: Path | None
    revision: str | None
    base: str | None
    token: str | None
    offline: bool
    imatrix: Path | None
    tensor_types: Sequence[tuple[str, str]]
    pure: bool
    output_type: str | None
    embedding_type: str | None
    context_length: int | None
    chat_template: Path | None
    stream: bool
    threads: int | None
    allow_requantize: bool
    encoder: TensorEncoder | None
    tuned: bool  # scales, mins and norms are learned when the pass is over


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options after reading: recipe and overrides, importance matrix, how to work, and a note on the recipe's name.

    With a budget, ``chosen`` holds the types that it pays for, once they are known (tensor name -> type), and ``weights`` the
    hash of what they were measured on.
    """

    recipe: Recipe
    overrides: Overrides
    imatrix: ImportanceMatrix | None
    stream: bool
    threads: int
    changes: Changes
    note: str | None
    allow_requantize: bool
    encoder: TensorEncoder | None = None
    budget: FileBudget | None = None
    chosen: Mapping[str, GGMLType] | None = None
    weights: str = "0" * 64
    tuned: bool = False


def read_wishes(recipe: str | None, options: PlanOptions) -> Wishes:
    """Read recipe and options. Raises RecipeError for an unknown recipe or a bad imatrix, TypeError for an unknown option."""
    if unknown := options.keys() - PlanOptions.__annotations__.keys():
        raise TypeError(f"unknown option {', '.join(sorted(unknown))}")
    types = tuple(options.get("tensor_types", ()))
    overrides = Overrides(types, options.get("pure", False), options.get("output_type"), options.get("embedding_type"))
    budget = read_budget(options.get("size"), options.get("bpw"), options.get("types"), options.get("sensitivity"))
    if budget and (recipe or overrides.pure):
        raise RecipeError(f"{f'the recipe {recipe!r}' if recipe else '--pure'} and a budget both choose the types; leave one out")
    if budget and options.get("stream"):
        raise RecipeError("a budget reads the weights more than once, and --stream keeps none; leave it out")
    chosen, file, encoder = (
        budget.recipe() if budget else find_recipe(recipe or USUAL),
        options.get("imatrix"),
        options.get("encoder"),
    )
    imatrix = read_imatrix(file) if file else None
    changes = Changes(options.get("context_length"), options.get("chat_template"))
    threads, again = options.get("threads") or cores(), options.get("allow_requantize", False)
    note = taken_note(recipe) if recipe else None
    wishes = Wishes(chosen, overrides, imatrix, options.get("stream", False), threads, changes, note, again, encoder, budget)
    return replace(wishes, tuned=options.get("tuned", False))


def find_source(model: str, options: PlanOptions) -> Source:
    """Find the model. Raises SourceError."""
    return open_model(
        model, base=options.get("base"), revision=options.get("revision"), token=options.get("token"),
        offline=options.get("offline", False),
    )  # fmt: skip


def plan_for(source: Source, wishes: Wishes, out: Path | str | None, *, origin: Source | None = None) -> Preflight:
    """Plan the output for a source.

    Args:
        origin: the source that the output names, if ``source`` was made from it.

    Raises:
        SprigError: the first thing that would make the run fail.
    """
    if wishes.stream and source.kind != "hub":
        raise SourceError(f"--stream reads from the Hub, {source.name} is on this disk; leave it out")
    recipe, imatrix, origin = wishes.recipe, wishes.imatrix, origin or source
    read = partial(from_gguf, allow_requantize=wishes.allow_requantize) if source.kind == "gguf" else from_checkpoint
    model = read(source, recipe, wishes.changes)
    packed = next((info.packed for info in model.infos.values() if info.packed), None)
    if wishes.stream and packed:
        raise SourceError(
            f"{source.name} is {packed}, whose parts lie apart in its files and cannot be streamed; leave --stream out"
        )
    ordered = sorted(model.tensors, key=lambda t: block_order(t.name))
    weights = [Weight(t.name, t.shape, model.stored[t.name]) for t in ordered]
    if wishes.chosen is None:
        choices = choose_types(weights, recipe, model.facts, wishes.overrides, has_imatrix=imatrix is not None)
    else:
        choices = {w.name: TypeChoice(wishes.chosen[w.name], wishes.chosen[w.name]) for w in weights}
    _refuse_strangers(ordered, choices, wishes)
    _refuse_blind(ordered, choices, recipe, imatrix)
    keys = {**model.keys, **provenance_keys(origin, recipe, wishes.overrides.words(), imatrix)}
    if wishes.encoder:
        keys[ENCODER] = TUNED if wishes.tuned else wishes.encoder.name
    if wishes.budget:
        keys[WEIGHTS] = wishes.weights
    layout = lay_out(keys, [TensorSpec(t.name, t.shape, choices[t.name].type) for t in ordered])
    fallback = fallback_note(choices, weights, recipe)
    target = _output(origin, recipe, out)
    download = _download(source, wishes.stream)
    shared = bool(download) and not wishes.stream and _same_disk(target.parent, cache_root())
    plan = Preflight(
        source=source,
        origin=origin,
        recipe=recipe,
        out=target,
        model=model,
        tensors=tuple(ordered),
        choices=choices,
        layout=layout,
        imatrix=imatrix,
        download=download,
        disk=layout.size + _MARGIN + (download if shared else 0),
        memory=_memory(ordered, layout, model, wishes.threads) + (_rounding_memory(ordered, choices) if wishes.encoder else 0),
        notes=(*([wishes.note] if wishes.note else []), *model.notes, *([fallback] if fallback else [])),
        stream=wishes.stream,
        encoder=wishes.encoder,
    )
    _refuse_shortage(plan, shared)
    return plan


def _refuse_strangers(tensors: Sequence[Tensor], choices: Mapping[str, TypeChoice], wishes: Wishes) -> None:
    """Raise SprigError if what was measured belongs to another model, or if the encoder has nothing to do."""
    shapes = {t.name: t.shape for t in tensors}
    if wishes.encoder:
        wishes.encoder.check(shapes)
    if wishes.imatrix:
        wishes.imatrix.check(shapes)
    if wishes.encoder:
        refuse_idle(choices, wishes.recipe)


def refuse_idle(choices: Mapping[str, TypeChoice], recipe: Recipe) -> None:
    """Raise RecipeError if an encoder would have nothing to do."""
    if not any(choice.type.name in FORMATS for choice in choices.values()):
        raise RecipeError(f"--encoder rounds to {', '.join(FORMATS)}, and {recipe.name} has none of them; leave it out")


def _refuse_blind(
    tensors: Sequence[Tensor], choices: Mapping[str, TypeChoice], recipe: Recipe, imatrix: ImportanceMatrix | None
) -> None:
    """Raise RecipeError for the first tensor whose type needs an importance matrix that has nothing for it."""
    for tensor in tensors:
        kind = choices[tensor.name].type
        if not needs_imatrix(tensor.name, kind, recipe):
            continue
        if imatrix is None:
            raise RecipeError(
                f"{kind.name} (for {tensor.name}) needs an importance matrix: run sprig calibrate on the model and give "
                "its file with --imatrix, or its folder with --statistics; or take a recipe of four bits"
            )
        if imatrix.of(tensor.name, tensor.shape) is None:
            raise RecipeError(
                f"--imatrix: {imatrix.file} has no values for {tensor.name}, and {kind.name} needs them; "
                f"name another type: --tensor-type '{tensor.name}=Q4_K'"
            )


# What the machine must have.


def output_folder(out: Path | str | None) -> Path:
    """The folder of the output."""
    if not out:
        return models()
    path = Path(out).expanduser()
    return path if _is_folder(out) else path.parent


def _is_folder(out: Path | str) -> bool:
    """Whether an output names a folder: one that is there, or one to be made, with a slash at its end."""
    return str(out).endswith("/") or Path(out).expanduser().is_dir()


def _download(source: Source, stream: bool) -> int:
    """Bytes of weights that are not on this disk; those of a stream always come."""
    missing = max(sum(w.size for w in source.weights) - (0 if stream else cached_bytes(source)), 0)
    return missing + (_download(source.adapter, stream=False) if source.adapter is not None else 0)


def output_file(named: Source, recipe: Recipe, out: Path | str | None, folder: Path) -> Path:
    """The file to make: ``out``, or in the folder that it names, by default ``folder``, a file called after the model."""
    if not out or _is_folder(out):
        name = named.name.rsplit("/", 1)[-1]
        stem = re.sub(r"[^\w.-]+", "-", name[:-5] if name.lower().endswith(".gguf") else name).strip(".-") or "model"
        return (Path(out).expanduser() if out else folder) / f"{stem}-{recipe.name}.gguf"
    path = Path(out).expanduser()
    # The name by which other programs know such a file.
    return path if path.suffix.lower() == ".gguf" else path.with_name(f"{path.name}.gguf")


def _output(source: Source, recipe: Recipe, out: Path | str | None) -> Path:
    path = output_file(source.named, recipe, out, models())
    if source.path is not None and path.resolve() == source.path.resolve():
        raise OutputError(f"{path} is the source itself; give another name with -o")
    return path


def _memory(tensors: Sequence[Tensor], layout: Layout, model: Model, threads: int) -> int:
    """Bytes at the peak: the vocabulary, the largest tensors that must be held whole, the slabs in flight."""
    held = [sum(model.infos[s.source].nbytes for s in t.sources) for t in tensors if t.row_order is not None]
    tokens = model.keys.get(Keys.Tokenizer.LIST)
    vocabulary = _TOKEN_MEMORY * len(tokens) if isinstance(tokens, list) else 0
    # A tensor that is reordered is held in its own type, as float32 and as what it becomes.
    return _BASE_MEMORY + vocabulary + threads * _THREAD_MEMORY + 2 * 5 * max(held, default=0) + 3 * len(layout.header)


def _rounding_memory(tensors: Sequence[Tensor], choices: Mapping[str, TypeChoice]) -> int:
    """Bytes beside that: the largest tensor as float32 and as it is written, and second moments of the longest rows."""
    rounded = [t for t in tensors if choices[t.name].type.name in FORMATS]
    return max(6 * prod(t.shape) for t in rounded) + max(48 * t.row_length**2 for t in rounded)


def _refuse_shortage(plan: Preflight, shared: bool) -> None:
    folder = plan.out.parent
    existing = plan.out.with_name(plan.out.name + ".part")
    kept = existing.stat().st_blocks * 512 if existing.exists() else 0
    free = free_disk(folder)
    if plan.disk - kept > free:
        raise OutputError(
            f"not enough disk: {human_size(plan.disk - kept)} needed in {folder}, {human_size(free)} free; "
            + ("--stream keeps no download, or " if shared else "")
            + "choose another folder with -o or a smaller recipe"
        )
    if plan.memory > available_memory():
        raise OutputError(
            f"not enough memory: {human_size(plan.memory)} needed, {human_size(available_memory())} free; "
            "fewer --threads need less"
        )


def _same_disk(*folders: Path) -> bool:
    """Whether the folders, which need not be there yet, lie on one file system."""
    there = (next(p for p in (folder, *folder.parents) if p.exists()) for folder in map(Path.absolute, folders))
    return len({p.stat().st_dev for p in there}) == 1
