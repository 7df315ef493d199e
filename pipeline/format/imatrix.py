"""Activation statistics: llama.cpp's imatrix file, both ways.

Format (``tools/imatrix``, ``common/imatrix-loader.cpp``): a GGUF with ``general.type = "imatrix"``; for each weight,
``NAME.in_sum2`` [matrices, columns] sums the squared inputs of each column over all tokens, ``NAME.counts`` [matrices, 1] says
over how many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
from gguf import Keys

from agent.errors import GGUFError, RecipeError
from agent.files import atomic_write
from agent.gguf.reader import TensorEntry, read_header
from agent.gguf.types import F32
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
        if entry.shape != (matrices, shape[-1]):
            if name in ("token_embd.weight", "per_layer_token_embd.weight"):
                return None  # llama.cpp passes these over too: an embedding is looked up, not multiplied
            raise RecipeError(
                f"{self.file} holds {list(entry.shape)} values for {name}, the model needs {[matrices, shape[-1]]}; "
                "it was collected on another model"
            )
        return entry


def read_imatrix(path: Path) -> ImportanceMatrix:
    """Read an imatrix file. Raises RecipeError if it is another kind of file, is broken or holds values that are not finite."""
    try:
        header = read_header(path)
    except GGUFError as e:
        raise RecipeError(f"--imatrix: {e} (only llama.cpp's GGUF format is read, not the older .dat)") from None
    if header.keys.get(Keys.General.TYPE) != "imatrix":
        raise RecipeError(f"--imatrix: {path} is a GGUF but not an imatrix; make one with llama-imatrix")
    data = np.memmap(path, dtype=np.uint8, mode="r")
    entries: dict[str, Floats] = {}
    for name, sums in header.tensors.items():
        if not name.endswith(_SUMS):
            continue
        weight = name.removesuffix(_SUMS)
        counts = header.tensors.get(weight + _COUNTS)
        if counts is None or sums.type != F32 or counts.type != F32:
            raise RecipeError(f"--imatrix: {path} has no F32 counts for {weight}; it is broken, make it again")
        n = np.rint(_floats(data, counts)).reshape(-1, 1)
        if not len(n) or prod(sums.shape) % len(n):
            raise RecipeError(f"--imatrix: {path} holds {len(n)} counts for {list(sums.shape)} sums of {weight}; make it again")
        total = _floats(data, sums).reshape(len(n), -1)
        values = np.where(n > 0, total / np.maximum(n, 1), np.float32(1)).astype(np.float32)
        if not np.isfinite(values).all() or not np.isfinite(n).all() or values.min(initial=0) < 0:
            raise RecipeError(f"--imatrix: {path} holds values for {weight} that are no sums of squares; make it again")
        entries[weight] = values
    if not entries:
        raise RecipeError(f"--imatrix: {path} holds no statistics")
    named, chunks = header.keys.get(Keys.IMatrix.DATASETS, []), header.keys.get(Keys.IMatrix.CHUNK_COUNT, 0)
    if not isinstance(named, list) or not isinstance(chunks, int):
        raise RecipeError(f"--imatrix: {path} does not say what it was collected on in llama.cpp's way; make it again")
    digest = hashlib.sha256(data.data).hexdigest()
    return ImportanceMatrix(entries, tuple(map(str, named)), chunks, digest, path.name)


def _floats(data: np.memmap[tuple[int, ...], np.dtype[np.uint8]], entry: TensorEntry) -> Floats:
    return np.frombuffer(data[entry.offset : entry.offset + entry.nbytes].tobytes(), dtype="<f4")


def write_imatrix(
    path: Path, sums: Mapping[str, Floats], counts: Mapping[str, Floats], *, datasets: Sequence[str], chunks: int, chunk_size: int
) -> None:
    """Write an imatrix file that llama.cpp reads.

    Args:
        sums: tensor name -> float32 [matrices, columns], sums of squared inputs.
        counts: tensor name -> float32 [matrices], tokens seen.
    """
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
