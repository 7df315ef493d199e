"""The one ctypes binding to ggml's quantization kernels, in the library that llama-cpp-python brings.

ctypes releases the GIL during each call, so these run on all cores from plain threads. Every function here takes and gives
C-contiguous NumPy arrays; rows are the last axis. Source of the signatures: ``ggml.h`` (``ggml_quantize_chunk``,
``ggml_validate_row_data``, ``ggml_get_type_traits``).
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import cast

import numpy as np
import numpy.typing as npt

from agent.errors import SprigError, UnsupportedError
from agent.gguf.types import GGMLType

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

_ToFloat = Callable[[int, int, int], None]


class _TypeTraits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def library() -> ctypes.CDLL:
    """libggml-base, loaded once. Raises SprigError when llama-cpp-python is not installed."""
    spec = find_spec("llama_cpp")
    folder = Path(spec.origin).parent / "lib" if spec and spec.origin else None
    names = ("libggml-base.so", "libggml-base.dylib", "ggml-base.dll", "libggml-base.so.0")
    path = next((folder / n for n in names if (folder / n).exists()), None) if folder else None
    if path is None:
        raise SprigError("ggml's library was not found: install llama-cpp-python (pip install llama-cpp-python)")
    lib = ctypes.CDLL(str(path))
    lib.ggml_quantize_chunk.restype = ctypes.c_size_t
    lib.ggml_quantize_chunk.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p]
    lib.ggml_validate_row_data.restype = ctypes.c_bool
    lib.ggml_validate_row_data.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t]
    lib.ggml_get_type_traits.restype = ctypes.POINTER(_TypeTraits)
    lib.ggml_get_type_traits.argtypes = [ctypes.c_int]
    lib.ggml_blck_size.restype = ctypes.c_int64
    lib.ggml_type_size.restype = ctypes.c_size_t
    for name in ("ggml_bf16_to_fp32_row", "ggml_fp16_to_fp32_row"):
        function = getattr(lib, name)
        function.restype = None
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    return lib


@cache
def _to_float(type_id: int) -> _ToFloat:
    # F16 and BF16 go through the rows functions, which pick AVX or NEON; the traits' own are scalar loops.
    lib = library()
    if type_id == 30:
        return cast(_ToFloat, lib.ggml_bf16_to_fp32_row)
    if type_id == 1:
        return cast(_ToFloat, lib.ggml_fp16_to_fp32_row)
    address = lib.ggml_get_type_traits(type_id).contents.to_float
    if not address:
        raise UnsupportedError(f"ggml cannot read tensors of type {type_id}")
    prototype = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)
    return prototype(address)


def to_float(raw: Bytes, kind: GGMLType, row_length: int, out: Floats | None = None) -> Floats:
    """Weights as float32.

    Args:
        raw: uint8 [rows, bytes per row], contiguous.
        kind: how they are stored.
        row_length: weights per row.
        out: float32 [rows, row_length] to fill, when given.
    """
    rows = raw.shape[0]
    if kind.name == "F32":
        return raw.view("<f4").reshape(rows, row_length)
    if kind.name == "F64":  # ggml names it but does not read it
        return raw.view("<f8").reshape(rows, row_length).astype(np.float32)
    if out is None:
        out = np.empty((rows, row_length), dtype=np.float32)
    _to_float(kind.id)(raw.ctypes.data, out.ctypes.data, rows * row_length)
    return out


def quantize(weights: Floats, kind: GGMLType, importance: Floats | None = None) -> Bytes:
    """Rows of weights as ggml stores them, rounded by ggml's own kernel.

    Args:
        weights: float32 [rows, row length], contiguous.
        kind: the target type; its block must divide the row length.
        importance: float32 [row length], the mean squared activation of each column, or None.

    Returns:
        uint8 [rows, bytes per row].
    """
    rows, length = weights.shape
    out = np.empty((rows, kind.row_size(length)), dtype=np.uint8)
    written = library().ggml_quantize_chunk(
        kind.id, weights.ctypes.data, out.ctypes.data, 0, rows, length, importance.ctypes.data if importance is not None else None
    )
    if written != out.nbytes:
        raise SprigError(f"ggml wrote {written} bytes of {kind.name} where {out.nbytes} belong; report this as a bug")
    return out


def valid(rows: Bytes, kind: GGMLType) -> bool:
    """Whether every block holds finite scales and legal indices (``ggml_validate_row_data``)."""
    return bool(library().ggml_validate_row_data(kind.id, rows.ctypes.data, rows.nbytes))
