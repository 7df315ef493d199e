"""bitsandbytes: 4 bit (NF4, FP4; scales may be quantized themselves) and 8 bit (LLM.int8).

Source: ``QuantState.from_dict`` and ``Params4bit`` of https://github.com/bitsandbytes-foundation/bitsandbytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import look_up, matrix, numbers
from pipeline.sources.packed.shared.scaled import Scaled, parts, scaled
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_STATE = ".quant_state.bitsandbytes__"
_TO_127 = 1 / 127


@dataclass(frozen=True)
class FourBit(PackedWeight):
    """Two codes a byte, the first in the high half; blocks run on over the ends of rows.

    Attributes:
        block: weights with one scale.
        nested_block: scales with one scale of their own; None where scales are plain.
        nested_offset: what is added to such scales.
    """

    block: int
    nested_block: int | None
    nested_offset: float

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[-1]
        first, last = start * length, stop * length
        raw = np.ascontiguousarray(matrix(stored, self.name, first // 2, -(-last // 2), 1)).reshape(1, -1)
        table = numbers(stored, f"{self.name}.quant_map", 0, 1, 16)[0]
        weights = look_up(raw, 4, table, high_first=True)[0, first % 2 :][: last - first]
        low, high = first // self.block, -(-last // self.block)
        weights *= np.repeat(self._scales(stored, low, high), self.block)[first - low * self.block :][: last - first]
        return weights.reshape(stop - start, length)

    def _scales(self, stored: Checkpoint, low: int, high: int) -> Floats:
        name = f"{self.name}.absmax"
        if self.nested_block is None:
            return numbers(stored, name, low, high, 1)[:, 0]
        codes = matrix(stored, name, low, high, 1).ravel()
        table = numbers(stored, f"{self.name}.nested_quant_map", 0, 1, 256)[0]
        first, last = low // self.nested_block, -(-high // self.nested_block)
        nested = numbers(stored, f"{self.name}.nested_absmax", first, last, 1)[:, 0]
        block_of = np.arange(low, high) // self.nested_block - first
        scales: Floats = table[codes] * nested[block_of] + np.float32(self.nested_offset)
        return scales


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError, or UnsupportedError for a code that is not known."""
    eight: dict[str, Scaled] = {}
    four: dict[str, FourBit] = {}
    hidden: set[str] = set()
    for name, info in source.tensors.items():
        module = name.removesuffix(".weight")
        if name.endswith(".weight") and f"{module}.SCB" in source.tensors and info.dtype == "I8":
            eight[name] = scaled(info, source.tensor(f"{module}.SCB", name), None, factor=_TO_127)
            form = f"{module}.weight_format"
            if form in source.tensors and any(source.content(form)):
                raise UnsupportedError(
                    f"{name!r} is packed by bitsandbytes in the order of one kind of GPU; save the model again"
                )
            hidden.add(form)
        elif _STATE in name:
            weight, _, kind = name.partition(_STATE)
            if kind not in ("nf4", "fp4"):
                raise UnsupportedError(f"{weight!r} is packed by bitsandbytes as {kind[:40]!r}, which Sprig does not read")
            four[weight] = _four_bit(source, weight, name)
            ends = (".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map")
            hidden |= {weight, name, *(weight + end for end in ends)}
    return Packing(f"bitsandbytes {'4' if four else '8'} bit", {**eight, **four}, frozenset(hidden | parts(eight.values())))


def _four_bit(source: PackedSource, weight: str, state_name: str) -> FourBit:
    info, absmax = source.tensor(weight, weight), source.tensor(f"{weight}.absmax", weight)
    state = _state(source, state_name)
    shape, nested = state.get("shape"), state.get("nested_blocksize")
    settings = PackedSource(state, source.tensors, source.content)
    block = settings.integer("blocksize")
    if not isinstance(shape, list) or len(shape) < 2 or not all(type(n) is int and 0 < n < 2**31 for n in (*shape, nested or 1)):
        raise CheckpointError(f"{state_name!r} gives no shape that can be; download it again")
    offset = state.get("nested_offset", 0.0)
    double = absmax.dtype == "U8"
    if not isinstance(offset, int | float) or (double and not nested):
        raise CheckpointError(f"{state_name!r} does not say how the scales are packed; download it again")
    n = prod(shape)
    if info.dtype != "U8" or prod(info.shape) != -(-n // 2):
        raise misfit(info, f"a weight of shape {shape}")
    blocks = -(-n // block)
    expected = {f"{weight}.absmax": blocks, f"{weight}.quant_map": 16}
    if double and nested:
        expected |= {f"{weight}.nested_absmax": -(-blocks // nested), f"{weight}.nested_quant_map": 256}
    for name, count in expected.items():
        if prod((part := source.tensor(name, weight)).shape) != count:
            raise misfit(part, f"a weight of shape {shape} in blocks of {block}")
    return FourBit(weight, tuple(shape), block, nested if double else None, float(offset))


def _state(source: PackedSource, name: str) -> dict[str, Any]:
    info = source.tensor(name, name)
    try:
        if info.dtype != "U8" or info.nbytes > 1 << 16:
            raise ValueError
        state = json.loads(source.content(name))
        if not isinstance(state, dict):
            raise ValueError
    except (ValueError, RecursionError):
        raise CheckpointError(f"{name!r} is not a description of a packed weight; download it again") from None
    return state
