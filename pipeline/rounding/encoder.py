"""Who rounds whole tensors, and what is known of it afterwards."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from agent.gguf.types import GGMLType
from pipeline.format.ggml import Bytes, Floats


@dataclass(frozen=True, slots=True)
class RoundedTensor:
    """How a tensor was rounded, and what was measured for it.

    Attributes:
        method: "gptq"; "grid" if the weights were of the type's blocks, and came out as they are stored; "ggml" where that was
            better on unseen activations, or nothing was known of them.
        shrinkage: of the second moment (the mean over experts).
        error: squared error of an output on unseen activations, the mean over rows and tokens, as it was rounded.
        ggml_error: the same of ggml's kernel with the importance of each column.
    """

    tensor: str
    type: str
    method: Literal["gptq", "grid", "ggml"]
    shrinkage: float | None = None
    error: float | None = None
    ggml_error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        return asdict(self)


class InputName(Protocol):
    """The input of a weight (``pipeline.calibrate.inputs.Input``)."""

    @property
    def name(self) -> str: ...


class Inputs(Protocol):
    """What is known of the inputs of weights, as ``pipeline.calibrate.statistics.Statistics`` has it."""

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None: ...

    def input_of(self, name: str) -> InputName | None: ...

    def hessian(self, name: str, fold: Literal["A", "B"] | None = None, matrix: int = 0) -> tuple[Floats, int] | None: ...

    def squares(self, name: str) -> Floats | None: ...


class TensorEncoder(Protocol):
    """Rounds whole tensors."""

    @property
    def name(self) -> str:
        """Under which a file says who rounded it."""

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compare what it knows with a model's tensors, rows last. Raises SprigError if it knows another model."""

    @property
    def inputs(self) -> Inputs | None:
        """What it knows of the inputs of the model's weights."""

    def errors(self, name: str, weights: Floats, kinds: Sequence[GGMLType]) -> Mapping[str, float]:
        """The squared error of a tensor's outputs under several types, on unseen inputs: type name -> a mean over tokens, of
        all rows together. A type that is missing is ggml's."""

    @property
    def decisions(self) -> dict[str, RoundedTensor]:
        """How each tensor was rounded that ``encode`` was asked for."""

    def wants(self, name: str, kind: GGMLType, look: Callable[[], Floats]) -> bool:
        """Whether ``encode`` may have something for this tensor; ``look`` gives a few of its rows, float32 [rows, columns]."""

    def encode(self, name: str, weights: Floats, kind: GGMLType) -> Bytes | None:
        """A tensor as it stands in the file.

        Args:
            weights: float32 [rows, columns], or [experts, rows, columns]; finite.

        Returns:
            uint8 [rows of all experts, bytes per row], or None where ggml's own kernel does better.
        """


def summary(decisions: Sequence[RoundedTensor]) -> tuple[str, ...]:
    """What was decided, as a remark for a person."""
    won = [d for d in decisions if d.method == "gptq"]
    exact = Counter(d.type for d in decisions if d.method == "grid")
    notes = [f"tensors that lie on a {kind} grid and were kept exactly: {n}" for kind, n in exact.items()]
    if not won:
        return tuple(notes)
    shares = [d.error / d.ggml_error for d in won if d.error is not None and d.ggml_error]
    share = f", to {np.exp(np.mean(np.log(shares))):.2f} of ggml's error on unseen activations" if shares else ""
    return (*notes, f"{len(won)} of {len(decisions)} tensors were rounded with error feedback{share}")
