"""A gate: how far a file may be from its original and still be published."""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import OutputError, RecipeError
from agent.gguf.check import check
from pipeline.evaluate.compare import evaluate
from pipeline.evaluate.figures import Estimate
from pipeline.evaluate.lines import told
from pipeline.evaluate.reference import made_reference
from pipeline.evaluate.side_by_side import OnWindow
from pipeline.preflight import PlanOptions

_WINDOWS = 24  # of the held-out domains together; the error of a mean KLD is then about a tenth of it or less
_N_CTX = 512


@dataclass(frozen=True, slots=True)
class GateResult:
    """What a file that passed has: its figures on held-out text beside the original's."""

    kld: Estimate
    top1: Estimate
    windows: int
    tokens: int
    domains: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return asdict(self)

    @property
    def line(self) -> str:
        return f"mean KLD {told(self.kld)} nats, same top-1 {told(self.top1, 100, ' %')}, on {self.text}"

    @property
    def text(self) -> str:
        return f"{self.tokens:,} tokens of {self.domains} held-out domains"


@dataclass(frozen=True, slots=True)
class FidelityGate:
    """The bounds: mean KL divergence in nats at most, share of equal top-1 at least (0 to 1); None where there is none."""

    kld: float | None = None
    top1: float | None = None

    def judge(
        self,
        file: Path,
        original: Path | str,
        *,
        beside: Path | None = None,
        options: PlanOptions | None = None,
        on_window: OnWindow = lambda done, total: None,
    ) -> GateResult:
        """Compare a file with its original on the held-out domains.

        Args:
            original: a GGUF, or a checkpoint, of which ``pipeline.evaluate.reference.made_reference`` makes one by ``options``.
            beside: where a folder may be made for that; by default among the system's temporary files.

        Raises:
            OutputError: it falls short, with the figure, the bound and what to do.
            SprigError: it could not be compared.
        """
        n_ctx = min(_N_CTX, check(file).context_length or _N_CTX)
        folder = beside and beside.absolute() / f".{file.name[:60]}.reference"
        making = nullcontext(original) if isinstance(original, Path) else made_reference(original, folder=folder, options=options)
        with making as reference:
            found = evaluate(
                [file], reference=reference, n_ctx=n_ctx, windows=_WINDOWS,
                threads=(options or {}).get("threads"), on_progress=on_window,
            )  # fmt: skip
        of = found.candidates[0].overall
        assert of.kld is not None
        assert of.top1 is not None
        result = GateResult(of.kld, of.top1, of.windows, of.tokens, len(found.domains))
        if short := self._short(result):
            raise OutputError(
                f"the finished file falls short of --gate and was not published: {short} (on {result.text}); "
                "take a recipe with more bits, give an imatrix, or lower the gate"
            )
        return result

    def _short(self, of: GateResult) -> str:
        """What falls short, empty if nothing does."""
        short = []
        if self.kld is not None and of.kld.value > self.kld:
            short.append(f"its mean KLD is {told(of.kld)} nats, and {self.kld:g} is allowed")
        if self.top1 is not None and of.top1.value < self.top1:
            short.append(f"its share of equal top-1 is {told(of.top1)}, and {self.top1:g} is wanted")
        return "; ".join(short)


def read_gate(text: str) -> FidelityGate:
    """The bounds in a text such as "kld=0.05" or "kld=0.05,top1=0.9". Raises RecipeError."""
    bounds: dict[str, float] = {}
    for part in text.split(","):
        name, _, value = (word.strip() for word in part.partition("="))
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if name not in ("kld", "top1") or name in bounds or not 0 <= number <= (math.inf if name == "kld" else 1):
            raise RecipeError(
                f"--gate: {part!r} is no bound; kld=0.05 (nats, the mean at most) and top1=0.9 (a share, at least) are, each once"
            )
        bounds[name] = number
    return FidelityGate(**bounds)
