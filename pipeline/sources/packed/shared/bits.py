"""From packed bits to numbers: fields in words, small floats, and rows of tensors that are stored in another shape.

Formats: OCP 8-bit floating point (E4M3, E5M2) and OCP Microscaling (E2M1, E8M0) of https://www.opencompute.org.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from agent.errors import UnsupportedError
from pipeline.sources.checkpoint import DTYPE_BYTES, Checkpoint
from pipeline.sources.packed.shared.view import Floats

Codes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint32]
_INTEGERS = {"I8": "i1", "U8": "u1", "I16": "<i2", "U16": "<u2", "I32": "<i4", "U32": "<u4", "I64": "<i8", "U64": "<u8"}


def _e4m3() -> Floats:
    code = np.arange(256)
    exponent, mantissa = code >> 3 & 15, code & 7
    value = np.where(exponent == 0, np.ldexp(mantissa / 8, -6), np.ldexp(1 + mantissa / 8, exponent - 7))
    value[code & 127 == 127] = np.nan  # the finite form: no infinities
    return np.where(code & 128, -value, value).astype(np.float32)


E4M3 = _e4m3()
E5M2: Floats = (np.arange(256, dtype=np.uint16) << 8).view(np.float16).astype(np.float32)
E2M1 = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6], np.float32)
E8M0 = np.append(np.ldexp(np.float32(1), np.arange(-127, 128)), np.nan).astype(np.float32)
CODES: Floats = np.arange(256, dtype=np.float32)  # a code that means itself
_SMALL_FLOATS = {"F8_E4M3": E4M3, "F8_E5M2": E5M2, "F8_E8M0": E8M0}


def decode(raw: npt.NDArray[np.uint8], dtype: str) -> Floats:
    """Raw rows, uint8 [rows, bytes], as float32 [rows, numbers]. Raises UnsupportedError for a type that holds no numbers."""
    raw = np.ascontiguousarray(raw)
    if dtype in _SMALL_FLOATS:
        return np.take(_SMALL_FLOATS[dtype], raw)
    if dtype == "BF16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32)
    if dtype in ("F16", "F32", "F64"):
        return raw.view(f"<f{DTYPE_BYTES[dtype]}").astype(np.float32)
    if dtype not in _INTEGERS:
        raise UnsupportedError(f"scales of type {dtype} are not known; take the full-precision checkpoint")
    return raw.view(_INTEGERS[dtype]).astype(np.float32)


def matrix(stored: Checkpoint, name: str, start: int, stop: int, length: int) -> npt.NDArray[np.uint8]:
    """Raw rows [start, stop) of a tensor seen as a matrix with rows of ``length`` elements, whatever its shape."""
    info = stored.tensors[name]
    if info.row_length and length % info.row_length == 0:
        times = length // info.row_length
        return stored.rows(name, start * times, stop * times).reshape(stop - start, -1)
    whole = stored.rows(name, 0, info.n_rows)  # of a mapped file this is a view
    return np.ascontiguousarray(whole).reshape(-1, length * DTYPE_BYTES[info.dtype])[start:stop]


def numbers(stored: Checkpoint, name: str, start: int, stop: int, length: int) -> Floats:
    """The same rows as float32."""
    return decode(matrix(stored, name, start, stop, length), stored.tensors[name].dtype)


def columns(stored: Checkpoint, name: str, start: int, stop: int) -> npt.NDArray[Any]:
    """Columns [start, stop) of a stored matrix, turned: [stop - start, rows of the matrix], as unsigned integers of that size."""
    info = stored.tensors[name]
    elements = stored.rows(name, 0, info.n_rows).view(f"<u{DTYPE_BYTES[info.dtype]}")
    return np.ascontiguousarray(elements[:, start:stop].T)


def turned(stored: Checkpoint, name: str, start: int, stop: int) -> Floats:
    """The same as float32."""
    return decode(columns(stored, name, start, stop).view(np.uint8), stored.tensors[name].dtype)


def unpack(raw: npt.NDArray[np.uint8], bits: int) -> Codes:
    """Unsigned fields of 1 to 8 bits that follow each other without a gap, the lowest bit first.

    Args:
        raw: uint8 [rows, bytes], contiguous.

    Returns:
        uint8 [rows, bytes * 8 // bits].
    """
    rows = len(raw)
    if bits == 8:
        return raw
    if bits in (1, 2, 4):
        fields = raw[:, :, None] >> np.arange(0, 8, bits, dtype=np.uint8)
    else:
        count = raw.shape[1] * 8 // bits
        single = np.unpackbits(raw, axis=1, bitorder="little", count=count * bits).reshape(rows, count, bits)
        fields = np.packbits(single, axis=2, bitorder="little")
    codes: Codes = (fields & np.uint8(2**bits - 1)).reshape(rows, -1)
    return codes


def look_up(raw: npt.NDArray[np.uint8], bits: int, table: Floats, *, high_first: bool = False) -> Floats:
    """What the fields of ``unpack`` mean.

    Args:
        table: float32, what each code means.
        high_first: the first of two fields of 4 bits lies in the high half of a byte.

    Returns:
        float32 [rows, bytes * 8 // bits].
    """
    if bits not in (2, 4):
        return np.take(table, unpack(raw, bits))
    shifts = np.arange(0, 8, bits)[:: -1 if high_first else 1]
    of_byte = table[np.arange(256)[:, None] >> shifts & (2**bits - 1)]  # all fields of a byte at once, as one wide number
    wide = of_byte.view(np.complex64 if bits == 4 else np.complex128).ravel()
    return np.take(wide, raw).view(np.float32).reshape(len(raw), -1)


def unpack_words(words: Words, bits: int) -> Codes:
    """Unsigned fields of 1 to 8 bits, as many as fit whole into each 32-bit word, the lowest first.

    Returns:
        uint8 [rows, words * (32 // bits)].
    """
    shifts = np.arange(32 // bits, dtype=np.uint32) * np.uint32(bits)
    codes: Codes = ((words[:, :, None] >> shifts) & np.uint32(2**bits - 1)).astype(np.uint8).reshape(len(words), -1)
    return codes
