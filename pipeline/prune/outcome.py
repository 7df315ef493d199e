"""What a pruning did, for a person and for a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.files import human_size


@dataclass(frozen=True, slots=True)
class CutPart:
    """One kind of cut.

    Attributes:
        kind: "vocab", "ffn", "heads", "width", "depth" or "sparsity".
        before, after: the size; of sparsity the weights that are not zero in what was thinned.
        kept: what stays and why, in words.
    """

    kind: str
    before: int
    after: int
    kept: str


@dataclass(frozen=True, slots=True)
class RepairedTensor:
    """What a cut costs at the outputs of one weight, as a share of their squared length, on text that the repair has not seen.

    Attributes:
        name: GGUF name.
        damp: of the repair; None where the weights were left as they were.
    """

    name: str
    damp: float | None
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Pruned:
    """A pruned checkpoint.

    Attributes:
        path: the folder.
        model: what it was made of.
        parts: the cuts.
        repairs: of every weight that lost inputs.
        weights, bytes, packed: parameters, bytes of the weight files, and these compressed (zlib), before and after; packed is
            measured with sparsity only.
        recipe, gguf: the size that a GGUF of this recipe has, before and after.
        kld, kld_error: mean KL divergence from the original in nats over held-out windows, with its standard error; None where
            it was not measured.
        growth: text -> its tokens before and after, where the vocabulary was cut.
        seconds: stage -> seconds.
    """

    path: Path
    model: str
    parts: tuple[CutPart, ...]
    repairs: tuple[RepairedTensor, ...]
    weights: tuple[int, int]
    bytes: tuple[int, int]
    packed: tuple[int, int] | None
    recipe: str
    gguf: tuple[int, int]
    kld: float | None
    kld_error: float | None
    windows: int
    growth: Mapping[str, tuple[int, int]]
    seconds: Mapping[str, float]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        told = asdict(self) | {"path": str(self.path), "seconds": {k: round(v, 3) for k, v in self.seconds.items()}}
        for name in ("weights", "bytes", "packed", "gguf"):
            pair = told[name]
            told[name] = pair and {"before": pair[0], "after": pair[1]}
        return told

    def lines(self) -> list[tuple[str, str]]:
        """The result for people: labels and values."""
        rows = [("output", str(self.path)), ("model", self.model)]
        rows += [(part.kind, f"{part.before:,} -> {part.after:,}; {part.kept}") for part in self.parts]
        rows.append(("weights", "{:,} -> {:,}".format(*self.weights)))
        rows.append(("bytes", _sizes(self.bytes)))
        rows.append((self.recipe, f"{_sizes(self.gguf)} as a GGUF"))
        if self.packed is not None:
            rows.append(("compressed", f"{_sizes(self.packed)} (zlib)"))
        rows += [(kind, words) for kind, words in self._repaired()]
        if self.kld is not None:
            error = f" +- {self.kld_error:.4f}" if self.kld_error is not None else ""
            rows.append(("KLD", f"{self.kld:.4f}{error} nats from the original, on {self.windows} windows of held-out text"))
        rows += [("tokens", f"{name}: {a:,} -> {b:,} ({b / max(a, 1) - 1:+.1%})") for name, (a, b) in self.growth.items()]
        spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in self.seconds.items())
        rows.append(("seconds", f"{sum(self.seconds.values()):.1f}: {spent}"))
        return rows + [("note", note) for note in self.notes]

    def _repaired(self) -> list[tuple[str, str]]:
        """The mean error of each kind of weight, and the layers at its ends."""
        kinds: dict[str, list[RepairedTensor]] = {}
        for one in self.repairs:
            kinds.setdefault(one.name.split(".")[-2], []).append(one)
        rows = []
        for kind, ones in kinds.items():
            before, after = (sum(values) / len(ones) for values in ([o.before for o in ones], [o.after for o in ones]))
            worst = max(ones, key=lambda o: o.after)
            said = f"lost outputs {before:.2%}" + (f" -> {after:.2%} repaired" if any(o.damp is not None for o in ones) else "")
            rows.append((kind, f"{said} (mean of {len(ones)}; worst {worst.after:.2%} in {worst.name})"))
        return rows


def _sizes(pair: tuple[int, int]) -> str:
    return f"{pair[0]:,} -> {pair[1]:,} bytes ({human_size(pair[1])}, {pair[1] / pair[0] - 1:+.1%})"
