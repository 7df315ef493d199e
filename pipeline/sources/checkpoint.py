"""The tensors of a checkpoint: what there is, and its raw rows, each read only when asked for.

Headers are parsed here from bytes, so that the same code serves a file on disk and the first kilobytes of one on the Hub.
Format: https://github.com/huggingface/safetensors#format (8 bytes little-endian header length, JSON header, data).
"""

from __future__ import annotations

import json
import mmap
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt

from agent.errors import CheckpointError
from agent.gguf.types import TYPES_BY_NAME, GGMLType
from agent.text import brief

RawRows = npt.NDArray[np.uint8]

# Bytes per element of the safetensors dtypes.
DTYPE_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1,
    "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
}  # fmt: skip
# The dtypes that hold weights: plain floats, and ggml's blocks when the checkpoint is a GGUF (two serve activations only).
PLAIN_TYPES = ("F64", "F32", "F16", "BF16")
SOURCE_TYPES: dict[str, GGMLType] = {
    name: kind for name, kind in TYPES_BY_NAME.items() if name in PLAIN_TYPES or (kind.block > 1 and name not in ("Q8_1", "Q8_K"))
}
_LFS = b"version https://git-lfs.github.com/spec/"
MAX_HEADER_BYTES = 100_000_000  # the cap of the safetensors library itself
_MAX_DIMENSIONS, _MAX_NUMBER = 16, 1 << 62  # a header may hold numbers of any length, which would take for ever to multiply


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies.

    Attributes:
        name: the name in the checkpoint.
        dtype: "F32", "F16", "BF16", ... as safetensors spells it, or a ggml type name when the checkpoint is a GGUF.
        shape: rows last, as torch gives it; () for a scalar.
        file: the file's name within the checkpoint.
        offset: first byte, counted from the start of the file.
        nbytes: length in bytes.
        packed: how the file has it ("GPTQ 4 bit"), when these are the plain rows that are computed from it.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int
    nbytes: int
    packed: str = ""

    @property
    def row_length(self) -> int:
        """Elements per row: the last dimension."""
        return self.shape[-1] if self.shape else 1

    @property
    def n_rows(self) -> int:
        """Rows of the tensor seen as a matrix: the product of all dimensions but the last."""
        return prod(self.shape[:-1]) if self.shape else 1

    @property
    def row_bytes(self) -> int:
        return self.nbytes // self.n_rows if self.n_rows else 0


class Checkpoint(ABC):
    """Named tensors, read by rows. A ``with`` closes it.

    Implementations: files mapped into memory (a GGUF too), HTTP ranges, torch's zip files, and views of these.
    """

    tensors: Mapping[str, TensorInfo]

    @abstractmethod
    def rows(self, name: str, start: int, stop: int) -> RawRows:
        """Raw bytes of rows [start, stop), as uint8 [stop - start, row_bytes]; may be a view that must not be written."""

    @abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()


def refuse_pointer(file: str, head: bytes) -> None:
    """Raises CheckpointError if a file that begins with these bytes is a Git LFS pointer, a note where the real file is."""
    if head.startswith(_LFS):
        raise CheckpointError(f"{file} is a Git LFS pointer, not the file itself: run git lfs pull in its folder, or download it")


def parse_safetensors_header(file: str, head: bytes, file_size: int) -> dict[str, TensorInfo]:
    """The tensors of one safetensors file.

    Args:
        file: its name, for messages.
        head: its first bytes; at least 8 plus the header's length.
        file_size: its size in bytes on disk or as the Hub states it.

    Raises:
        CheckpointError: truncated, not safetensors, or a header that does not agree with itself or with the file's size.
    """

    def fault(what: str) -> CheckpointError:
        return CheckpointError(f"{file} is not a whole safetensors file: {what}; download it again")

    if len(head) < 8:
        raise fault(f"it has {len(head)} bytes")
    data = 8 + int.from_bytes(head[:8], "little")
    refuse_pointer(file, head)
    if data - 8 > MAX_HEADER_BYTES or data > file_size:
        raise fault(f"it has a header of {data - 8} bytes in a file of {file_size} bytes")
    if len(head) < data:
        raise fault(f"only {len(head)} of {data} header bytes could be read")
    try:
        header = json.loads(head[8:data].decode())
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
    except (ValueError, AttributeError, RecursionError) as e:
        raise fault(f"its header is not a JSON object ({e})") from None
    infos: dict[str, TensorInfo] = {}
    for name, entry in entries.items():
        try:
            dtype, shape = str(entry["dtype"]), tuple(entry["shape"])
            begin, end = entry["data_offsets"]
            sane = all(type(n) is int and 0 <= n < _MAX_NUMBER for n in (*shape, begin, end))
        except (TypeError, KeyError, ValueError):
            raise fault(f"the entry of tensor {brief(name)} is malformed") from None
        if not sane or len(shape) > _MAX_DIMENSIONS:
            raise fault(f"the size of tensor {brief(name)} is not one that can be")
        if dtype not in DTYPE_BYTES:
            what = f"tensor {brief(name)} has the unknown data type {brief(dtype)}"
            raise CheckpointError(f"{file}: {what}; use a plain checkpoint")
        if end - begin != prod(shape) * DTYPE_BYTES[dtype]:
            raise fault(f"tensor {brief(name)} of shape {list(shape)} and type {dtype} cannot be {end - begin} bytes")
        if data + end > file_size:
            raise fault(f"tensor {brief(name)} ends at byte {data + end} of a file of {file_size} bytes")
        infos[name] = TensorInfo(name, dtype, shape, file, data + begin, end - begin)
    position = data
    for info in sorted(infos.values(), key=lambda i: (i.offset, i.nbytes)):
        if info.offset != position:
            what = "overlaps another" if info.offset < position else "leaves a hole before it"
            raise fault(f"the data of tensor {brief(info.name)} {what}")
        position += info.nbytes
    if position != file_size:
        raise fault(f"{file_size - position} bytes lie behind its last tensor")
    return infos


def read_safetensors_header(path: Path, name: str | None = None) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file on disk, which its checkpoint calls ``name``. Raises CheckpointError."""
    try:
        with path.open("rb") as f:
            head, size = f.read(8), path.stat().st_size
            length = int.from_bytes(head, "little")
            head += f.read(length if length <= min(MAX_HEADER_BYTES, size) else 64)  # 64 show what it is instead
    except OSError as e:
        raise CheckpointError(f"cannot read {path}: {e.strerror}") from None
    return parse_safetensors_header(name or path.name, head, size)


def merge_headers(headers: Mapping[str, Mapping[str, TensorInfo]], index: Mapping[str, str] | None) -> dict[str, TensorInfo]:
    """One table of all tensors of a checkpoint.

    Args:
        headers: file name -> its tensors.
        index: ``weight_map`` of the checkpoint's index file, tensor -> file, when it is sharded.

    Raises:
        CheckpointError: a tensor in two shards, or one that the index promises and no shard holds.
    """
    merged: dict[str, TensorInfo] = {}
    for file, infos in headers.items():
        for name, info in infos.items():
            if name in merged:
                raise CheckpointError(f"tensor {brief(name)} is in both {merged[name].file} and {file}; download them again")
            merged[name] = info
    lost = sorted(name for name, file in (index or {}).items() if name not in merged or merged[name].file != file)
    if lost:
        file = (index or {})[lost[0]]
        raise CheckpointError(f"tensor {brief(lost[0])} should be in {file} and is not ({len(lost)} such); download it again")
    return merged


class MappedCheckpoint(Checkpoint):
    """Files on disk, mapped into memory: nothing is read before a row is asked for, and the kernel may drop it after."""

    def __init__(self, folder: Path, tensors: Mapping[str, TensorInfo], paths: Mapping[str, Path] | None = None) -> None:
        """
        Args:
            folder: where the files lie.
            tensors: every tensor, from the headers.
            paths: file name -> path, where it is not ``folder / name``.
        """
        self.tensors = tensors
        self._maps: dict[str, npt.NDArray[np.uint8]] = {}
        for file in {info.file for info in tensors.values()}:
            path = (paths or {}).get(file, folder / file)
            try:
                mapped = np.memmap(path, dtype=np.uint8, mode="r")
            except (OSError, ValueError) as e:
                raise CheckpointError(f"cannot read {path}: {e}") from None
            if hasattr(mmap, "MADV_SEQUENTIAL"):
                mapped._mmap.madvise(mmap.MADV_SEQUENTIAL)  # type: ignore[attr-defined]
            self._maps[file] = np.asarray(mapped)

    def rows(self, name: str, start: int, stop: int) -> RawRows:
        info = self.tensors[name]
        size = info.row_bytes
        begin = info.offset + start * size
        return self._maps[info.file][begin : begin + (stop - start) * size].reshape(stop - start, size)

    def close(self) -> None:
        self._maps.clear()
