"""Writes a LoRA adapter as a GGUF adapter, which llama.cpp adds to its base model when that is loaded.

A and B go through the same steps as the base's own tensors (rows reordered, fused, split), so that they fit its GGUF. Names and
keys are those of llama.cpp's convert_lora_to_gguf.py: ``NAME.lora_a`` [rank, inputs] and ``NAME.lora_b`` [outputs, rank], of
the token embedding both transposed; ``adapter.lora.alpha``, which llama.cpp divides by the rank of each pair.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from gguf import Keys

from agent.errors import CheckpointError, OutputError, RecipeError, SourceError, UnsupportedError
from agent.files import atomic_write, human_size
from agent.gguf.adapter import EMBEDDING, HEAD, check_adapter, passed_over
from agent.gguf.types import TYPES_BY_NAME, GGMLType
from agent.home import adapters
from agent.text import brief, display
from pipeline.architectures.find import find_architecture
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.card import origin_keys, provenance_keys, quantization_keys
from pipeline.format import ggml
from pipeline.format.ggml import Floats
from pipeline.format.gguf_file import TensorSpec, Value, lay_out
from pipeline.preflight import output_file
from pipeline.recipes.names import Recipe, find_recipe
from pipeline.sources.adapter import CONFIG, Change, find_changes, read_lora_config
from pipeline.sources.base_model import open_model
from pipeline.sources.checkpoint import Checkpoint, TensorInfo
from pipeline.sources.merged import floats
from pipeline.sources.source import Source, headers, open_checkpoint, read_config

RECIPES = ("F32", "F16", "BF16", "Q8_0")
_F16 = TYPES_BY_NAME["F16"]
_MERGE = "leave --lora out, and it is merged"


@dataclass(frozen=True, slots=True)
class AdapterResult:
    """A finished GGUF adapter, or with ``dry_run`` one that would be made.

    Attributes:
        path: of the file.
        size: bytes.
        recipe: type of its matrices; rows that its blocks do not divide are F16.
        model, base: names of the adapter and of the model that it is for.
        tensors: how many of the base's tensors it changes.
        notes: one-line remarks for a person.
    """

    path: Path
    size: int
    recipe: str
    model: str
    base: str
    tensors: int
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """The result for people, a line each."""
        return [
            f"adapter       {display(self.model)}",
            f"for           {display(self.base)}, of which it changes {_counted(self.tensors, 'tensor')}",
            f"output        {display(str(self.path))}",
            f"size          {self.size:,} bytes ({human_size(self.size)}), {self.recipe}",
            *(f"note          {display(note)}" for note in self.notes),
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "path": str(self.path), "size": self.size, "recipe": self.recipe, "model": self.model, "base": self.base,
            "tensors": self.tensors, "notes": list(self.notes),
        }  # fmt: skip


def write_adapter(
    model: str, recipe: str = "F16", out: Path | str | None = None, *, base: str | None = None, revision: str | None = None,
    token: str | None = None, offline: bool = False, dry_run: bool = False,
) -> AdapterResult:  # fmt: skip
    """Make a GGUF adapter of a LoRA adapter. Of the base model only config.json and the headers are read.

    Args:
        model: the adapter, a Hub id with optional @revision or a folder.
        recipe: one of ``RECIPES``.
        out: the file or folder; None puts it into SPRIG_HOME/adapters.
        base: the base model, in the place of the one that the adapter names.
        revision, token, offline: as of ``open_model``.
        dry_run: write nothing.

    Raises:
        SprigError: it is no LoRA adapter, or one that a GGUF adapter cannot hold; nothing is written.
    """
    kind = find_recipe(recipe)
    if kind.name not in RECIPES:
        raise RecipeError(f"an adapter can be {', '.join(RECIPES)}, not {kind.name}; it is small, so F16 is usual")
    source = open_model(model, base=base, revision=revision, token=token, offline=offline)
    if source.adapter is None:
        raise SourceError(f"{source.name} is a whole model and no adapter (LoRA); leave --lora out")
    config, infos = read_config(source), headers(replace(source, adapter=None))
    architecture = find_architecture(config)(config, infos)
    path = output_file(source.adapter, kind, out, adapters())
    lora = read_lora_config(source.adapter.files.get(CONFIG), source.adapter.name)
    with open_checkpoint(source.adapter) as adapter:
        changes = find_changes(lora, adapter.tensors, infos, source.adapter.name)
        tensors = _wanted(architecture, changes, source.adapter.name)
        halves = {f"{t.name}.lora_{x}": half for t in tensors for x, half in _pair(t, changes, infos, adapter, lora.alpha)}
    content = _content(_keys(source, architecture.gguf, kind, lora.alpha), halves, kind.base)
    if not dry_run:
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, content)
        check_adapter(path)
    used = {piece.source for tensor in tensors for piece in tensor.sources}
    left = sorted(name for name in changes if name not in used)
    notes = (
        (f"left out: {_counted(len(left), 'change')} of what the GGUF does not have, such as {brief(left[0])}",) if left else ()
    )
    return AdapterResult(path, len(content), kind.name, source.adapter.name, source.name, len(tensors), notes)


def _counted(n: int, what: str) -> str:
    return f"{n} {what}{'' if n == 1 else 's'}"


def _keys(source: Source, architecture: str, recipe: Recipe, alpha: float) -> dict[str, Value]:
    return {
        Keys.General.ARCHITECTURE: architecture,
        Keys.General.TYPE: "adapter",
        Keys.Adapter.TYPE: "lora",
        Keys.Adapter.LORA_ALPHA: alpha,
        **origin_keys(source),
        **quantization_keys(recipe),
        **provenance_keys(source, recipe, (), None),
    }


def _content(keys: Mapping[str, Value], halves: Mapping[str, Floats], kind: GGMLType) -> bytes:
    """The whole file."""
    specs = [TensorSpec(name, half.shape, kind if half.shape[-1] % kind.block == 0 else _F16) for name, half in halves.items()]
    layout = lay_out(keys, specs)
    content = bytearray(layout.size)
    content[: len(layout.header)] = layout.header
    for spec, offset, half in zip(specs, layout.offsets, halves.values(), strict=True):
        if not np.isfinite(half).all():
            raise CheckpointError(f"the adapter's matrices of {spec.name} hold NaN or infinity; it is broken or diverged")
        rows = ggml.quantize(np.ascontiguousarray(half.reshape(-1, half.shape[-1])), spec.type)
        if not ggml.valid(rows, spec.type):
            raise OutputError(f"{spec.name} does not fit {spec.type.name}: a weight is too large for it; take -q F32")
        content[offset : offset + spec.nbytes] = rows.tobytes()
    return bytes(content)


def _wanted(architecture: Architecture, changes: Mapping[str, Change], where: str) -> list[Tensor]:
    """The base's tensors that the adapter changes. Raises UnsupportedError for what a GGUF adapter cannot hold."""
    for change in changes.values():
        low_rank = change.low_rank
        frozen = change.whole is None or ".base_layer." in change.whole  # PEFT keeps a copy of an embedding that it changes
        if low_rank is None or low_rank.is_bias or low_rank.magnitude or change.picked or not frozen:
            what = "uses DoRA" if low_rank and low_rank.magnitude else f"has a {brief(change.name)} of its own"
            raise UnsupportedError(f"{where} {what}, which a GGUF adapter cannot hold; {_MERGE}")
    tensors = architecture.tensors()
    one = architecture.tied or all(t.name != HEAD for t in tensors)
    if one and any(c.name == "lm_head.weight" for c in changes.values()):
        raise UnsupportedError(
            f"{where} changes the head of a base whose head is its embedding: llama.cpp has no tensor for it; {_MERGE}"
        )
    wanted = [t for t in tensors if any(piece.source in changes for piece in t.sources)]
    if one and any(t.name == EMBEDDING for t in wanted):
        raise UnsupportedError(f"{where} changes an embedding that is the head too, over which llama.cpp would abort; {_MERGE}")
    if (deaf := next((t.name for t in wanted if passed_over(architecture.gguf, t.name)), None)) is not None:
        raise UnsupportedError(f"{where} changes {deaf}, where llama.cpp computes with the model's own weights; {_MERGE}")
    return wanted


def _pair(
    tensor: Tensor, changes: Mapping[str, Change], infos: Mapping[str, TensorInfo], adapter: Checkpoint, alpha: float
) -> Iterator[tuple[str, Floats]]:  # fmt: skip
    """ "a" and "b" of one tensor of the GGUF: B scaled so that alpha / rank is the right scale for all of it."""
    if tensor.function is not None or len(tensor.shape) not in (2, 3):
        raise UnsupportedError(f"the adapter changes {tensor.name}, which a GGUF adapter cannot; {_MERGE}")
    matrices = [_Matrix(tensor, pieces, changes, adapter) for pieces in _by_matrix(tensor, infos)]
    rank = max(m.rank for m in matrices)
    a = np.stack([np.pad(m.a, ((0, rank - m.rank), (0, 0))) for m in matrices])
    b = np.stack([np.pad(m.b * (m.scales * rank / alpha).astype(np.float32), ((0, 0), (0, rank - m.rank))) for m in matrices])
    if tensor.row_order is not None:
        b = b.reshape(-1, rank)[tensor.row_order].reshape(b.shape)
    if tensor.column_order is not None:
        a = a[:, :, tensor.column_order]
    if tensor.name == EMBEDDING:
        yield from (("a", b[0]), ("b", a[0].T))
    elif len(tensor.shape) == 3:
        yield from (("a", a), ("b", b))
    else:
        yield from (("a", a[0]), ("b", b[0]))


def _by_matrix(tensor: Tensor, infos: Mapping[str, TensorInfo]) -> list[list[tuple[Slice, int]]]:
    """The slices of each matrix (of each expert, where there are some), with the rows that each has."""
    matrices: list[list[tuple[Slice, int]]] = [[]]
    room = tensor.shape[-2]
    for piece in tensor.sources:
        count = (infos[piece.source].n_rows if piece.stop is None else piece.stop) - piece.start
        if not room:
            matrices.append([])
            room = tensor.shape[-2]
        if count > room:
            raise UnsupportedError(f"the adapter changes {tensor.name}, whose experts lie in one tensor; {_MERGE}")
        matrices[-1].append((piece, count))
        room -= count
    return matrices


class _Matrix:
    """A [rank, inputs] and B [outputs, rank] of one matrix, put together of those of its slices, and the scale of each rank.

    Slices that share an A share its rank; others stand side by side, each with zeros where the others have their rows.
    """

    def __init__(
        self, tensor: Tensor, pieces: Sequence[tuple[Slice, int]], changes: Mapping[str, Change], adapter: Checkpoint
    ) -> None:
        places: dict[str, tuple[int, Floats]] = {}
        parts: list[tuple[int, int, Floats, float]] = []  # row, column, rows of B, scale
        row = self.rank = 0
        for piece, count in pieces:
            change = changes.get(piece.source)
            if change is not None and change.low_rank is not None:
                low = change.low_rank
                a, b = floats(adapter, low.a), floats(adapter, low.b)
                if tensor.name == EMBEDDING:
                    a, b = b.T, a.T
                if low.a not in places:
                    places[low.a] = (self.rank, a)
                    self.rank += low.rank
                rows = b[piece.start : piece.start + count]
                if a.shape[1] != tensor.shape[-1] or len(rows) != count:
                    raise UnsupportedError(f"the adapter's matrices do not lie as those of {tensor.name}; {_MERGE}")
                parts.append((row, places[low.a][0], rows, low.scale))
            row += count
        self.a = np.concatenate([np.zeros((0, tensor.shape[-1]), np.float32), *(a for _, a in places.values())])
        self.b = np.zeros((tensor.shape[-2], self.rank), np.float32)
        self.scales = np.zeros(self.rank)
        for at, column, rows, scale in parts:
            self.b[at : at + len(rows), column : column + rows.shape[1]] = rows
            self.scales[column : column + rows.shape[1]] = scale
