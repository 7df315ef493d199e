"""Measures a model's sensitivity: the error of each tensor under each type, and a few probes of the whole model."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from agent.gguf.types import TYPES_BY_NAME, GGMLType
from agent.hub.download import OnBytes
from pipeline.budget.divergence import Divergence
from pipeline.budget.errors import Rounder
from pipeline.budget.sensitivity import Probe, Sensitivity, members
from pipeline.budget.work_file import WorkFile
from pipeline.format.imatrix import ImportanceMatrix

log = logging.getLogger(__name__)

PROBE_TYPE = TYPES_BY_NAME["Q4_0"]  # rounded in no time; what it loses is well above the noise and still small


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is to be known.

    Attributes:
        tensors: name -> the types that it may have; those without a choice are left out.
        imatrix: by which is rounded and weighted.
        rounder: who will round, and what is known of the inputs.
        texts: the windows of the probes are taken from them.
        threads: of the computation.
    """

    tensors: Mapping[str, Sequence[GGMLType]]
    imatrix: ImportanceMatrix | None
    rounder: Rounder
    texts: Sequence[str]
    threads: int

    def missing(self, known: Sensitivity) -> dict[str, list[GGMLType]]:
        """The types whose error is not known yet, for each tensor that has some."""
        found = {n: [k for k in kinds if k.name not in known.errors.get(n, {})] for n, kinds in self.tensors.items()}
        return {name: kinds for name, kinds in found.items() if kinds}

    def groups(self, known: Sensitivity) -> dict[str, list[str]]:
        """The groups that must be probed: all, or none when every tensor is in a probe already."""
        probeable = [n for n, kinds in self.tensors.items() if any(k.block == 32 or k.block == 256 for k in kinds)]
        return {} if set(probeable) <= set(known.probe_errors) else members(probeable, known.n_layers)


def text_hash(texts: Sequence[str]) -> str:
    """SHA-256 of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def measure(work_file: Path, known: Sensitivity, inquiry: Inquiry, executor: Executor, on_progress: OnBytes) -> Sensitivity:
    """What is known, completed by what the inquiry lacks.

    Args:
        work_file: the model as a GGUF in F16. A copy of it, and some logits, come beside it for the time of the probes.
        on_progress: called with what was measured, the bytes that were gone through and those to go through.

    Raises:
        RecipeError: the text is too short.
        GGUFError: llama.cpp does not run the model.
    """
    missing, groups = inquiry.missing(known), inquiry.groups(known)
    errors = {name: dict(some) for name, some in known.errors.items()}
    with WorkFile(work_file, inquiry.imatrix, executor) as work:
        size, done = work_file.stat().st_size, 0
        total = sum(work.tensors[name].nbytes for name in missing) + size * len(groups)

        def step(what: str, n: int) -> None:
            nonlocal done
            done += n
            on_progress(what, done, total)

        names = list(missing)
        rounder = inquiry.rounder
        # An encoder works on all cores itself.
        results = (map if rounder.errors else executor.map)(lambda name: rounder.shares(work, name, missing[name]), names)
        for name, found in zip(names, results, strict=True):
            errors.setdefault(name, {}).update(found)
            step(name, work.tensors[name].nbytes)
        known = replace(known, errors=errors)
        if not groups:
            return known
        names = sorted({name for some in groups.values() for name in some})
        plain = replace(rounder, errors=None)  # ggml rounds the probes
        shares = executor.map(lambda name: plain.shares(work, name, [PROBE_TYPE])[PROBE_TYPE.name], names)
        probe_errors = dict(zip(names, shares, strict=True))
        probes = []
        with Divergence(work_file, inquiry.texts, work_file.parent, inquiry.threads) as divergence:
            for group, some in groups.items():
                work.lower(some, PROBE_TYPE)
                probes.append(Probe(group, divergence.of(work.copy)))
                work.restore(some)
                log.info("probe %s: %d tensors, mean KL divergence %.5f", group, len(some), probes[-1].kld)
                step(group, size)
    return replace(
        known, probe_errors=probe_errors, probes=tuple(probes), text=text_hash(inquiry.texts), probe_type=PROBE_TYPE.name
    )
