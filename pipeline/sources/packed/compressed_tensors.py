"""compressed-tensors, the format of llm-compressor and vLLM: integers packed in words, or one integer or 8-bit float a weight.

Packed values and zeros are stored plus half their range.
Source: https://github.com/vllm-project/compressed-tensors (``compressors``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.checkpoint import Checkpoint, TensorInfo
from pipeline.sources.packed.shared.bits import matrix, numbers, unpack_words
from pipeline.sources.packed.shared.grouped import even_groups, grouped, stored_groups
from pipeline.sources.packed.shared.scaled import FP8, for_activations, parts, scaled_weights
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_FORMATS = ("pack-quantized", "int-quantized", "float-quantized", "naive-quantized", "mixed-precision", "dense")


@dataclass(frozen=True)
class Packed(PackedWeight):
    """Integers packed along the rows, as many as fit whole into a word.

    Attributes:
        weight: the plain name, which the names of its tensors begin with.
        bits: of an integer.
        groups: scales in a row.
        group: their size, where ``weight_g_idx`` does not give the group of each column.
    """

    weight: str
    bits: int
    groups: int
    group: int | None

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[1]
        words = np.ascontiguousarray(matrix(stored, self.name, start, stop, stored.tensors[self.name].row_length)).view("<u4")
        codes = unpack_words(words, self.bits)[:, :length]
        scales = numbers(stored, f"{self.weight}_scale", start, stop, self.groups)
        if self.group is None:
            group_of = stored_groups(stored, f"{self.weight}_g_idx", self.groups)
        else:
            group_of = even_groups(length, self.group)
        return grouped(codes, self._zeros(stored, start, stop), scales, group_of)

    def _zeros(self, stored: Checkpoint, start: int, stop: int) -> Floats | int:
        name, half = f"{self.weight}_zero_point", 1 << (self.bits - 1)
        if name not in stored.tensors:
            return half
        if stored.tensors[name].dtype != "I32":  # early versions left them unpacked, and signed
            return numbers(stored, name, start, stop, self.groups) + np.float32(half)
        count = 32 // self.bits  # packed down the columns
        first = start // count
        words = matrix(stored, name, first, -(-stop // count), self.groups)
        down = np.ascontiguousarray(np.ascontiguousarray(words).view("<u4").T)
        return unpack_words(down, self.bits).T[start - first * count : stop - first * count].astype(np.float32)


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
    packed = {name: _packed(source, name) for name in names}
    simple = scaled_weights(source, ("I8", *FP8), ("_scale",), _block(settings))
    hidden = {name + end for name in names for end in ("_packed", "_scale", "_zero_point", "_shape", "_g_idx")}
    hidden |= parts(simple.values()) | for_activations(source.tensors)
    mixed = next((name for name in simple if f"{name}_g_idx" in source.tensors), None)
    if mixed is not None:
        raise UnsupportedError(
            f"{mixed!r} is packed in groups of scattered columns, one integer a weight, which Sprig does not read"
        )
    kinds = sorted({f"{w.bits} bit" for w in packed.values()} | {_kind(source.tensors[name]) for name in simple})
    return Packing(f"compressed-tensors {'/'.join(kinds)}", {**packed, **simple}, frozenset(hidden))


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
    groups, loose = _groups(source.settings), []
    for group in groups:
        targets = group.get("targets")
        for target in map(str, targets) if isinstance(targets, list) else ():
            try:
                exact = re.match(target[3:], module) if target.startswith("re:") else target == module
            except re.error:
                raise CheckpointError(f"config.json: {target[:80]!r} of the quantization is not a regular expression") from None
            if exact:
                return group["weights"]  # type: ignore[no-any-return]
        loose.append(group["weights"])
    if not loose:
        raise CheckpointError(f"config.json does not say how {module!r} is packed; download it again")
    return loose[0]  # type: ignore[no-any-return]


def _packed(source: PackedSource, name: str) -> Packed:
    info, scale = source.tensor(f"{name}_packed", name), source.tensor(f"{name}_scale", name)
    index, zero = source.tensors.get(f"{name}_g_idx"), source.tensors.get(f"{name}_zero_point")
    arguments = PackedSource(_arguments(source, name.removesuffix(".weight")), source.tensors, source.content)
    bits = arguments.integer("num_bits")
    if bits > 8 or arguments.settings.get("type", "int") != "int":
        raise UnsupportedError(
            f"{name!r} is packed as {arguments.settings.get('type')} of {bits} bits, which Sprig does not read"
        )
    if info.dtype != "I32" or len(info.shape) != 2 or not all(info.shape):
        raise misfit(info, f"a weight of {bits} bits")
    out, most = info.shape[0], info.shape[1] * (32 // bits)
    groups = scale.row_length if len(scale.shape) == 2 else 1
    if scale.n_rows * scale.row_length != out * groups or not groups:
        raise misfit(scale, f"its packed weight of shape {list(info.shape)}")
    size = arguments.integer("group_size", default=-1, least=-1)
    # The last word of a row may have room to spare.
    if index is not None:
        length = index.row_length
    elif size > 0 and groups > 1:
        length = groups * size if groups * size <= most else most
    else:
        length = most if 32 % bits == 0 else _length(source, name)
    group = size if size > 0 else length
    if not most - 32 // bits < length <= most or (index is None and -(-length // group) != groups):
        raise misfit(scale, f"groups of {size} in a packed weight of shape {list(info.shape)}")
    if index is not None and index.dtype not in ("I32", "I64"):
        raise misfit(index, "a table of groups")
    if zero is not None and zero.shape not in ((-(-out // (32 // bits)), groups), (out, groups)):
        raise misfit(zero, f"scales of shape {list(scale.shape)}")
    return Packed(info.name, (out, length), name, bits, groups, group if index is None else None)


def _length(source: PackedSource, name: str) -> int:
    """Columns as ``weight_shape`` has them: two integers."""
    info = source.tensor(f"{name}_shape", name)
    if info.shape != (2,) or info.dtype not in ("I32", "I64"):
        raise misfit(info, "two integers")
    return int(np.frombuffer(source.content(info.name), "<i8" if info.dtype == "I64" else "<i4")[1])
