"""A checkpoint whose weights a quantizer has packed, seen as plain floats.

Nobody behind this view knows of packing: a packed weight is one tensor in F32 whose rows are computed when they are asked for.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from agent.errors import CheckpointError
from pipeline.sources.checkpoint import DTYPE_BYTES, Checkpoint, RawRows, TensorInfo

Floats = npt.NDArray[np.float32]
Settings = Mapping[str, Any]
Tensors = Mapping[str, TensorInfo]


@dataclass(frozen=True)
class PackedWeight(ABC):
    """One weight as a scheme stores it.

    Attributes:
        name: the stored tensor with its numbers; the tensors of scales and the like are the scheme's own matter.
        shape: of the plain weight, rows last.
    """

    name: str
    shape: tuple[int, ...]

    @abstractmethod
    def rows(self, stored: Checkpoint, start: int, stop: int) -> Floats:
        """Rows [start, stop) of the plain weight seen as a matrix. Raises CheckpointError if the packed numbers lie."""


@dataclass(frozen=True)
class Packing:
    """How the weights of one checkpoint are packed.

    Attributes:
        label: what a person calls it, as "GPTQ 4 bit".
        weights: name of the plain weight -> how it is packed.
        hidden: stored tensors that are a part of packed weights, or serve activations only; the view does not show them.
    """

    label: str
    weights: Mapping[str, PackedWeight]
    hidden: frozenset[str]

    def shown(self, stored: Tensors) -> dict[str, TensorInfo]:
        """The tensors of the view. Raises CheckpointError if a plain weight lies beside a packed one of the same name."""
        plain = {name: info for name, info in stored.items() if name not in self.hidden}
        for name, weight in self.weights.items():
            if name in plain:
                raise CheckpointError(f"the checkpoint holds {name!r} twice, plain and as {self.label}; keep one of them")
            where = stored[weight.name]
            size = DTYPE_BYTES["F32"] * prod(weight.shape)
            plain[name] = TensorInfo(name, "F32", weight.shape, where.file, where.offset, size, self.label)
        return plain


class UnpackedCheckpoint(Checkpoint):
    """The plain view of a packed checkpoint, which it owns."""

    def __init__(self, stored: Checkpoint, packing: Packing) -> None:
        self._stored, self._packing = stored, packing
        self.tensors = packing.shown(stored.tensors)

    def rows(self, name: str, start: int, stop: int) -> RawRows:
        weight = self._packing.weights.get(name)
        if weight is None:
            return self._stored.rows(name, start, stop)
        rows = np.ascontiguousarray(weight.rows(self._stored, start, stop), dtype="<f4")
        return rows.reshape(stop - start, -1).view(np.uint8)

    def close(self) -> None:
        self._stored.close()


@dataclass(frozen=True)
class PackedSource:
    """What a scheme looks at.

    Attributes:
        settings: what config.json says of the quantization.
        tensors: the stored tensors.
        content: the bytes of a small tensor; for a model on the Hub this fetches its weights.
    """

    settings: Settings
    tensors: Tensors
    content: Callable[[str], bytes]

    def tensor(self, name: str, whose: str) -> TensorInfo:
        """A stored tensor that ``whose`` cannot do without. Raises CheckpointError."""
        if name not in self.tensors:
            raise CheckpointError(f"{whose!r} is packed, but the checkpoint lacks {name!r}; a shard is missing")
        return self.tensors[name]

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A whole number of the settings, under the first of these names that is there. Raises CheckpointError."""
        value = next((self.settings[n] for n in names if self.settings.get(n) is not None), default)
        if type(value) is not int or not (least <= value < 2**31):
            what = repr(value)[:80]
            raise CheckpointError(
                f"config.json: {names[0]} of the quantization is {what}; it must be a whole number from {least} on"
            )
        return value


def misfit(info: TensorInfo, to: str) -> CheckpointError:
    """A packed tensor whose shape cannot be."""
    what = f"tensor {info.name[:100]!r} ({info.dtype}, shape {list(info.shape)})"
    return CheckpointError(f"{what} does not fit {to}; download it again or take the full-precision checkpoint")
