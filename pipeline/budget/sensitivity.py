"""How much a model suffers from rounding each of its tensors: what was measured, as a file that can be kept and shared.

The loss of tensor t under type k is slope(t) x error(t, k), in nats of KL divergence. In the blocks the slope is that of the
tensor's role times that of its depth; both follow from the probes, each of which rounded all tensors of one role or of one depth.
A tensor outside the blocks (embedding, head) is probed by itself; where it is a large part of the model, under each type.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import RecipeError
from agent.files import atomic_write
from agent.text import brief
from pipeline.recipes.mixtures import block_order
from pipeline.recipes.rules import role_of

FORMAT = "sprig sensitivity 1"
DEPTHS = 4  # parts of equal length, from the first block to the last
_ROLES = {"attn_q": "attn_qk", "attn_k": "attn_qk", "ffn_up": "ffn_up", "ffn_gate": "ffn_up"}  # which share their input


@dataclass(frozen=True, slots=True)
class Probe:
    """A whole model with one group of tensors rounded.

    Attributes:
        group: the name of a role, of a depth ("depth 2") or of a tensor outside the blocks.
        type: to which they were rounded.
        kld: its mean KL divergence from the original, in nats.
    """

    group: str
    type: str
    kld: float


@dataclass(frozen=True, slots=True)
class Sensitivity:
    """What was measured of one model.

    Attributes:
        model: its name, for a person.
        identity: a hash of its weights.
        imatrix: SHA-256 of the importance matrix, "" where there was none.
        encoder: what rounds.
        text: SHA-256 of the text that the probes were measured on.
        n_layers: blocks of the model.
        errors: tensor name -> type name -> share of the output's mean square that is lost.
        probe_errors: the same for the tensors and types of the probes; in the blocks as ggml rounds them.
        probes: what they gave.
    """

    model: str
    identity: str
    imatrix: str
    encoder: str
    text: str
    n_layers: int
    errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    probe_errors: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    probes: tuple[Probe, ...] = ()

    def losses(self) -> dict[str, dict[str, float]]:
        """Tensor name -> type name -> nats of KL divergence that are lost."""
        slopes = self.slopes()
        return {
            name: {kind: e * slopes[name].get(kind, slopes[name][""]) for kind, e in some.items()}
            for name, some in self.errors.items()
        }

    @property
    def is_whole(self) -> bool:
        """Whether every probe was made; a run that was stopped leaves some out, and the next one makes them."""
        made = {probe.group for probe in self.probes}
        return members(list(self.probe_errors), self.n_layers).keys() <= made and self.errors.keys() <= self.probe_errors.keys()

    def slopes(self) -> dict[str, dict[str, float]]:
        """Tensor name -> type name, or "" for every other type -> nats lost for each unit of error."""
        found = {name: {"": slope} for name, slope in self._inner_slopes().items()}
        for probe in sorted(self.probes, key=lambda p: -self.probe_errors.get(p.group, {}).get(p.type, 0.0)):
            if probe.group in self.probe_errors:  # a tensor outside the blocks; the smallest error stands for all others
                slope = max(probe.kld, 0.0) / max(self.probe_errors[probe.group][probe.type], 1e-12)
                found.setdefault(probe.group, {}).update({probe.type: slope, "": slope})
        return found

    def _inner_slopes(self) -> dict[str, float]:
        """The slopes of the tensors in blocks.

        Role and depth are balanced until each probe's loss is the sum over its tensors (iterative proportional fitting:
        Deming and Stephan, 1940). The probes of roles and those of depths need not add up to the same; they meet in the middle.
        """
        kld = {probe.group: max(probe.kld, 0.0) for probe in self.probes}
        groups = {name: groups_of(name, self.n_layers) for name in self.probe_errors}
        inner = {name: pair for name, pair in groups.items() if len(pair) == 2}
        if not inner:
            return {}
        names, error = list(inner), np.array([sum(self.probe_errors[n].values()) for n in inner])
        sides = [_Side([inner[n][i] for n in names], kld) for i in range(2)]
        total = float(np.sqrt(sides[0].target.sum() * sides[1].target.sum()))
        slope = np.ones(len(names))
        for _ in range(50):
            for side in sides:
                slope *= side.correction(slope * error, total)
        return dict(zip(names, slope.tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the file in one step. Raises OutputError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n")


class _Side:
    """One of the two ways in which the tensors of the blocks are divided: by role or by depth."""

    def __init__(self, group_of_each: list[str], kld: Mapping[str, float]) -> None:
        groups = sorted(set(group_of_each))
        self.index = np.array([groups.index(g) for g in group_of_each])
        self.target = np.array([kld[g] for g in groups])

    def correction(self, losses: Any, total: float) -> Any:
        """By what each tensor's slope must be multiplied, so that each group loses its share of the total."""
        now = np.bincount(self.index, losses, len(self.target))
        wanted = self.target * (total / max(self.target.sum(), 1e-30))
        return (wanted / np.maximum(now, 1e-30))[self.index]


def groups_of(name: str, n_layers: int) -> tuple[str, ...]:
    """The groups of a tensor: role and depth in a block; outside of them it is a group of its own, called after it."""
    block = block_order(name)[0]
    if block < 0:
        return (name,)
    role = role_of(name)
    return _ROLES.get(role, role), f"depth {min(block * min(DEPTHS, n_layers) // max(n_layers, 1), DEPTHS - 1)}"


def members(names: Mapping[str, Any] | list[str], n_layers: int) -> dict[str, list[str]]:
    """Group -> the tensors in it."""
    found: dict[str, list[str]] = defaultdict(list)
    for name in names:
        for group in groups_of(name, n_layers):
            found[group].append(name)
    return dict(found)


def read_sensitivity(path: Path) -> Sensitivity:
    """Read a file, whole or of a run that was stopped. Raises RecipeError if it is no such file or holds what cannot be."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(raw, dict) or raw.pop("format", None) != FORMAT:
            raise ValueError(f"it is no file of {FORMAT!r}")
        raw["probes"] = tuple(Probe(str(p["group"]), str(p["type"]), float(p["kld"])) for p in raw["probes"])
        for key in ("errors", "probe_errors"):
            raw[key] = {str(n): {str(k): float(e) for k, e in some.items()} for n, some in raw[key].items()}
        found = Sensitivity(**raw)
        tables = (*found.errors.values(), *found.probe_errors.values())
        if not np.isfinite([p.kld for p in found.probes] + [e for some in tables for e in some.values()]).all():
            raise ValueError("it holds numbers that are not finite")
        if found.is_whole:
            found.losses()
    except OSError as e:
        raise RecipeError(f"cannot read {path}: {e.strerror}") from None
    except KeyError as e:
        raise RecipeError(f"{path} is no whole sensitivity: it has no {brief(str(e.args[0]))}; measure it again") from None
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise RecipeError(f"{path} is no sensitivity that Sprig wrote ({brief(str(e))}); measure it again") from None
    return found
