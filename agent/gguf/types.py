"""The tensor types of ggml: identity, block length and block size.

Source: ``enum ggml_type`` and the ``type_traits`` table of ggml (``ggml.h``, ``ggml.c``). A row of a tensor is stored
as ``row length / block`` blocks of ``nbytes`` bytes each, so a type fits a tensor only when ``block`` divides the row.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod


@dataclass(frozen=True, slots=True)
class GGMLType:
    """One way to store the weights of a row.

    Attributes:
        id: the number that a GGUF file carries for it.
        name: the name that llama.cpp prints, in upper case.
        block: weights per block.
        nbytes: bytes per block.
    """

    id: int
    name: str
    block: int
    nbytes: int

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.nbytes / self.block

    def row_size(self, length: int) -> int:
        """Bytes of a row of ``length`` weights; ValueError when blocks do not divide it."""
        if length % self.block:
            raise ValueError(f"a row of {length} is not a whole number of {self.name} blocks of {self.block}")
        return length // self.block * self.nbytes

    def size(self, shape: tuple[int, ...]) -> int:
        """Bytes of a tensor of this shape (rows last, as NumPy and torch give it)."""
        return prod(shape[:-1]) * self.row_size(shape[-1]) if shape else self.nbytes


_TABLE = (
    GGMLType(0, "F32", 1, 4),
    GGMLType(1, "F16", 1, 2),
    GGMLType(2, "Q4_0", 32, 18),
    GGMLType(3, "Q4_1", 32, 20),
    GGMLType(6, "Q5_0", 32, 22),
    GGMLType(7, "Q5_1", 32, 24),
    GGMLType(8, "Q8_0", 32, 34),
    GGMLType(9, "Q8_1", 32, 36),
    GGMLType(10, "Q2_K", 256, 84),
    GGMLType(11, "Q3_K", 256, 110),
    GGMLType(12, "Q4_K", 256, 144),
    GGMLType(13, "Q5_K", 256, 176),
    GGMLType(14, "Q6_K", 256, 210),
    GGMLType(15, "Q8_K", 256, 292),
    GGMLType(16, "IQ2_XXS", 256, 66),
    GGMLType(17, "IQ2_XS", 256, 74),
    GGMLType(18, "IQ3_XXS", 256, 98),
    GGMLType(19, "IQ1_S", 256, 50),
    GGMLType(20, "IQ4_NL", 32, 18),
    GGMLType(21, "IQ3_S", 256, 110),
    GGMLType(22, "IQ2_S", 256, 82),
    GGMLType(23, "IQ4_XS", 256, 136),
    GGMLType(24, "I8", 1, 1),
    GGMLType(25, "I16", 1, 2),
    GGMLType(26, "I32", 1, 4),
    GGMLType(27, "I64", 1, 8),
    GGMLType(28, "F64", 1, 8),
    GGMLType(29, "IQ1_M", 256, 56),
    GGMLType(30, "BF16", 1, 2),
    GGMLType(34, "TQ1_0", 256, 54),
    GGMLType(35, "TQ2_0", 256, 66),
    GGMLType(39, "MXFP4", 32, 17),
    GGMLType(40, "NVFP4", 64, 36),
    GGMLType(41, "Q1_0", 128, 18),
    GGMLType(42, "Q2_0", 64, 18),
)
TYPES_BY_NAME: dict[str, GGMLType] = {t.name: t for t in _TABLE}
TYPES_BY_ID: dict[int, GGMLType] = {t.id: t for t in _TABLE}

F32 = TYPES_BY_NAME["F32"]
F16 = TYPES_BY_NAME["F16"]
BF16 = TYPES_BY_NAME["BF16"]
Q8_0 = TYPES_BY_NAME["Q8_0"]

# Types whose matrix products ggml repacks for ARM's NEON kernels (ggml-cpu/repack.cpp); the others run slower.
ARM_REPACKED = frozenset({"Q1_0", "Q4_0", "Q4_K", "Q5_K", "Q6_K", "IQ4_NL", "Q8_0", "MXFP4"})
