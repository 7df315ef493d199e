"""Activation statistics: llama.cpp's imatrix file, both ways.

Format (``tools/imatrix``, ``common/imatrix-loader.cpp``): a GGUF with ``general.type = "imatrix"``; for each weight,
``NAME.in_sum2`` [matrices, columns] sums the squared inputs of each column over all tokens, ``NAME.counts`` [matrices, 1] says
over how many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import Keys

from agent.errors import GGUFError, RecipeError
from agent.files import atomic_write
from agent.gguf.reader import TensorEntry, read_header
from agent.gguf.types import F32
from agent.text import display
from pipeline.format.ggml import Floats
from pipeline.format.gguf_file import TensorSpec, Value, lay_out, padded

_SUMS, _COUNTS = ".in_sum2", ".counts"


@dataclass(frozen=True, slots=True)
class ImportanceMatrix:
    """Mean squared activations.

    Attributes:
        entries: GGUF tensor name -> float32 [matrices, columns].
        datasets: the texts it was collected on.
        chunks: how many chunks of text that were.
        sha256: of the file.
        file: its name.
    """

    entries: Mapping[str, Floats]
    datasets: tuple[str, ...]
    chunks: int
    sha256: str
    file: str

    def of(self, name: str, shape: tuple[int, ...]) -> Floats | None:
        """The values for this tensor (rows last), float32 [matrices, columns]; None if none were collected.

        Raises:
            RecipeError: the values belong to a tensor of another shape, so to another model.
        """
        entry = self.entries.get(name)
        matrices = shape[0] if len(shape) == 3 else 1
        if entry is None:
            return None
        if entry.shape == (1, matrices * shape[-1]):
            return entry.reshape(matrices, shape[-1])  # llama-imatrix keeps matrices that no router chooses in one row
        if entry.shape != (matrices, shape[-1]):
            if name in ("token_embd.weight", "per_layer_token_embd.weight"):
                return None  # llama.cpp passes these over too: an embedding is looked up, not multiplied
            raise RecipeError(
                f"--imatrix: {self.file} was collected on another model: it holds {list(entry.shape)} values for {name}, and "
                f"this one needs {[matrices, shape[-1]]}; sprig calibrate makes one of it"
            )
        return entry

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compare with the weights of a model, rows last. Raises RecipeError if it was collected on another one."""
        other = other_blocks(self.entries, shapes)
        if other is None and all(self.of(name, shape) is None for name, shape in shapes.items()):
            other = "it names none of this model's tensors"
        if other:
            raise RecipeError(f"--imatrix: {self.file} was collected on another model: {other}; sprig calibrate makes one of it")


def other_blocks(measured: Collection[str], shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """How the blocks of the measured weights differ from those of a model, in words; None if they are the same."""
    met = {name.split(".")[1] for name in measured if name.startswith("blk.")}
    own = {name.split(".")[1] for name, shape in shapes.items() if name.startswith("blk.") and len(shape) > 1}
    idle = {name.split(".")[1] for name in shapes if ".nextn." in name}  # such a block guesses tokens ahead, and is not run
    if met and (unmet := own - met - idle):
        return f"it has nothing for block {min(unmet, key=_number)} of this one"
    if strange := met - own:
        return f"it has values for block {display(max(strange, key=_number))}, and this one has none there"
    return None


def _number(block: str) -> tuple[int, str]:
    return len(block), block


@dataclass(frozen=True, slots=True)
class SquareSums:
    """What the file holds, before it is divided.

    Attributes:
        sums: GGUF tensor name -> float32 [counts, columns of all that share a count], sums of squared inputs.
        counts: tensor name -> float32 [counts], tokens; one for a weight, one for each of its experts.
        datasets: the texts it was collected on.
        chunks: how many chunks of text that were, of ``chunk_size`` tokens.
    """

    sums: Mapping[str, Floats]
    counts: Mapping[str, Floats]
    datasets: tuple[str, ...]
    chunks: int
    chunk_size: int

    def write(self, path: Path) -> None:
        """Write an imatrix file that llama.cpp reads, in one step. Raises OutputError."""
        write_imatrix(
            path, self.sums, self.counts, datasets=self.datasets or ("unknown",), chunks=self.chunks, chunk_size=self.chunk_size
        )


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read an imatrix file. Raises RecipeError if it is another kind of file, is broken or holds values that are not finite."""
    read = read_sums(path)
    entries = {
        name: np.where(n > 0, sums / np.maximum(n, 1), np.float32(1)).astype(np.float32)
        for name, sums in read.sums.items()
        for n in (read.counts[name].reshape(-1, 1),)
    }
    return ImportanceMatrix(entries, read.datasets, read.chunks, hashlib.sha256(path.read_bytes()).hexdigest(), path.name)


def read_sums(path: Path, said: str = "--imatrix") -> SquareSums:
    """Read an imatrix file as it is. Raises RecipeError as ``read_imatrix``; ``said`` is the option that named the file."""
    try:
        header = read_header(path)
    except GGUFError as e:
        raise RecipeError(f"{said}: {e} (only llama.cpp's GGUF format is read, not the older .dat)") from None
    if header.types.get(Keys.General.TYPE) != "str" or header.keys[Keys.General.TYPE] != "imatrix":
        raise RecipeError(f"{said}: {path} is a GGUF but not an imatrix; make one with sprig calibrate or llama-imatrix")
    data = np.memmap(path, dtype=np.uint8, mode="r")
    all_sums: dict[str, Floats] = {}
    all_counts: dict[str, Floats] = {}
    for name, sums in header.tensors.items():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        counts = header.tensors.get(weight + _COUNTS)
        if counts is None or sums.type != F32 or counts.type != F32:
            raise RecipeError(f"{said}: {path} has no F32 counts for {weight}; it is broken, make it again")
        n = np.rint(_floats(data, counts))
        if not len(n) or prod(sums.shape) % len(n):
            raise RecipeError(f"{said}: {path} holds {len(n)} counts for {list(sums.shape)} sums of {weight}; make it again")
        total = _floats(data, sums).reshape(len(n), -1)
        if not np.isfinite(total).all() or not np.isfinite(n).all() or total.min(initial=0) < 0 or n.min() < 0:
            raise RecipeError(f"{said}: {path} holds values for {weight} that are no sums of squares; make it again")
        all_sums[weight], all_counts[weight] = total, n
    if not all_sums:
        raise RecipeError(f"{said}: {path} holds no statistics")
    named, chunks, size = (
        header.keys.get(key, usual)
        for key, usual in ((Keys.IMatrix.DATASETS, []), (Keys.IMatrix.CHUNK_COUNT, 0), (Keys.IMatrix.CHUNK_SIZE, 512))
    )
    if not isinstance(named, list) or not isinstance(chunks, int) or not isinstance(size, int):
        raise RecipeError(f"{said}: {path} does not say what it was collected on in llama.cpp's way; make it again")
    return SquareSums(all_sums, all_counts, tuple(map(str, named)), chunks, size)


def merge_sums(parts: Sequence[SquareSums]) -> SquareSums:
    """Several files as if all their texts had been read in one run: sums and counts are added, as llama-imatrix does it.

    Raises RecipeError if they are of different models.
    """
    sums: dict[str, Floats] = {}
    counts: dict[str, Floats] = {}
    for part in parts:
        if other := other_blocks(part.sums, {name: added.shape for name, added in parts[0].sums.items()}):
            raise RecipeError(f"--merge: a file was collected on another model than the first: {other}")
        for name, added in part.sums.items():
            n = part.counts[name]
            if name not in sums:
                sums[name], counts[name] = added, n
                continue
            before, total = counts[name], max(len(n), len(counts[name]))
            if added.size != sums[name].size or (len(n) != len(before) and 1 not in (len(n), len(before))):
                raise RecipeError(
                    f"--merge: {name} has {list(added.shape)} sums in one file and {list(sums[name].shape)} in another; "
                    "only files of one model can be merged"
                )
            counts[name] = before + n  # an older file has one count for all experts
            sums[name] = sums[name].reshape(total, -1) + added.reshape(total, -1)
    datasets = tuple(dict.fromkeys(d for part in parts for d in part.datasets))
    return SquareSums(sums, counts, datasets, sum(p.chunks for p in parts), max(p.chunk_size for p in parts))


def _floats(data: np.memmap[tuple[int, ...], np.dtype[np.uint8]], entry: TensorEntry) -> Floats:
    return np.frombuffer(data[entry.offset : entry.offset + entry.nbytes].tobytes(), dtype="<f4")


def write_imatrix(
    path: Path, sums: Mapping[str, Floats], counts: Mapping[str, Floats], *, datasets: Sequence[str], chunks: int, chunk_size: int
) -> None:
    """Write an imatrix file that llama.cpp reads, in one step; the arguments are those of ``SquareSums``. Raises OutputError."""
    keys: dict[str, Value] = {
        Keys.General.TYPE: "imatrix",
        Keys.IMatrix.DATASETS: list(datasets),
        Keys.IMatrix.CHUNK_COUNT: chunks,
        Keys.IMatrix.CHUNK_SIZE: chunk_size,
    }
    arrays = {}
    for name in sorted(sums):
        arrays[name + _SUMS] = sums[name].astype("<f4")
        arrays[name + _COUNTS] = counts[name].astype("<f4").reshape(-1, 1)
    layout = lay_out(keys, [TensorSpec(name, a.shape, F32) for name, a in arrays.items()])
    body = b"".join(a.tobytes().ljust(padded(a.nbytes), b"\0") for a in arrays.values())
    atomic_write(path, layout.header + body)
