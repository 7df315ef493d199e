"""What an evaluation found: plain data for a report, a script and a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Style = Literal["sprig", "llama-perplexity"]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A figure with its standard error.

    Attributes:
        error: over windows, which are the independent unit; None where there is one window only.
        token_error: as llama-perplexity computes it, as if every token were independent; only for its windows.
    """

    value: float
    error: float | None = None
    token_error: float | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """A model on some windows: on all of them, or on those of one domain.

    What compares with the reference is None where there is no reference, and in the reference itself.

    Attributes:
        windows: how many.
        tokens: how many were scored.
        nll: mean negative log-likelihood of a token, in nats.
        perplexity: exp of it.
        bits_per_byte: negative log-likelihood in bits, per byte of the text of the scored tokens; it compares vocabularies too.
        kld, kld_median, kld_p99: KL divergence of the model from the reference, KL(reference || model), in nats: mean,
            median and 99th percentile over tokens.
        top1: share of tokens, 0 to 1, whose likeliest next token is that of the reference.
        rms_dp: root mean square of the difference of the probabilities, 0 to 1, that reference and model give to the right token.
        nll_over_reference: mean difference to the reference's nll, token by token: the logarithm of the perplexities' ratio.
        kld_over_first, nll_over_first: mean difference to the first candidate, paired window by window; None in the first.
    """

    windows: int
    tokens: int
    nll: Estimate
    perplexity: Estimate
    bits_per_byte: Estimate
    kld: Estimate | None = None
    kld_median: Estimate | None = None
    kld_p99: Estimate | None = None
    top1: Estimate | None = None
    rms_dp: Estimate | None = None
    nll_over_reference: Estimate | None = None
    kld_over_first: Estimate | None = None
    nll_over_first: Estimate | None = None


@dataclass(frozen=True, slots=True)
class WindowFigures:
    """One window: its domain, its scored tokens, and their means (``kld`` and ``top1`` None without a reference)."""

    domain: str
    tokens: int
    nll: float
    kld: float | None
    top1: float | None


@dataclass(frozen=True, slots=True)
class EvaluatedFile:
    """One model of an evaluation: its file and what it did.

    Attributes:
        name: for a person; the file's name, and for a reference that was made for the evaluation, the model's.
        size: bytes of the file.
        weights: in all tensors together.
        load_seconds: that llama.cpp took.
        overall: on all windows.
        per_domain: domain -> on its windows.
        per_window: in the order of the windows, which is the same for every model.
        tensor_errors: tensor -> see ``pipeline.evaluate.tensors``; empty without a reference, and in the reference itself.
    """

    name: str
    path: Path
    size: int
    weights: int
    load_seconds: float
    overall: Figures
    per_domain: Mapping[str, Figures]
    per_window: tuple[WindowFigures, ...]
    tensor_errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.size / self.weights

    @property
    def kld(self) -> Estimate | None:
        """Mean KL divergence from the reference over all windows, in nats."""
        return self.overall.kld

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "path": str(self.path), "bits_per_weight": round(self.bits_per_weight, 3)}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Models on the same windows.

    Attributes:
        candidates: in the order in which they were given.
        reference: what they are compared with; None where there is none.
        style: whose windows these are.
        n_ctx: tokens of a window.
        seconds: that all of it took, without loading.
        notes: one-line remarks for a person.
    """

    candidates: tuple[EvaluatedFile, ...]
    reference: EvaluatedFile | None
    style: Style
    n_ctx: int
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def windows(self) -> int:
        return self.candidates[0].overall.windows

    @property
    def domains(self) -> tuple[str, ...]:
        return tuple(self.candidates[0].per_domain)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "style": self.style,
            "n_ctx": self.n_ctx,
            "seconds": round(self.seconds, 3),
            "reference": self.reference.to_dict() if self.reference else None,
            "candidates": [one.to_dict() for one in self.candidates],
            "notes": list(self.notes),
        }
