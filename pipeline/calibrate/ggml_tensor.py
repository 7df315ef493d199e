"""ggml's tensor as it lies in memory: what an evaluation callback is given.

The structure is no part of ggml's promises (``struct ggml_tensor`` in ``ggml.h``), so ``check_layout`` compares it, once, with
what the library itself says of tensors that it makes.
"""

from __future__ import annotations

import ctypes
from abc import ABC, abstractmethod
from functools import cache
from typing import Any

import numpy as np

from agent.errors import SprigError
from pipeline.format.ggml import Floats, library

_DIMENSIONS, _SOURCES, _NAME = 4, 10, 64
_F32 = 0


class GGMLTensor(ctypes.Structure):
    """``struct ggml_tensor``. ``ne`` counts elements and ``nb`` bytes from one to the next, the columns first."""

    def source(self, i: int) -> GGMLTensor | None:
        """The tensor that it is computed from."""
        address = self.src[i]
        return GGMLTensor.from_address(address) if address else None

    @property
    def label(self) -> str:
        """Its name; of a weight, the one in the GGUF."""
        return bytes(self.name).decode("utf-8", "replace")


GGMLTensor._fields_ = [
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * _DIMENSIONS),
    ("nb", ctypes.c_size_t * _DIMENSIONS),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.c_void_p * _SOURCES),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * _NAME),
]


def floats(tensor: GGMLTensor) -> Floats | None:
    """The values of a float32 tensor in the memory of this machine, without a copy: [n3, n2, n1, columns]; None if it is none."""
    if tensor.type != _F32 or not tensor.data or tensor.nb[0] != 4:
        return None
    values: Floats = _view(tensor, np.float32)
    return values


def integers(tensor: GGMLTensor) -> Any:
    """The same of an int32 tensor; the caller knows that it is one."""
    return _view(tensor, np.int32)


def _view(tensor: GGMLTensor, dtype: Any) -> Any:
    shape, strides = tuple(tensor.ne)[::-1], tuple(tensor.nb)[::-1]
    length = sum((n - 1) * step for n, step in zip(shape, strides, strict=True)) + 4
    memory = (ctypes.c_uint8 * length).from_address(tensor.data)
    return np.ndarray(shape, dtype, memory, strides=strides)


@cache
def operations() -> dict[str, int]:
    """Numbers of the operations that weights are used in, as this library counts them."""
    lib = library()
    lib.ggml_op_name.restype = ctypes.c_char_p
    wanted = {b"MUL_MAT", b"MUL_MAT_ID"}
    found: dict[str, int] = {}
    for number in range(256):
        if len(found) == len(wanted):
            return found
        if (name := lib.ggml_op_name(number)) in wanted:
            found[name.decode()] = number
    raise _unknown("its operations")


class _InitParams(ctypes.Structure):
    _fields_ = (("mem_size", ctypes.c_size_t), ("mem_buffer", ctypes.c_void_p), ("no_alloc", ctypes.c_bool))


@cache
def check_layout() -> None:
    """Make tensors and compare every field that is read here. Raises SprigError if this llama.cpp lays them out otherwise."""
    lib = library()
    lib.ggml_init.restype, lib.ggml_init.argtypes = ctypes.c_void_p, [_InitParams]
    lib.ggml_free.restype, lib.ggml_free.argtypes = None, [ctypes.c_void_p]
    new, multiply = lib.ggml_new_tensor_3d, lib.ggml_mul_mat
    new.restype, new.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_int, *[ctypes.c_int64] * 3]
    multiply.restype, multiply.argtypes = ctypes.c_void_p, [ctypes.c_void_p] * 3
    lib.ggml_set_name.restype, lib.ggml_set_name.argtypes = ctypes.c_void_p, [ctypes.c_void_p, ctypes.c_char_p]
    lib.ggml_get_data.restype, lib.ggml_get_data.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    context = lib.ggml_init(_InitParams(1 << 20, None, False))
    if not context:
        raise _unknown("its memory")
    try:
        weight, data = new(context, _F32, 3, 2, 1), new(context, _F32, 3, 5, 2)
        lib.ggml_set_name(weight, b"a.weight")
        product = multiply(context, weight, data)
        a, b, c = (GGMLTensor.from_address(address) for address in (weight, data, product))
        same = (
            a.label == "a.weight" and a.data == lib.ggml_get_data(weight) and b.data == lib.ggml_get_data(data)
            and tuple(b.ne) == (3, 5, 2, 1) and tuple(b.nb) == (4, 12, 60, 120) and tuple(c.ne) == (2, 5, 2, 1)
            and c.op == operations()["MUL_MAT"] and list(c.src[:3]) == [weight, data, None] and a.type == b.type == _F32
        )  # fmt: skip
    finally:
        lib.ggml_free(context)
    if not same:
        raise _unknown("its tensors")


class NodeWatch(ABC):
    """llama.cpp's evaluation callback of one context. An error ends the computation and is kept in ``error``.

    Raises SprigError if this llama.cpp lays tensors out otherwise.
    """

    def __init__(self) -> None:
        check_layout()
        self.error: Exception | None = None

    def __call__(self, address: int, ask: bool) -> bool:
        if self.error is not None:
            return False
        try:
            return self.look(GGMLTensor.from_address(address), ask)
        except Exception as e:
            self.error = e
            return False

    @abstractmethod
    def look(self, node: GGMLTensor, ask: bool) -> bool:
        """Whether to stop behind this node (``ask``), or, having done so, to go on."""


def _unknown(what: str) -> SprigError:
    return SprigError(
        f"this llama.cpp lays {what} out in a way that Sprig does not know, so activations cannot be read: "
        "pip install 'llama-cpp-python==0.3.36'"
    )
