"""compressed-tensors, the format of llm-compressor and vLLM: packed integers, packed 4-bit floats, or one number a weight.

Integers and zeros are stored plus half their range. Those whose bits do not divide a word used to leave a gap at its end; later
versions leave none.
Source: https://github.com/vllm-project/compressed-tensors (``compressors``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.checkpoint import Checkpoint, RawRows, TensorInfo
from pipeline.sources.packed.shared.bits import CODES, Codes, look_up, matrix, numbers, unpack, unpack_words
from pipeline.sources.packed.shared.grouped import grouped, stored_groups
from pipeline.sources.packed.shared.microscaled import Microscaled, microscaled
from pipeline.sources.packed.shared.patterns import matches
from pipeline.sources.packed.shared.scaled import FP8, for_activations, parts, scaled_weights
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_FORMATS = (
    "pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "nvfp4-pack-quantized", "mxfp4-pack-quantized",
    "mixed-precision", "dense",
)  # fmt: skip


@dataclass(frozen=True)
class Packed(PackedWeight):
    """Integers packed along the rows.

    Attributes:
        weight: the plain name, which the names of its tensors begin with.
        bits: of an integer.
        groups: scales in a row.
        group: their size, where ``weight_g_idx`` does not give the group of each column.
        gaps: whether words end with a gap.
    """

    weight: str
    bits: int
    groups: int
    group: int | None
    gaps: bool

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[1]
        raw = np.ascontiguousarray(matrix(stored, self.name, start, stop, stored.tensors[self.name].row_length))
        codes = (self._unpacked(raw) if self.gaps else look_up(raw, self.bits, CODES))[:, :length]
        zeros = self._zeros(stored, start, stop)
        scales = numbers(stored, f"{self.weight}_scale", start, stop, self.groups)
        if self.group is None:
            index = stored_groups(stored, f"{self.weight}_g_idx", self.groups)
            return grouped(codes, zeros, scales, index)
        return grouped(codes, zeros, scales, self.group)

    def _zeros(self, stored: Checkpoint, start: int, stop: int) -> Floats | int:
        name, half = f"{self.weight}_zero_point", 1 << (self.bits - 1)
        if name not in stored.tensors:
            return half
        if stored.tensors[name].dtype != "I32":  # early versions left them unpacked, and signed
            return numbers(stored, name, start, stop, self.groups) + np.float32(half)
        count = 32 // self.bits if self.gaps else 32  # packed down the columns, so many in one word or in ``bits`` words
        words = 1 if self.gaps else self.bits
        first, last = start // count, min(-(-stop // count) * words, stored.tensors[name].n_rows)
        raw = matrix(stored, name, first * words, last, self.groups).reshape(-1, self.groups, 4)
        down = np.ascontiguousarray(raw.transpose(1, 0, 2)).reshape(self.groups, -1)
        return self._unpacked(down).T[start - first * count : stop - first * count].astype(np.float32)

    def _unpacked(self, raw: RawRows) -> Codes:
        raw = np.ascontiguousarray(raw)
        return unpack_words(raw.view("<u4"), self.bits) if self.gaps else unpack(raw, self.bits)


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError, or UnsupportedError for a format that is not known."""
    settings = source.settings
    form = str(settings.get("format", "dense"))
    if form not in _FORMATS or settings.get("transform_config"):
        what = "with rotations of its activations" if form in _FORMATS else f"in the format {form[:40]!r}"
        raise UnsupportedError(
            f"the checkpoint is compressed-tensors {what}, which Sprig does not read; take the plain checkpoint"
        )
    names = [name.removesuffix("_packed") for name in source.tensors if name.endswith(".weight_packed")]
    floats = {name: _floats(source, name) for name in names if source.tensors[f"{name}_packed"].dtype == "U8"}
    packed = {name: _packed(source, name) for name in names if name not in floats}
    simple = scaled_weights(source, ("I8", *FP8), ("_scale",), _block(settings))
    ends = ("_packed", "_scale", "_zero_point", "_shape", "_g_idx", "_global_scale")
    hidden = {name + end for name in names for end in ends} | parts(simple.values()) | for_activations(source.tensors)
    mixed = next((name for name in simple if f"{name}_g_idx" in source.tensors), None)
    if mixed is not None:
        raise UnsupportedError(
            f"{mixed!r} is packed in groups of scattered columns, one integer a weight, which Sprig does not read"
        )
    kinds = {f"{w.bits} bit" for w in packed.values()} | {_kind(source.tensors[name]) for name in simple}
    kinds |= {"MXFP4" if w.powers else "NVFP4" for w in floats.values()}
    return Packing(f"compressed-tensors {'/'.join(sorted(kinds))}", {**packed, **floats, **simple}, frozenset(hidden))


def _kind(info: TensorInfo) -> str:
    return "8 bit" if info.dtype == "I8" else "FP8"


def _block(settings: Mapping[str, Any]) -> tuple[int, int] | None:
    """The size of blocks of which each has a scale, if any group of the settings has it."""
    for group in _groups(settings):
        block = group["weights"].get("block_structure")
        if isinstance(block, list) and len(block) == 2 and all(type(n) is int and n > 0 for n in block):
            return block[0], block[1]
    return None


def _groups(settings: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    groups = settings.get("config_groups")
    found = list(groups.values()) if isinstance(groups, dict) else []
    return [g for g in found if isinstance(g, dict) and isinstance(g.get("weights"), dict)]


def _arguments(source: PackedSource, module: str) -> Mapping[str, Any]:
    """What the settings say of one module: a name or pattern that fits it goes before a class such as "Linear"."""
    groups = _groups(source.settings)
    for group in groups if len(groups) > 1 else ():  # the only one is for all
        targets = group.get("targets")
        for target in map(str, targets) if isinstance(targets, list) else ():
            if matches(target[3:], module) if target.startswith("re:") else target == module:
                return group["weights"]  # type: ignore[no-any-return]
    if not groups:
        raise CheckpointError(f"config.json does not say how {module!r} is packed; download it again")
    return groups[0]["weights"]  # type: ignore[no-any-return]


def _floats(source: PackedSource, name: str) -> Microscaled:
    info, scales = source.tensor(f"{name}_packed", name), source.tensor(f"{name}_scale", name)
    whole = source.tensors.get(f"{name}_global_scale")
    return microscaled(info, scales, 4, 16 if whole else 32, whole=whole, divides=True)


def _packed(source: PackedSource, name: str) -> Packed:
    info, scale = source.tensor(f"{name}_packed", name), source.tensor(f"{name}_scale", name)
    index, zero = source.tensors.get(f"{name}_g_idx"), source.tensors.get(f"{name}_zero_point")
    settings = PackedSource(_arguments(source, name.removesuffix(".weight")), source.tensors, source.content)
    bits, size = settings.integer("num_bits"), settings.integer("group_size", default=-1, least=-1)
    if bits > 8 or settings.settings.get("type", "int") != "int":
        raise UnsupportedError(f"{name!r} is packed as {settings.settings.get('type')} of {bits} bits, which Sprig does not read")
    if info.dtype != "I32" or len(info.shape) != 2 or not all(info.shape):
        raise misfit(info, f"a weight of {bits} bits")
    out, words = info.shape
    groups = scale.row_length if len(scale.shape) == 2 else 1
    if prod(scale.shape) != out * groups or not groups:
        raise misfit(scale, f"its packed weight of shape {list(info.shape)}")
    if index is not None and index.dtype not in ("I32", "I64"):
        raise misfit(index, "a table of groups")
    if index is not None:
        length = index.row_length
    elif size > 0:
        length = groups * size
    else:
        length = words * 32 // bits if 32 % bits == 0 else _length(source, name)
    gaps = words != -(-length * bits // 32)
    if gaps and words != -(-length // (32 // bits)):
        raise misfit(scale, f"groups of {size} in a packed weight of shape {list(info.shape)} of {bits} bits")
    down = -(-out // (32 // bits)) if gaps else -(-out * bits // 32)
    if zero is not None and zero.shape != ((down if zero.dtype == "I32" else out), groups):
        raise misfit(zero, f"scales of shape {list(scale.shape)}")
    group = size if size > 0 else length
    if index is None and -(-length // group) != groups:
        raise misfit(scale, f"groups of {group} in rows of {length}")
    return Packed(info.name, (out, length), name, bits, groups, group if index is None else None, gaps)


def _length(source: PackedSource, name: str) -> int:
    """Columns as ``weight_shape`` has them: two integers."""
    info = source.tensor(f"{name}_shape", name)
    if info.shape != (2,) or info.dtype not in ("I32", "I64"):
        raise misfit(info, "two integers")
    return int(np.frombuffer(source.content(info.name), "<i8" if info.dtype == "I64" else "<i4")[1])
