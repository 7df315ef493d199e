"""How the installed llama.cpp was built. Run as a module, it says so: the library is loaded in a process of its own."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass

from agent.children.launch import run_module
from agent.errors import SprigError

# What ggml calls a feature (ggml-cpu.cpp), and what the processor calls it.
_NAMES = {
    "AVX": "avx", "AVX2": "avx2", "FMA": "fma", "F16C": "f16c", "AVX512": "avx512f", "AVX_VNNI": "avx_vnni",
    "AVX512_VNNI": "avx512_vnni", "AMX_INT8": "amx_int8", "DOTPROD": "dotprod", "MATMUL_INT8": "i8mm", "FP16_VA": "fp16",
    "SVE": "sve", "SVE2": "sve2", "BF16": "bf16",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Build:
    """Version of llama-cpp-python, and the features of the processor that its library was built to use."""

    version: str
    features: frozenset[str]


def read_build() -> Build:
    """Load the library and ask it. SprigError in one line when it is missing, broken, or made for another processor."""
    ended = run_module("agent.fit.build", [], b"", 60)
    try:
        said = json.loads(ended.output)
    except ValueError:
        # An instruction that this processor does not have is the usual end of a library that was built elsewhere.
        lines = ended.log.strip().splitlines()
        raise SprigError(f"llama.cpp cannot be loaded: {lines[-1] if lines else f'status {ended.status}'}") from None
    if "error" in said:
        raise SprigError(said["error"])
    on = re.findall(r"(\w+) = 1", said["system"])
    return Build(said["version"], frozenset(_NAMES[name] for name in on if name in _NAMES))


def main() -> None:
    """Say it on standard output, as JSON."""
    from importlib.metadata import version

    from agent.engine.llama_import import import_llama

    try:
        lib = import_llama()
        said = {"version": version("llama-cpp-python"), "system": lib.llama_print_system_info().decode()}
    except SprigError as e:
        said = {"error": str(e)}
    json.dump(said, sys.stdout)


if __name__ == "__main__":
    main()
