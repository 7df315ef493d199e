"""The header of a GGUF file: keys and tensor table, laid out before a single weight is read.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from agent.gguf.types import GGMLType

ALIGNMENT = 32


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it stands in another GGUF: type code and content, taken over byte for byte."""

    data: bytes


# What a key may hold. An int is written as uint32 (as int32 when negative), a float as float32, a list of ints as int32; a
# NumPy array keeps its own element type, a NumPy scalar its own type (np.uint64(3)).
Scalar = str | bool | int | float | np.generic
Value = (
    Raw
    | Scalar
    | bytes
    | Sequence[str]
    | Sequence[bytes]
    | Sequence[bool]
    | Sequence[int]
    | Sequence[float]
    | npt.NDArray[np.generic]
)

_UINT32, _INT32, _FLOAT32, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NUMPY_CODES = {
    np.dtype(np.uint8): 0, np.dtype(np.int8): 1, np.dtype(np.uint16): 2, np.dtype(np.int16): 3, np.dtype(np.uint32): 4,
    np.dtype(np.int32): 5, np.dtype(np.float32): 6, np.dtype(np.bool_): 7, np.dtype(np.uint64): 10, np.dtype(np.int64): 11,
    np.dtype(np.float64): 12,
}  # fmt: skip


def _string(value: str | bytes) -> bytes:
    raw = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
    return struct.pack("<Q", len(raw)) + raw


def _array(code: int, count: int, data: bytes) -> bytes:
    return struct.pack("<IIQ", _ARRAY, code, count) + data


def pack_value(value: Value) -> bytes:
    """Type code and content of one key, as they stand in the file. TypeError for what GGUF cannot hold."""
    if isinstance(value, Raw):
        return value.data
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return _array(_NUMPY_CODES[np.dtype(value.dtype)], value.size, little.tobytes())
    if isinstance(value, np.generic):
        return struct.pack("<I", _NUMPY_CODES[value.dtype]) + value.astype(value.dtype.newbyteorder("<")).tobytes()
    if isinstance(value, bool):
        return struct.pack("<I?", _BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value) if value >= 0 else struct.pack("<Ii", _INT32, value)
    if isinstance(value, float):
        return struct.pack("<If", _FLOAT32, value)
    if isinstance(value, str | bytes):
        return struct.pack("<I", _STRING) + _string(value)
    items = list(value)
    if not items:
        raise TypeError("an empty array has no type; leave the key out")
    if all(isinstance(v, str | bytes) for v in items):
        return _array(_STRING, len(items), b"".join(_string(v) for v in items))  # type: ignore[arg-type]
    if all(isinstance(v, bool) for v in items):
        return _array(_BOOL, len(items), bytes(items))  # type: ignore[arg-type]
    if all(isinstance(v, int) and not isinstance(v, bool) for v in items):
        return pack_value(np.asarray(items, dtype=np.int32))
    if all(isinstance(v, int | float) and not isinstance(v, bool) for v in items):
        return pack_value(np.asarray(items, dtype=np.float32))
    raise TypeError(f"a GGUF array holds one type, not {sorted({type(v).__name__ for v in items})}")


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the tensor table. ``shape`` has rows last; the file lists the dimensions the other way round."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType

    @property
    def nbytes(self) -> int:
        return self.type.size(self.shape)


def padded(n: int, alignment: int = ALIGNMENT) -> int:
    return -(-n // alignment) * alignment


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in the file.

    Attributes:
        header: all bytes before the first tensor, padding included.
        offsets: absolute offset of each tensor's first byte, in the order of the table.
        size: bytes of the whole file; the last tensor is padded too, as llama.cpp writes it.
    """

    header: bytes
    entries: tuple[Entry, ...]
    offsets: tuple[int, ...]
    size: int


def lay_out(keys: Mapping[str, Value], entries: Sequence[Entry]) -> Layout:
    """The complete header of a file with these keys and tensors, and the offset of each tensor's data."""
    out = [struct.pack("<IIQQ", 0x46554747, 3, len(entries), len(keys))]
    for key, value in keys.items():
        out += [_string(key), pack_value(value)]
    relative, position = [], 0
    for entry in entries:
        dims = tuple(reversed(entry.shape))
        out.append(_string(entry.name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, entry.type.id, position))
        relative.append(position)
        position += padded(entry.nbytes)
    header = b"".join(out)
    header += bytes(padded(len(header)) - len(header))
    return Layout(header, tuple(entries), tuple(len(header) + r for r in relative), len(header) + position)
