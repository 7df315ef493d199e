"""What will happen, from the small files and the headers alone: nothing is downloaded, nothing is written.

``preflight`` refuses at once what cannot succeed, and otherwise lays the whole output out to the last byte. ``quantize`` then
only carries the plan out.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from agent.device import available_memory, cores
from agent.errors import CheckpointError, GGUFError, OutputError, RecipeError, SourceError, UnsupportedError, VocabError
from agent.files import free_disk, human_size
from agent.ggml_types import F32, TYPES_BY_NAME, GGMLType
from agent.gguf_check import check
from agent.gguf_reader import Header
from agent.home import models
from agent.template import check_template
from pipeline.architectures import Slice, Tensor, find_architecture
from pipeline.calibration import ImportanceMatrix, read_imatrix
from pipeline.card import general_keys, provenance_keys, quantization_keys
from pipeline.checkpoint import Checkpoint, TensorInfo
from pipeline.gguf_file import Entry, Layout, Raw, Value, lay_out
from pipeline.recipe import (
    Choice,
    ModelFacts,
    Options,
    Recipe,
    Weight,
    block_order,
    choose_types,
    fallback_note,
    find_recipe,
)
from pipeline.rows import SOURCE_TYPES
from pipeline.source import Source, cached_bytes, headers, open_checkpoint, open_source
from pipeline.vocab import PROBES, Vocabulary, load_vocabulary

_MARGIN = 64 << 20  # disk kept free, and what a card and a journal take
_BASE_MEMORY = 300 << 20  # Python, its libraries and the kernels' tables


@dataclass(frozen=True, slots=True)
class TiedHead:
    """A head that is a copy of the embedding and is left out; both are checkpoint names."""

    head: str
    embedding: str


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
    choices: Mapping[str, Choice]
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


@dataclass(frozen=True, slots=True)
class _Model:
    """A model on the way to its plan, the same for a checkpoint and a GGUF."""

    architecture: str
    embedding: bool
    keys: dict[str, Value]
    tensors: list[Tensor]
    infos: Mapping[str, TensorInfo]
    stored: dict[str, GGMLType]
    facts: ModelFacts
    template: str = "none"
    probes: Mapping[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tied_head: TiedHead | None = None


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
        recipe: a name of ``pipeline.recipe.RECIPES``.
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
    known = _from_gguf(source, chosen) if source.kind == "gguf" else _from_checkpoint(source, chosen, stream)
    return _plan(source, known, chosen, options, importance, _output(source, chosen, out), stream, threads or cores())


def _plan(
    source: Source,
    model: _Model,
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


def _from_checkpoint(source: Source, recipe: Recipe, stream: bool) -> _Model:
    config = _config(source)
    found = find_architecture(config)
    infos = headers(source)
    arch = found(config, infos)
    keys = arch.keys()
    tensors = arch.tensors()
    stored = {t.name: _stored(t, infos) for t in tensors}
    notes: list[str] = []
    tied_head = None
    head = next((t for t in tensors if t.name == "output.weight"), None)
    embedding = next((t for t in tensors if t.name == "token_embd.weight"), None)
    if head and embedding and arch.tied:
        pair = TiedHead(head.sources[0].source, embedding.sources[0].source)
        if _equal(source, pair):
            tensors.remove(head)
            tied_head = pair
        else:
            notes.append(f"config.json ties the head to the embedding, but {pair.head} differs from it; both are written")
    vocabulary = load_vocabulary(source.files, arch.vocab_rows, config)
    template = _template(vocabulary)
    n_weights = sum(prod(t.shape) for t in tensors)
    general = general_keys(source, arch.gguf, n_weights, recipe)
    facts = _facts(arch.gguf, keys)
    all_keys: dict[str, Value] = {**general, **arch.gguf_keys(source.files), **vocabulary.keys}
    probes = {p: vocabulary.encode(p) for p in PROBES}
    return _Model(
        arch.gguf, arch.embedding, all_keys, tensors, infos, stored, facts, template, probes,
        (*notes, *vocabulary.notes), tied_head,
    )  # fmt: skip


def _config(source: Source) -> dict[str, Any]:
    raw = source.files.get("config.json")
    if raw is None:
        raise SourceError(f"{source.name} has no config.json; it is not a Hugging Face checkpoint")
    try:
        config = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise CheckpointError(f"config.json of {source.name} is not JSON ({e}); download it again") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"config.json of {source.name} is not a JSON object; download it again")
    return config


def _stored(tensor: Tensor, infos: Mapping[str, TensorInfo]) -> GGMLType:
    """The type in which a tensor is copied when the recipe leaves it alone."""
    kinds = {_source_type(infos[s.source]) for s in tensor.sources}
    if tensor.f32 or tensor.values is not None or len(kinds) != 1:
        return F32
    kind = kinds.pop()
    return F32 if kind.name == "F64" else kind


def _source_type(info: TensorInfo) -> GGMLType:
    kind = SOURCE_TYPES.get(info.dtype)
    if kind is None:
        raise UnsupportedError(
            f"tensor {info.name!r} is stored as {info.dtype}, which is no plain float; use the original, unquantized checkpoint"
        )
    return kind


def _facts(architecture: str, keys: Mapping[str, Value]) -> ModelFacts:
    def first(name: str, default: int = 0) -> int:
        value = keys.get(name, default)
        items = np.atleast_1d(np.asarray(value)).ravel()
        return int(items[0]) if items.size else default

    heads = first("attention.head_count", 1)
    return ModelFacts(architecture, first("block_count"), heads, first("attention.head_count_kv", heads), first("expert_count"))


def _template(vocabulary: Vocabulary) -> str:
    """A word on the chat template. Raises VocabError when it does not render."""
    template = vocabulary.templates.get("default")
    if template is None:
        return "none"
    tokens = vocabulary.keys.get("tokenizer.ggml.tokens")

    def token(kind: str) -> str:
        number = vocabulary.keys.get(f"tokenizer.ggml.{kind}_token_id")
        known = isinstance(number, int) and isinstance(tokens, list) and number < len(tokens)
        text = tokens[number] if known else ""  # type: ignore[index]
        return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)

    report = check_template(template, bos=token("bos"), eos=token("eos"))
    if not report.renders:
        raise VocabError(
            f"the chat template does not render: {report.error}; correct it in the checkpoint or take another revision"
        )
    can = [word for word, yes in (("system", report.supports_system), ("tools", report.supports_tools)) if yes]
    return f"renders ({', '.join(can) or 'no system, no tools'})"


def heads_equal(checkpoint: Checkpoint, pair: TiedHead, sample: int | None = None) -> bool:
    """Whether head and embedding hold the same bytes; ``sample`` compares that many rows, spread evenly, instead of all."""
    a, b = checkpoint.tensors[pair.head], checkpoint.tensors[pair.embedding]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    if sample:
        starts = sorted({int(i) for i in np.linspace(0, a.n_rows - 1, sample)})
        return all(np.array_equal(checkpoint.rows(a.name, i, i + 1), checkpoint.rows(b.name, i, i + 1)) for i in starts)
    step = max(1, (8 << 20) // max(1, a.row_bytes))
    return all(
        np.array_equal(checkpoint.rows(a.name, i, min(i + step, a.n_rows)), checkpoint.rows(b.name, i, min(i + step, a.n_rows)))
        for i in range(0, a.n_rows, step)
    )


def _equal(source: Source, pair: TiedHead) -> bool:
    """All rows where the weights are on this disk; otherwise some, fetched by HTTP range, and all later as they pass."""
    here = source.kind == "folder" or cached_bytes(source) == sum(w.size for w in source.weights)
    checkpoint = open_checkpoint(source, stream=not here)
    try:
        return heads_equal(checkpoint, pair, None if here else 16)
    finally:
        checkpoint.close()


# A GGUF as the source: its keys are taken over as they are.

_OWN_KEYS = re.compile(r"^(general\.(quantization_version|file_type)|sprig\.|quantize\.imatrix\.|split\.)")
_READABLE = ("F32", "F16", "BF16", "Q8_0")


def _from_gguf(source: Source, recipe: Recipe) -> _Model:
    assert source.path is not None
    header = check(source.path)
    odd = next((t for t in header.tensors.values() if t.type.name not in _READABLE), None)
    if odd is not None:
        raise UnsupportedError(
            f"{source.path.name} is already quantized ({odd.name} is {odd.type.name}); quantizing twice loses twice: "
            "start from a GGUF in F32, F16, BF16 or Q8_0"
        )
    if "split.count" in header.keys and int(header.keys["split.count"]) > 1:
        raise UnsupportedError(
            f"{source.path.name} is one of {header.keys['split.count']} parts; join them with llama-gguf-split --merge"
        )
    architecture = str(header.keys.get("general.architecture", ""))
    if not architecture:
        raise GGUFError(f"{source.path.name} does not say its architecture; it is not a model")
    keys: dict[str, Value] = {k: Raw(v) for k, v in header.raw_keys.items() if not _OWN_KEYS.match(k)}
    infos = {
        t.name: TensorInfo(t.name, t.type.name, t.shape, source.path.name, t.offset, t.nbytes) for t in header.tensors.values()
    }
    tensors = [Tensor(t.name, t.shape, (Slice(t.name),)) for t in header.tensors.values()]
    prefix = f"{architecture}."
    facts = _facts(architecture, {k.removeprefix(prefix): v for k, v in header.keys.items() if k.startswith(prefix)})
    notes = ["the source is Q8_0 already: what its rounding lost stays lost"] if _mostly_q8(header) and recipe.quantized else []
    stored = {t.name: t.type for t in header.tensors.values()}
    embedding = header.keys.get(f"{prefix}attention.causal") is False
    template = "as in the source" if "tokenizer.chat_template" in header.keys else "none"
    return _Model(
        architecture, embedding, keys | quantization_keys(recipe), tensors, infos, stored, facts, template, notes=tuple(notes)
    )


def _mostly_q8(header: Header) -> bool:
    return any(t.type == TYPES_BY_NAME["Q8_0"] for t in header.tensors.values())


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


def _memory(tensors: Sequence[Tensor], layout: Layout, model: _Model, threads: int) -> int:
    """Bytes at the peak: the largest slab that must be held whole, the slabs in flight, the header twice."""
    largest = 0
    for t in tensors:
        if t.row_order is not None:
            raw = sum(model.infos[s.source].nbytes for s in t.sources)
            largest = max(largest, raw)
    return _BASE_MEMORY + largest + (2 * threads + 2) * (16 << 20) + 3 * len(layout.header)


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
