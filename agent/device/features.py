"""What the processor can do that ggml asks about, and which quantized weights ggml therefore holds in another order."""

from __future__ import annotations

import platform
import re
import struct
from collections.abc import Collection
from pathlib import Path

from agent.device.kernel import text
from agent.gguf.types import ARM_REPACKED

# Bits of AT_HWCAP (16) and AT_HWCAP2 (26) in the auxiliary vector; arch/arm64/include/uapi/asm/hwcap.h of Linux.
_ARM = {"fp16": (16, 10), "dotprod": (16, 20), "sve": (16, 22), "sve2": (26, 1), "i8mm": (26, 13), "bf16": (26, 14)}
_X86 = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512_vnni", "avx_vnni", "amx_int8")


def features(root: Path = Path("/"), machine: str = "") -> frozenset[str]:
    """Those features of the processor that ggml has faster code for, in the words of Linux and of Arm.

    Args:
        root: where ``proc`` is mounted.
        machine: as ``platform.machine()``, whose answer is the default.
    """
    kind = (machine or platform.machine()).lower()
    if kind in ("aarch64", "arm64"):
        vector = _auxiliary_vector(root)
        return frozenset(name for name, (key, bit) in _ARM.items() if vector.get(key, 0) >> bit & 1)
    flags = re.search(r"^flags\s*:(.*)$", text(root / "proc/cpuinfo"), re.MULTILINE)
    return frozenset(flags[1].split() if flags else ()).intersection(_X86)


def repacked_types(root: Path = Path("/"), machine: str = "") -> frozenset[str]:
    """Types of weights for which ggml has packed kernels on this processor."""
    return repacked_by(features(root, machine))


def repacked_by(here: Collection[str]) -> frozenset[str]:
    """Types of weights for which ggml has packed kernels on a processor with these features (its ggml-cpu/repack.cpp)."""
    found: set[str] = set()
    if "dotprod" in here:
        found |= ARM_REPACKED
    if "avx2" in here:
        found |= {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4"}
    if "avx512f" in here:
        found.add("Q2_K")
    return frozenset(found)


def _auxiliary_vector(root: Path) -> dict[int, int]:
    """What the kernel told this process at its start (getauxval(3)); empty where it cannot be read."""
    try:
        raw = (root / "proc/self/auxv").read_bytes()
    except OSError:
        return {}
    return dict(struct.iter_unpack("=QQ", raw[: len(raw) // 16 * 16]))
