"""What will happen, from the small files and the headers alone: nothing is downloaded, nothing is written.

``preflight`` refuses at once what cannot succeed, and otherwise lays the whole output out to the last byte. ``quantize`` then
only carries the plan out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

from gguf import Keys

from agent.device.machine import available_memory, cores
from agent.errors import OutputError, RecipeError, SourceError
from agent.files import free_disk, human_size
from agent.home import models
from pipeline.architectures import Tensor
from pipeline.card import provenance_keys
from pipeline.format.gguf_file import Entry, Layout, Value, lay_out
from pipeline.format.imatrix import ImportanceMatrix, read_imatrix
from pipeline.model import Model, TiedHead, from_checkpoint, from_gguf
from pipeline.recipes.mixtures import (
    Options,
    Recipe,
    TypeChoice,
    Weight,
    block_order,
    choose_types,
    fallback_note,
    find_recipe,
)
from pipeline.sources.checkpoint import TensorInfo
from pipeline.sources.source import Source, cached_bytes, open_source

_MARGIN = 64 << 20  # disk kept free, and what a card and a journal take
# Measured: Python and its libraries, each token of a vocabulary while it is read, the slabs of a thread.
_BASE_MEMORY, _TOKEN_MEMORY, _THREAD_MEMORY = 140 << 20, 2300, 12 << 20


@dataclass(frozen=True, slots=True)
class Preflight:
    """The plan of one output file.

    Attributes:
        source: where the weights are.
        recipe: the mixture.
        out: the file to be made.
        architecture: general.architecture.
        keys: every key of the file.
        tensors: in the order of the file.
        infos: the checkpoint's tensors.
        choices: tensor name -> type.
        layout: header and offsets; ``layout.size`` is the exact size of the output in bytes.
        imatrix: the importance matrix, when one is used.
        probes: text -> token ids of the original tokenizer, for the check of the finished file.
        embedding: whether the model gives vectors, not text.
        tied_head: the duplicate that is left out.
        download: bytes still to be fetched.
        disk: bytes needed on the output's file system, fetched files included where they share it.
        memory: bytes needed at the peak, beside file pages.
        notes: one-line remarks for a person.
    """

    source: Source
    recipe: Recipe
    out: Path
    architecture: str
    keys: Mapping[str, Value]
    tensors: tuple[Tensor, ...]
    infos: Mapping[str, TensorInfo]
    choices: Mapping[str, TypeChoice]
    layout: Layout
    imatrix: ImportanceMatrix | None
    probes: Mapping[str, list[int]]
    embedding: bool
    tied_head: TiedHead | None
    download: int
    disk: int
    memory: int
    notes: tuple[str, ...]
    template: str = "none"
    stream: bool = False
    types: dict[str, int] = field(default_factory=dict)

    @property
    def size(self) -> int:
        return self.layout.size

    @property
    def n_weights(self) -> int:
        return sum(prod(t.shape) for t in self.tensors)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "model": self.source.name,
            "kind": self.source.kind,
            "commit": self.source.commit,
            "architecture": self.architecture,
            "recipe": self.recipe.name,
            "out": str(self.out),
            "size": self.size,
            "weights": self.n_weights,
            "bits_per_weight": round(8 * self.size / self.n_weights, 3),
            "tensors": len(self.tensors),
            "types": self.types,
            "tied_head_dropped": self.tied_head.head if self.tied_head else None,
            "template": self.template,
            "download": self.download,
            "disk": self.disk,
            "memory": self.memory,
            "stream": self.stream,
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        commit = f" @ {self.source.commit[:12]}" if self.source.commit else ""
        kinds = ", ".join(f"{n} {t}" for t, n in self.types.items())
        lines = [
            f"model         {self.source.name}{commit}",
            f"architecture  {self.architecture}, {self.n_weights / 1e6:,.1f} M weights in {len(self.tensors)} tensors",
            f"recipe        {self.recipe.name}: {kinds}",
            f"output        {self.out}",
            f"size          {self.size:,} bytes ({human_size(self.size)}, {8 * self.size / self.n_weights:.2f} bits per weight)",
            f"download      {human_size(self.download) if self.download else 'nothing'}"
            + (" (streamed, not kept)" if self.stream else ""),
            f"disk          {human_size(self.disk)} needed, {human_size(free_disk(self.out.parent))} free",
            f"memory        {human_size(self.memory)} needed, {human_size(available_memory())} free",
            f"template      {self.template}",
        ]
        if self.tied_head:
            lines.append(f"head          {self.tied_head.head} is a copy of the embedding and is left out")
        return lines + [f"note          {note}" for note in self.notes]


def preflight(
    model: str,
    recipe: str = "Q4_K_M",
    out: Path | str | None = None,
    *,
    revision: str | None = None,
    token: str | None = None,
    offline: bool = False,
    imatrix: Path | None = None,
    tensor_types: Sequence[tuple[str, str]] = (),
    pure: bool = False,
    output_type: str | None = None,
    embedding_type: str | None = None,
    stream: bool = False,
    threads: int | None = None,
    llama_cpp: Path | None = None,
) -> Preflight:
    """Everything about the output that can be known beforehand.

    Args:
        model: a Hub id with optional @revision, a folder, or a GGUF in F32, F16, BF16 or Q8_0.
        recipe: a name of ``pipeline.recipes.mixtures.RECIPES``.
        out: the file to make; None puts it into the store.
        imatrix: a file of ``llama-imatrix`` in GGUF format.
        tensor_types: (regular expression, type) pairs; the first that matches a tensor's name wins.
        pure: the recipe's base type for every tensor that can have it.
        output_type, embedding_type: types of head and embedding.
        stream: read the weights over HTTP, keep none.
        threads: how many will work; None takes the cores of this machine.
        llama_cpp: a llama.cpp checkout for an architecture that Sprig does not know (used by ``quantize``).

    Raises:
        SprigError: the first thing that would make the run fail.
    """
    chosen = find_recipe(recipe)
    options = Options(tuple(tensor_types), pure, output_type, embedding_type)
    importance = read_imatrix(imatrix) if imatrix else None
    source = open_source(model, revision=revision, token=token, offline=offline)
    if stream and source.kind != "hub":
        raise SourceError(f"--stream reads from the Hub, {model} is on this disk; leave it out")
    known = from_gguf(source, chosen) if source.kind == "gguf" else from_checkpoint(source, chosen)
    return _plan(source, known, chosen, options, importance, _output(source, chosen, out), stream, threads or cores())


def _plan(
    source: Source,
    model: Model,
    recipe: Recipe,
    options: Options,
    imatrix: ImportanceMatrix | None,
    out: Path,
    stream: bool,
    threads: int,
) -> Preflight:
    ordered = sorted(model.tensors, key=lambda t: block_order(t.name))
    weights = [Weight(t.name, t.shape, model.stored[t.name]) for t in ordered]
    choices = choose_types(weights, recipe, model.facts, options, has_imatrix=imatrix is not None)
    notes = [*model.notes, *filter(None, [fallback_note(choices, weights, recipe)])]
    if imatrix:
        used = [t for t in ordered if imatrix.of(t.name, t.shape) is not None]
        if not used:
            raise RecipeError(f"--imatrix: {imatrix.file} names none of this model's tensors; it was collected on another model")
    overrides = [f"{p}={t}" for p, t in options.tensor_types]
    overrides += [f"{k}={v}" for k, v in (("output", options.output_type), ("embedding", options.embedding_type)) if v]
    overrides += ["pure"] if options.pure else []
    keys = {**model.keys, **provenance_keys(source, recipe, overrides, imatrix)}
    layout = lay_out(keys, [Entry(t.name, t.shape, choices[t.name].type) for t in ordered])
    download = sum(w.size for w in source.weights) - (0 if stream else cached_bytes(source)) if source.kind == "hub" else 0
    types: dict[str, int] = {}
    for choice in choices.values():
        types[choice.type.name] = types.get(choice.type.name, 0) + 1
    plan = Preflight(
        source, recipe, out, model.architecture, keys, tuple(ordered), model.infos, choices, layout, imatrix, model.probes,
        model.embedding, model.tied_head, max(download, 0), layout.size + _MARGIN, _memory(ordered, layout, model, threads),
        tuple(notes), model.template, stream, dict(sorted(types.items(), key=lambda i: -i[1])),
    )  # fmt: skip
    return _refuse_shortage(plan)


# What the machine must have.


def _output(source: Source, recipe: Recipe, out: Path | str | None) -> Path:
    if out is None:
        short = re.sub(r"[^\w.-]+", "-", source.name.rsplit("/", 1)[-1]).strip(".-") or "model"
        return models() / f"{short.removesuffix('.gguf')}-{recipe.name}.gguf"
    path = Path(out).expanduser()
    if path.is_dir():
        raise OutputError(f"{path} is a folder; give the name of a file in it with -o")
    if path.suffix != ".gguf":
        raise OutputError(f"{path.name} does not end in .gguf; name the output so that other programs know it")
    if source.path is not None and path.resolve() == source.path.resolve():
        raise OutputError(f"{path} is the source itself; give another name with -o")
    return path


def _memory(tensors: Sequence[Tensor], layout: Layout, model: Model, threads: int) -> int:
    """Bytes at the peak: the vocabulary, the largest tensors that must be held whole, the slabs in flight."""
    largest = 0
    for t in tensors:
        if t.row_order is not None:
            raw = sum(model.infos[s.source].nbytes for s in t.sources)
            largest = max(largest, raw)
    tokens = model.keys.get(Keys.Tokenizer.LIST)
    vocabulary = _TOKEN_MEMORY * len(tokens) if isinstance(tokens, list) else 0
    # A tensor that is reordered is held in its own type, as float32 and as what it becomes.
    return _BASE_MEMORY + vocabulary + threads * _THREAD_MEMORY + 2 * 5 * largest + 3 * len(layout.header)


def _refuse_shortage(plan: Preflight) -> Preflight:
    folder = plan.out.parent
    existing = plan.out.with_name(plan.out.name + ".part")
    kept = existing.stat().st_blocks * 512 if existing.exists() else 0
    shared = plan.download if plan.source.kind == "hub" and not plan.stream and _same_disk(folder) else 0
    plan = replace(plan, disk=plan.disk + shared)
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
    return plan


def _same_disk(folder: Path) -> bool:
    from huggingface_hub.constants import HF_HUB_CACHE

    def device(path: Path) -> int:
        while not path.exists():
            path = path.parent
        return path.stat().st_dev

    return device(folder.absolute()) == device(Path(HF_HUB_CACHE).absolute())
