"""The header of a GGUF file: keys and tensor table, laid out before a single weight is read.

The package ``gguf`` writes it. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (version 3, little-endian).
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import GGUF_DEFAULT_ALIGNMENT, GGUFValueType, GGUFWriter
from gguf.gguf_writer import WriterState

from agent.gguf.types import GGMLType


@dataclass(frozen=True, slots=True)
class Raw:
    """A value as it stands in another GGUF: type code and content, taken over byte for byte."""

    data: bytes


# What a key may hold. An int is written as uint32 (as int32 when negative), a float as float32, a list of ints as int32; a
# NumPy array keeps its own element type, a NumPy scalar its own type (np.uint64(3)).
Value = Raw | str | bytes | bool | int | float | np.generic | Sequence[str | bytes | float] | npt.NDArray[np.generic]


class _HeaderWriter(GGUFWriter):  # type: ignore[misc]  # gguf is not typed
    """gguf's writer, with memory in the place of a file."""

    def __init__(self) -> None:
        super().__init__(None, "")  # the architecture comes with the other keys

    def open_output_file(self, path: object = None) -> None:
        self.fout = [BytesIO()]
        self.state = WriterState.EMPTY

    def _pack_val(self, val: Any, vtype: Any, add_vtype: bool, sub_type: Any = None) -> bytes:
        if isinstance(val, Raw):
            return val.data
        if vtype != GGUFValueType.ARRAY:
            packed: bytes = super()._pack_val(val, vtype, add_vtype, sub_type)
            return packed
        # A vocabulary has a million items, and gguf would pack them one by one.
        content = b"".join([struct.pack("<Q", len(v)) + v for v in val]) if isinstance(val, list) else val.tobytes()
        return struct.pack("<IIQ", vtype, sub_type, len(val)) + content

    def header(self) -> bytes:
        self.write_header_to_file()
        self.write_kv_data_to_file()
        self.write_ti_data_to_file()
        header: bytes = self.fout[0].getvalue()
        return header


def _utf8(text: str | bytes) -> bytes:
    return text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text


def _typed(value: Value) -> tuple[Any, Any, Any]:
    """The value as the writer takes it, its GGUF type and, of an array, the type of its items. Raises TypeError."""
    if isinstance(value, Raw):
        return value, None, None
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        return little.ravel(), GGUFValueType.ARRAY, GGUFValueType[value.dtype.name.upper()]
    if isinstance(value, np.generic):
        return value.item(), GGUFValueType[value.dtype.name.upper()], None
    if isinstance(value, bool):
        return value, GGUFValueType.BOOL, None
    if isinstance(value, int):
        return value, GGUFValueType.UINT32 if value >= 0 else GGUFValueType.INT32, None
    if isinstance(value, float):
        return value, GGUFValueType.FLOAT32, None
    if isinstance(value, str | bytes):
        return _utf8(value), GGUFValueType.STRING, None
    items = list(value)
    if not items:
        raise TypeError("an empty array has no type; leave the key out")
    if all(isinstance(v, str | bytes) for v in items):
        return [_utf8(v) for v in items], GGUFValueType.ARRAY, GGUFValueType.STRING  # type: ignore[arg-type]
    kinds = {type(v) for v in items}
    for allowed, dtype in (({bool}, np.bool_), ({int}, np.int32), ({int, float}, np.float32)):
        if kinds <= allowed:
            return _typed(np.asarray(items, dtype=dtype))
    raise TypeError(f"a GGUF array holds one type, not {sorted(kind.__name__ for kind in kinds)}")


def pack_value(value: Value) -> bytes:
    """Type code and content of one key, as they stand in the file. Raises TypeError for what GGUF cannot hold."""
    content, kind, items = _typed(value)
    return _HeaderWriter()._pack_val(content, kind, True, items)


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One line of the tensor table. ``shape`` has rows last; the file lists the dimensions the other way round."""

    name: str
    shape: tuple[int, ...]
    type: GGMLType

    @property
    def nbytes(self) -> int:
        return self.type.size(self.shape)


def padded(n: int, alignment: int = GGUF_DEFAULT_ALIGNMENT) -> int:
    """``n`` bytes, rounded up to the alignment."""
    return int(GGUFWriter.ggml_pad(n, alignment))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where everything lies in the file.

    Attributes:
        header: all bytes before the first tensor, padding included.
        offsets: absolute offset of each tensor's first byte, in the order of the table.
        size: bytes of the whole file; the last tensor is padded too, as llama.cpp writes it.
    """

    header: bytes
    entries: tuple[TensorSpec, ...]
    offsets: tuple[int, ...]
    size: int


def lay_out(keys: Mapping[str, Value], entries: Sequence[TensorSpec]) -> Layout:
    """The complete header of a file with these keys and tensors, and the offset of each tensor's data.

    Raises:
        TypeError: GGUF cannot hold a key's value.
        ValueError: two tensors have the same name.
    """
    writer = _HeaderWriter()
    for key, value in keys.items():
        writer.add_key_value(_utf8(key), *_typed(value))
    relative, position = [], 0
    for entry in entries:
        # The dtype is for arrays; of the raw type, gguf only writes the number.
        writer.add_tensor_info(_utf8(entry.name), entry.shape, np.dtype(np.float32), entry.nbytes, entry.type.id)
        relative.append(position)
        position += padded(entry.nbytes)
    header = writer.header()
    header += bytes(padded(len(header)) - len(header))
    return Layout(header, tuple(entries), tuple(len(header) + r for r in relative), len(header) + position)
