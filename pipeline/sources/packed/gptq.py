"""GPTQ: integers of 2, 3, 4 or 8 bits in 32-bit words, packed down the columns; a scale and a zero for each group.

A weight [out, in] lies as ``qweight`` [in * bits / 32, out]; ``scales`` [groups, out], ``qzeros`` [groups, out * bits / 32], and
``g_idx`` [in], the group of each input (in order, or by importance with act-order). The first format stores zeros less one.
Source: https://github.com/ModelCloud/GPTQModel (``nn_modules/qlinear``), https://github.com/AutoGPTQ/AutoGPTQ.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.checkpoint import Checkpoint
from pipeline.sources.packed.shared.bits import CODES, Codes, columns, look_up, turned, unpack
from pipeline.sources.packed.shared.grouped import grouped, stored_groups
from pipeline.sources.packed.shared.patterns import matches
from pipeline.sources.packed.shared.view import Floats, PackedSource, PackedWeight, Packing, misfit

_BITS = (2, 3, 4, 8)


@dataclass(frozen=True)
class Gptq(PackedWeight):
    """Codes down the columns.

    Attributes:
        module: what the names of its tensors begin with.
        bits: of a code.
        groups: how many there are.
        group: their size, where there is no ``g_idx``.
        less_one: whether zeros are stored less one.
    """

    module: str
    bits: int
    groups: int
    group: int | None
    less_one: bool

    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        length = self.shape[1]
        codes = look_up(columns(stored, self.name, start, stop).view(np.uint8), self.bits, CODES)[:, :length]
        scales = turned(stored, f"{self.module}.scales", start, stop)
        zeros = self._zeros(stored, start, stop)
        if self.group is None:
            index = stored_groups(stored, f"{self.module}.g_idx", self.groups)
            return grouped(codes, zeros, scales, index)
        return grouped(codes, zeros, scales, self.group)

    def _zeros(self, stored: Checkpoint, start: int, stop: int) -> Codes:
        """uint8 [rows, groups]. 32 codes always fill ``bits`` words."""
        name = f"{self.module}.qzeros"
        before = start // 32
        last = min(-(-stop // 32) * self.bits, stored.tensors[name].row_length)
        across = np.ascontiguousarray(columns(stored, name, before * self.bits, last).T).view(np.uint8)
        zeros = unpack(across, self.bits)[:, start - 32 * before : stop - 32 * before].T
        # Stored less one, a zero of 0 has wrapped around to the largest code.
        return (zeros + np.uint8(1)) & np.uint8(2**self.bits - 1) if self.less_one else zeros


def read(source: PackedSource) -> Packing:
    """The packed weights. Raises CheckpointError, or UnsupportedError for a layout that is not known."""
    form = source.settings.get("checkpoint_format", "gptq")
    if form not in ("gptq", "gptq_v2"):
        raise UnsupportedError(f"the checkpoint is GPTQ in the layout {str(form)[:40]!r}, which Sprig does not read")
    modules = [name.removesuffix(".qweight") for name in source.tensors if name.endswith(".qweight")]
    weights = {f"{module}.weight": _gptq(source, module, form == "gptq") for module in modules}
    hidden = {f"{module}.{part}" for module in modules for part in ("qweight", "qzeros", "scales", "g_idx")}
    bits = "/".join(str(b) for b in sorted({w.bits for w in weights.values()}))
    return Packing(f"GPTQ {bits} bit", weights, frozenset(hidden))


def _gptq(source: PackedSource, module: str, less_one: bool) -> Gptq:
    packed, zeros, scales = (source.tensor(f"{module}.{part}", module) for part in ("qweight", "qzeros", "scales"))
    index = source.tensors.get(f"{module}.g_idx")
    bits = _setting(source, module, ("bits", "w_bit"))
    if bits not in _BITS:
        raise UnsupportedError(f"{module!r} is GPTQ of {bits} bits; Sprig reads 2, 3, 4 and 8")
    words, out = packed.shape if len(packed.shape) == 2 else (0, 0)
    length = index.row_length if index is not None else words * 32 // bits
    if packed.dtype != "I32" or not words or words != -(-length * bits // 32):
        raise misfit(packed, f"a weight of {bits} bits" + (f" and its g_idx of {list(index.shape)}" if index else ""))
    if index is not None and index.dtype not in ("I32", "I64"):
        raise misfit(index, "a table of groups")
    groups = scales.shape[0] if len(scales.shape) == 2 else 0
    if scales.shape[1:] != (out,) or not groups:
        raise misfit(scales, f"its qweight of shape {list(packed.shape)}")
    if zeros.shape != (groups, -(-out * bits // 32)) or zeros.dtype != "I32":
        raise misfit(zeros, f"scales of shape {list(scales.shape)} in {bits} bits")
    group = None
    if index is None:
        group = _setting(source, module, ("group_size", "q_group_size"), least=-1)
        group = length if group == -1 else group
        if group < 1 or -(-length // group) != groups:
            raise CheckpointError(f"config.json: group_size {group} does not fit {scales.name!r} of shape {list(scales.shape)}")
    return Gptq(packed.name, (out, length), module, bits, groups, group, less_one)


def _setting(source: PackedSource, module: str, names: tuple[str, ...], least: int = 1) -> int:
    """A number of this module: GPTQModel's ``dynamic`` gives some modules, by regular expression, their own."""
    dynamic = source.settings.get("dynamic")
    for pattern, own in dynamic.items() if isinstance(dynamic, dict) else ():
        if isinstance(own, dict) and names[0] in own and matches(pattern.removeprefix("+:"), module):
            return PackedSource(own, source.tensors, source.content).integer(names[0], least=least)
    return source.integer(*names, least=least)
