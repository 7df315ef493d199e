"""The header of a GGUF file, read from untrusted bytes.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian). Every count, length
and offset is compared with what the file can hold before anything of that size is made: a lying header costs no memory.
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import GGUFError
from agent.gguf.types import TYPES_BY_ID, GGMLType
from agent.text import display, shortened

# What is larger is no model's, and would take a board minutes. The largest vocabularies in use have 260,000 tokens and 520,000
# merges, and take 16 MB; the largest mixtures of experts have some ten thousand tensors, and every file less than 200 keys.
MAX_HEADER_BYTES = 48_000_000
MAX_STRINGS = 2_000_000  # in all arrays together
MAX_TENSORS = 50_000
MAX_KEYS = 5_000
MAX_DIMENSIONS = 4

_CHUNK = 1 << 20
_STRING, _ARRAY = 8, 9
_SCALARS: Mapping[int, tuple[str, struct.Struct]] = {
    code: (name, struct.Struct("<" + letter))
    for code, name, letter in (
        (0, "u8", "B"), (1, "i8", "b"), (2, "u16", "H"), (3, "i16", "h"), (4, "u32", "I"), (5, "i32", "i"),
        (6, "f32", "f"), (7, "bool", "B"), (10, "u64", "Q"), (11, "i64", "q"), (12, "f64", "d"),
    )
}  # fmt: skip
_U32, _U64 = struct.Struct("<I"), struct.Struct("<Q")
_DIMENSIONS = [struct.Struct(f"<{n}QIQ") for n in range(MAX_DIMENSIONS + 1)]  # of a tensor, then its type and its offset

ReadAt = Callable[[int, int], bytes]  # start, stop -> the bytes between them, fewer at the end


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One line of the tensor table.

    Attributes:
        name: as in the file.
        shape: rows last, as torch gives it (the file lists the dimensions the other way round).
        type: how the weights are stored.
        offset: first byte, counted from the start of the file.
        nbytes: length in bytes, without padding.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class Header:
    """All of a GGUF file but its weights.

    Attributes:
        version: 2 or 3.
        keys: key -> value. Numbers and bools are Python's own, strings are str, an array of strings is a list[str], any
            other array a read-only NumPy array. Bytes that are not UTF-8 are kept as surrogates (PEP 383):
            ``s.encode("utf-8", "surrogateescape")`` gives them back.
        types: key -> its type in the file: "u32", "str", "arr[f32]", ...
        raw_keys: key -> type code and content exactly as in the file, to be copied into another one.
        tensors: name -> entry, in the order of the table.
        alignment: bytes to which each tensor's start is aligned.
        data_offset: where the tensor data starts.
        file_size: bytes of the whole file.
    """

    version: int
    keys: dict[str, Any]
    types: dict[str, str]
    raw_keys: dict[str, bytes]
    tensors: dict[str, TensorEntry]
    alignment: int
    data_offset: int
    file_size: int

    @property
    def context_length(self) -> int | None:
        """Tokens that the model was trained for; None where the file does not say."""
        found = self.keys.get(f"{self.keys.get('general.architecture')}.context_length")
        return found if isinstance(found, int) else None


class _Cursor:
    """A position in the file's head, of which no more is read than was asked for, in chunks."""

    def __init__(self, read: ReadAt, path: Path | str, size: int) -> None:
        self.read, self.path, self.size = read, path, size
        self.data, self.position = b"", 0
        self.strings = 0

    def fail(self, what: str) -> GGUFError:
        return GGUFError(f"{self.path} is not a sound GGUF file: {what}; download or make it again")

    def need(self, count: int, what: str) -> None:
        """Make the next ``count`` bytes available in ``data``."""
        end = self.position + count
        if end <= len(self.data):
            return
        if end > self.size:
            raise self.fail(f"{what} reaches beyond its end (byte {end} of {self.size})")
        if end > MAX_HEADER_BYTES:
            raise self.fail(f"its header is larger than {MAX_HEADER_BYTES // 1_000_000} MB, which no model's is")
        # Doubling keeps the copies linear in the header's length.
        wanted = min(self.size, max(end, _CHUNK, 2 * len(self.data)))
        self.data += self.read(len(self.data), wanted)
        if len(self.data) < end:
            raise self.fail(f"{what} could not be read: the file changed while it was read")

    def take(self, count: int, what: str) -> bytes:
        self.need(count, what)
        start = self.position
        self.position += count
        return self.data[start : self.position]

    def u32(self, what: str) -> int:
        return int(_U32.unpack(self.take(4, what))[0])

    def u64(self, what: str) -> int:
        return int(_U64.unpack(self.take(8, what))[0])

    def string(self, what: str) -> str:
        return str(self.take(self.u64(what), what), "utf-8", "surrogateescape")

    def string_array(self, count: int, what: str) -> list[str]:
        self.strings += count
        if self.strings > MAX_STRINGS:
            raise self.fail(f"{what} and the arrays before it hold more than {MAX_STRINGS} strings")
        out: list[str] = []
        append, unpack = out.append, _U64.unpack_from
        # The loop runs once for each token and merge, so the usual case must cost two slices and no call of our own.
        data, position, limit = self.data, self.position, len(self.data)
        for _ in range(count):
            start = position + 8
            end = start + unpack(data, position)[0] if start <= limit else limit + 1
            if end > limit:
                self.position = position
                self.need(8, what)
                self.need(8 + int(unpack(self.data, position)[0]), what)
                data, limit = self.data, len(self.data)
                end = start + unpack(data, position)[0]
            append(str(data[start:end], "utf-8", "surrogateescape"))
            position = end
        self.position = position
        return out


def read_header(path: Path) -> Header:
    """Keys and tensor table of a GGUF file.

    Raises:
        GGUFError: not a GGUF, truncated, or a header that does not agree with itself or with the file's size.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a FIFO would wait for a writer
    except OSError as e:
        raise GGUFError(f"cannot read {path}: {e.strerror}") from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise GGUFError(f"cannot read {path}: it is not a regular file")
        return parse_header(lambda start, stop: os.pread(fd, stop - start, start), path, status.st_size)
    except OSError as e:
        raise GGUFError(f"cannot read {path}: {e.strerror}") from None
    finally:
        os.close(fd)


def parse_header(read: ReadAt, name: Path | str, size: int) -> Header:
    """Keys and tensor table of a GGUF file that need not lie on this disk.

    Args:
        read: gives the bytes [start, stop) of the file; what it raises passes through.
        name: of the file, for an error.
        size: bytes of the whole file.

    Raises:
        GGUFError: as ``read_header`` does.
    """
    cursor = _Cursor(read, name, size)
    if cursor.size < 24:
        raise cursor.fail(f"it has {cursor.size} bytes")
    magic = cursor.take(4, "its magic")
    if magic != b"GGUF":
        raise GGUFError(f"{cursor.path} is not a GGUF file{_looks_like(magic)}")
    version = cursor.u32("its version")
    if version not in (2, 3):
        big = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        raise cursor.fail("it is big-endian" if big else f"it has version {version}, and 2 and 3 are known")
    n_tensors, n_keys = cursor.u64("its tensor count"), cursor.u64("its key count")
    # The shortest tensor entry takes 24 bytes, the shortest key 14.
    if n_tensors > cursor.size // 24 or n_keys > cursor.size // 14:
        raise cursor.fail(f"it claims {n_tensors} tensors and {n_keys} keys")
    if n_tensors > MAX_TENSORS or n_keys > MAX_KEYS:
        raise cursor.fail(
            f"it has {n_tensors} tensors and {n_keys} keys, and no model has more than {MAX_TENSORS} and {MAX_KEYS}"
        )
    keys: dict[str, Any] = {}
    types: dict[str, str] = {}
    raw_keys: dict[str, bytes] = {}
    for i in range(n_keys):
        key = cursor.string(f"the name of key {i}")
        if not key or key in keys:
            raise cursor.fail(f"key {i} has no name" if not key else f"key {_name(key)} stands in it twice")
        start = cursor.position
        types[key], keys[key] = _value(cursor, f"key {_name(key)}")
        raw_keys[key] = cursor.data[start : cursor.position]
    alignment = keys.get("general.alignment", 32)
    if types.get("general.alignment", "u32") != "u32" or not 0 < alignment <= 1 << 20 or alignment.bit_count() != 1:
        raise cursor.fail(f"general.alignment is {_name(str(alignment))} and must be a power of two")
    table = _table(cursor, n_tensors)
    data_offset = -(-cursor.position // alignment) * alignment
    tensors = {entry[0]: _placed(cursor, entry, data_offset) for entry in table}
    return Header(version, keys, types, raw_keys, tensors, alignment, data_offset, cursor.size)


def _looks_like(magic: bytes) -> str:
    for start, what in (
        (b"vers", "a Git LFS pointer; download the file itself"), (b"PK", "a zip or a torch checkpoint"),
        (b"<", "a text or web page; download it again"), (b"{", "a text or web page; download it again"),
    ):  # fmt: skip
        if magic.startswith(start):
            return f": it is {what}"
    return ""


def _name(text: str) -> str:
    return repr(shortened(display(text), 80))


def _value(cursor: _Cursor, what: str) -> tuple[str, Any]:
    code = cursor.u32(what)
    if code == _STRING:
        return "str", cursor.string(what)
    if code in _SCALARS:
        name, form = _SCALARS[code]
        value = form.unpack(cursor.take(form.size, what))[0]
        return name, bool(value) if name == "bool" else value
    if code != _ARRAY:
        raise cursor.fail(f"{what} has the unknown type {code}")
    element, count = cursor.u32(what), cursor.u64(what)
    if element == _STRING:
        if count > (cursor.size - cursor.position) // 8:
            raise cursor.fail(f"{what} claims {count} strings")
        return "arr[str]", cursor.string_array(count, what)
    if element not in _SCALARS:
        raise cursor.fail(f"{what} is an array of the unknown type {element}")
    name, form = _SCALARS[element]
    if count > (cursor.size - cursor.position) // form.size:
        raise cursor.fail(f"{what} claims {count} numbers")
    array = np.frombuffer(cursor.take(count * form.size, what), dtype=np.dtype(form.format))
    if name == "bool":
        array = array != 0
        array.flags.writeable = False
    return f"arr[{name}]", array


_Placed = tuple[str, tuple[int, ...], GGMLType, int, int]


def _table(cursor: _Cursor, count: int) -> list[_Placed]:
    """Name, shape, type, offset and size of each tensor; the offset counts from the start of the data."""
    entries: list[_Placed] = []
    seen: set[str] = set()
    for i in range(count):
        name = cursor.string(f"the name of tensor {i}")
        if name in seen:
            raise cursor.fail(f"tensor {_name(name)} stands in it twice")
        seen.add(name)
        n_dims = cursor.u32("the table of its tensors")
        if n_dims > MAX_DIMENSIONS:
            raise cursor.fail(f"tensor {_name(name)} has {n_dims} dimensions")
        *dims, code, offset = _DIMENSIONS[n_dims].unpack(cursor.take(_DIMENSIONS[n_dims].size, "the table of its tensors"))
        kind = TYPES_BY_ID.get(code)
        if kind is None:
            raise cursor.fail(f"tensor {_name(name)} has the unknown type {code}")
        if 0 in dims or prod(dims) > 1 << 62:
            raise cursor.fail(f"tensor {_name(name)} has the shape {list(reversed(dims))}")
        row = dims[0] if dims else 1
        if row % kind.block:
            raise cursor.fail(f"tensor {_name(name)} has rows of {row} weights and {kind.name} blocks of {kind.block}")
        shape = tuple(reversed(dims))
        entries.append((name, shape, kind, offset, kind.size(shape)))
    return entries


def _placed(cursor: _Cursor, entry: _Placed, data_offset: int) -> TensorEntry:
    name, shape, kind, offset, nbytes = entry
    if data_offset + offset + nbytes > cursor.size:
        raise cursor.fail(
            f"tensor {_name(name)} ends at byte {data_offset + offset + nbytes} of {cursor.size}, so the file is cut off"
        )
    return TensorEntry(name, shape, kind, data_offset + offset, nbytes)
