"""Who rounds whole tensors, and what is known of it afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import numpy as np

from agent.gguf.types import GGMLType
from pipeline.format.ggml import Bytes, Floats


class Encoder(Protocol):
    """Rounds whole tensors."""

    def wants(self, name: str, kind: GGMLType) -> bool:
        """Whether ``encode`` may have something for this tensor."""

    def encode(self, name: str, weights: Floats, kind: GGMLType) -> Bytes | None:
        """A tensor as it stands in the file.

        Args:
            weights: float32 [rows, columns], or [experts, rows, columns]; finite.

        Returns:
            uint8 [rows of all experts, bytes per row], or None where ggml's own kernel does better.
        """


@dataclass(frozen=True, slots=True)
class Decision:
    """How a tensor was rounded, and what was measured for it.

    Attributes:
        method: "gptq"; "ggml" where that was better on unseen activations, or nothing was known of them.
        shrinkage: of the second moment (the mean over experts).
        error: squared error of an output on unseen activations, the mean over rows and tokens, as it was rounded.
        ggml_error: the same of ggml's kernel with the importance of each column.
    """

    tensor: str
    type: str
    method: Literal["gptq", "ggml"]
    shrinkage: float | None = None
    error: float | None = None
    ggml_error: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for a report."""
        return asdict(self)


def summary(decisions: Sequence[Decision]) -> tuple[str, ...]:
    """What was decided, as a remark for a person."""
    won = [d for d in decisions if d.method == "gptq"]
    if not decisions:
        return ()
    shares = [d.error / d.ggml_error for d in won if d.error is not None and d.ggml_error]
    share = f", to {np.exp(np.mean(np.log(shares))):.2f} of ggml's error on unseen activations" if shares else ""
    return (f"{len(won)} of {len(decisions)} tensors were rounded with error feedback{share}",)
