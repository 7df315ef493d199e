"""A checkpoint folder, written tensor by tensor beside its place: complete or absent, also after kill -9."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np

from agent.errors import OutputError
from agent.files import atomic_write, free_disk, human_size, make_folder, scratch_folder, write_error
from agent.gguf.types import TYPES_BY_NAME
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.sources.checkpoint import DTYPE_BYTES

SHARD_BYTES = 5_000_000_000  # as transformers has it
_INDEX = "model.safetensors.index.json"


@dataclass(frozen=True, slots=True)
class NewTensor:
    """A tensor to be written.

    Attributes:
        name, source: in the new checkpoint, and in the old one.
        dtype, shape: as safetensors has them.
    """

    name: str
    source: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def weights(self) -> int:
        return prod(self.shape)


Content = Callable[[NewTensor], Bytes]


def refuse_place(out: Path) -> None:
    """Raises OutputError, before any work, if something lies at ``out`` already; an empty folder may."""
    if out.is_symlink() or (out.exists() and (not out.is_dir() or any(out.iterdir()))):
        raise OutputError(f"{out} exists already: remove it, or name another folder with -o")


@contextmanager
def checkpoint_draft(out: Path) -> Iterator[Path]:
    """A folder beside ``out`` to write into; ``publish_folder`` gives it its name, else it is gone afterwards."""
    refuse_place(out)
    make_folder(out.parent)
    with scratch_folder(out.absolute().with_name(f".{out.name[:100]}.part")) as folder:
        folder.chmod(0o755)
        yield folder


def write_checkpoint(
    folder: Path, tensors: Sequence[NewTensor], content: Content, files: Mapping[str, bytes], *, shard_bytes: int = SHARD_BYTES
) -> int:
    """Write the weights, an index if they are several files, and the small files.

    Args:
        content: the bytes of a tensor; asked for one at a time, in the order of the file.
        files: name, which may lie in a folder -> content.

    Returns:
        bytes of the weight files.

    Raises:
        OutputError: the disk is full or does not take it.
    """
    shards = _shards(tensors, shard_bytes)
    need = sum(map(_size, tensors))
    if need > (free := free_disk(folder)):
        raise OutputError(
            f"the new checkpoint needs {human_size(need)}, {human_size(free)} are free: make room or name another place"
        )
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{i:05}-of-{len(shards):05}.safetensors" for i in range(1, len(shards) + 1)]
    total = sum(_write_shard(folder / name, shard, content) for name, shard in zip(names, shards, strict=True))
    if len(shards) > 1:
        table = {t.name: name for name, shard in zip(names, shards, strict=True) for t in shard}
        index = json.dumps({"metadata": {"total_size": need}, "weight_map": table}, indent=2)
        write_small_files(folder, {_INDEX: index.encode()})
    write_small_files(folder, files)
    return total


def write_small_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files, each in one step; a name may lie in a folder. OutputError when they do not fit."""
    for name, raw in files.items():
        path = folder / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise write_error(e, path) from None
        atomic_write(path, raw)


def as_stored(weights: Floats, dtype: str) -> Bytes:
    """Weights as the bytes of a safetensors dtype, rounded to nearest even. Raises OutputError if one is too large for it."""
    flat = np.ascontiguousarray(weights, np.float32).reshape(1, -1)
    if dtype == "F32":
        raw: Bytes = flat.astype("<f4").view(np.uint8).reshape(-1)
        return raw
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = flat.astype("<f2")
        if not np.isfinite(half).all():
            raise OutputError("a weight became too large for F16; nothing was written")
        return half.view(np.uint8).reshape(-1)
    return ggml.quantize(flat, TYPES_BY_NAME["BF16"]).reshape(-1)


def _shards(tensors: Iterable[NewTensor], most: int) -> list[list[NewTensor]]:
    shards: list[list[NewTensor]] = [[]]
    held = 0
    for tensor in tensors:
        size = _size(tensor)
        if shards[-1] and held + size > most:
            shards.append([])
            held = 0
        shards[-1].append(tensor)
        held += size
    return shards


def _size(tensor: NewTensor) -> int:
    return tensor.weights * DTYPE_BYTES[tensor.dtype]


def _write_shard(path: Path, tensors: Sequence[NewTensor], content: Content) -> int:
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    at = 0
    for tensor in tensors:
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": [at, at + _size(tensor)]}
        at += _size(tensor)
    head = json.dumps(header).encode()
    head += b" " * (-len(head) % 8)
    try:
        with path.open("xb") as file:
            file.write(len(head).to_bytes(8, "little") + head)
            for tensor in tensors:
                raw = content(tensor)
                assert raw.nbytes == _size(tensor), tensor.name
                file.write(raw.data)
    except OSError as e:
        raise write_error(e, path) from None
    return 8 + len(head) + at
