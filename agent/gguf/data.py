"""Are a file's weights numbers? All of them are read; NaN and infinity are refused.

A block of a quantized type holds small integers, of which every pattern is legal, and one or two scales, which must be finite.
The verdict is the one of ggml's ``ggml_validate_row_data`` (ggml-quants.c), without its prints.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import numpy.typing as npt

from agent.errors import GGUFError
from agent.gguf.reader import Header, TensorEntry
from agent.gguf.types import GGMLType
from agent.text import display

_SLAB = 1 << 22

# Types that are plain numbers: (element, bits that are all set in NaN and infinity).
_PLAIN: dict[str, tuple[str, int]] = {
    "F32": ("<u4", 0x7F800000), "F16": ("<u2", 0x7C00), "BF16": ("<u2", 0x7F80),
}  # fmt: skip
_INTEGER = frozenset({"I8", "I16", "I32", "I64", "NVFP4"})  # every pattern is a number (NVFP4's scales have no NaN in ggml)
# Byte offsets of the half-precision scales in a block (ggml-common.h).
_SCALES: dict[str, tuple[int, ...]] = {
    "Q1_0": (0,), "Q2_0": (0,), "Q4_0": (0,), "Q4_1": (0, 2), "Q5_0": (0,), "Q5_1": (0, 2), "Q8_0": (0,),
    "Q2_K": (80, 82), "Q3_K": (108,), "Q4_K": (0, 2), "Q5_K": (0, 2), "Q6_K": (208,),
    "IQ2_XXS": (0,), "IQ2_XS": (0,), "IQ2_S": (0,), "IQ3_XXS": (0,), "IQ3_S": (0,), "IQ1_S": (0,), "IQ4_NL": (0,),
    "IQ4_XS": (0,), "TQ1_0": (52,), "TQ2_0": (64,),
}  # fmt: skip
_HALF_EXPONENT = 0x7C00


def finite(data: npt.NDArray[np.uint8], kind: GGMLType) -> bool:
    """Whether these whole blocks, uint8 of any shape and contiguous, hold nothing but numbers. A type that a model cannot
    be made of (Q8_1) counts as unsound."""
    if kind.name in _INTEGER:
        return True
    if kind.name in _PLAIN:
        element, mask = _PLAIN[kind.name]
        bits = data.ravel().view(element)
        return not bool(((bits & bits.dtype.type(mask)) == mask).any())
    if kind.name == "F64":
        with np.errstate(over="ignore", invalid="ignore"):  # what does not fit a float32 is infinite to llama.cpp
            return bool(np.isfinite(data.ravel().view("<f8").astype(np.float32)).all())
    blocks = data.reshape(-1, kind.nbytes)
    if kind.name == "MXFP4":
        return not bool((blocks[:, 0] == 0xFF).any())
    if kind.name == "Q8_K":
        return bool(np.isfinite(blocks[:, :4].copy().view("<f4")).all())
    if kind.name == "IQ1_M":
        return _half_finite(_iq1_m_scale(blocks))
    return kind.name in _SCALES and all(_half_finite(blocks[:, at : at + 2].copy().view("<u2")) for at in _SCALES[kind.name])


def _half_finite(bits: npt.NDArray[np.uint16]) -> bool:
    return not bool(((bits & np.uint16(_HALF_EXPONENT)) == _HALF_EXPONENT).any())


def _iq1_m_scale(blocks: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint16]:
    """IQ1_M spreads its scale over the top four bits of four 16-bit words at the block's end."""
    top = (blocks[:, [49, 51, 53, 55]] >> np.uint8(4)).astype(np.uint16)
    scale: npt.NDArray[np.uint16] = np.bitwise_or.reduce(top << np.array([0, 4, 8, 12], np.uint16), axis=1)
    return scale


def check_data(path: Path, header: Header) -> None:
    """Read all tensors of a file. GGUFError names the first that holds NaN or infinity, or cannot be read."""
    try:
        with path.open("rb", buffering=0) as f:
            for entry in header.tensors.values():
                _check_tensor(f.fileno(), path, entry)
    except OSError as e:
        raise GGUFError(f"cannot read {path}: {e.strerror}") from None


def _check_tensor(fd: int, path: Path, entry: TensorEntry) -> None:
    step = _SLAB // entry.type.nbytes * entry.type.nbytes
    for start in range(0, entry.nbytes, step):
        count = min(step, entry.nbytes - start)
        # Read, not mapped: a mapped file that somebody truncates would kill this process.
        raw = os.pread(fd, count, entry.offset + start)
        if len(raw) != count:
            raise GGUFError(f"{path} became shorter while it was read; make or download it again")
        if not finite(np.frombuffer(raw, np.uint8), entry.type):
            weight = start // entry.type.nbytes * entry.type.block
            raise GGUFError(
                f"{path} must not be loaded: tensor {display(repr(entry.name))} holds NaN or infinity "
                f"(at or after weight {weight}); get or make another one"
            )
