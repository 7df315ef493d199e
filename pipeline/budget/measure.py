"""Measures a model's sensitivity: the error of each tensor under each type, and a few probes of the whole model."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
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
# A tensor outside the blocks that holds such a part of the weights is probed under each type of fewer bits than these: its error
# alone says too little of it. Types of more bits lose next to nothing.
_LARGE, _PROBED_BITS = 0.1, 8
_KEEP_SECONDS = 5.0  # of errors that a killed run loses at most

Keep = Callable[[Sensitivity], None]


@dataclass(frozen=True, slots=True)
class ProbeJob:
    """Tensors that are rounded to a type for one probe."""

    group: str
    kind: GGMLType
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Inquiry:
    """What is to be known.

    Attributes:
        tensors: name -> the types that it may have; those without a choice are left out.
        parts: name -> the part of the model's weights that it holds.
        imatrix: by which is rounded and weighted.
        rounder: who will round, and what is known of the inputs.
        texts: the windows of the probes are taken from them.
        threads: of the computation.
    """

    tensors: Mapping[str, Sequence[GGMLType]]
    parts: Mapping[str, float]
    imatrix: ImportanceMatrix | None
    rounder: Rounder
    texts: Sequence[str]
    threads: int

    def missing(self, known: Sensitivity) -> dict[str, list[GGMLType]]:
        """The types whose error is not known yet, for each tensor that has some."""
        found = {n: [k for k in kinds if k.name not in known.errors.get(n, {})] for n, kinds in self.tensors.items()}
        return {name: kinds for name, kinds in found.items() if kinds}

    def probes(self, known: Sensitivity) -> list[ProbeJob]:
        """The probes that must be made. Those of roles and depths belong together: a tensor that is new in one is new in all."""
        jobs: list[ProbeJob] = []
        groups = members(list(self.tensors), known.n_layers)
        done = {(probe.group, probe.type) for probe in known.probes}
        new = any(name not in known.probe_errors for group, some in groups.items() if group not in self.tensors for name in some)
        for group, names in groups.items():
            if group in self.tensors:
                kinds = {PROBE_TYPE}
                if self.parts[group] >= _LARGE:
                    kinds |= {kind for kind in self.tensors[group] if kind.bits_per_weight < _PROBED_BITS}
                fresh = sorted((kind for kind in kinds if (group, kind.name) not in done), key=lambda kind: kind.id)
                jobs += [ProbeJob(group, kind, (group,)) for kind in fresh]
            elif new or (group, PROBE_TYPE.name) not in done:
                jobs.append(ProbeJob(group, PROBE_TYPE, tuple(names)))
        return jobs


def text_hash(texts: Sequence[str]) -> str:
    """SHA-256 of texts."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def measure(
    work_file: Path,
    known: Sensitivity,
    inquiry: Inquiry,
    executor: Executor,
    on_progress: OnBytes,
    keep: Keep = lambda known: None,
) -> Sensitivity:
    """What is known, completed by what the inquiry lacks.

    Args:
        work_file: the model as a GGUF in F32 or F16. A copy of it, and some logits, come beside it for the time of the probes.
        on_progress: called with what was measured, the bytes that were gone through and those to go through.
        keep: called with all that is known so far, after each probe and now and then before, so that another run can go on.

    Raises:
        RecipeError: the text is too short.
        GGUFError: llama.cpp does not run the model.
    """
    missing, jobs = inquiry.missing(known), inquiry.probes(known)
    with WorkFile(work_file, inquiry.imatrix, executor) as work:
        size, done = work_file.stat().st_size, 0
        total = sum(work.tensors[name].nbytes for name in missing) + size * len(jobs)

        def step(what: str, n: int) -> None:
            nonlocal done
            done += n
            on_progress(what, done, total)

        step("", 0)
        errors, kept = {name: dict(some) for name, some in known.errors.items()}, time.monotonic()
        rounder = inquiry.rounder
        # An encoder works on all cores itself.
        results = (map if rounder.errors else executor.map)(lambda name: rounder.shares(work, name, missing[name]), missing)
        for name, found in zip(missing, results, strict=True):
            errors.setdefault(name, {}).update(found)
            step(name, work.tensors[name].nbytes)
            if time.monotonic() > kept + _KEEP_SECONDS:
                keep(replace(known, errors=errors))
                kept = time.monotonic()
        known = replace(known, errors=errors)
        keep(known)
        return _probed(known, inquiry, jobs, work, executor, lambda group: step(group, size), keep) if jobs else known


def _probed(
    known: Sensitivity,
    inquiry: Inquiry,
    jobs: Sequence[ProbeJob],
    work: WorkFile,
    executor: Executor,
    on_probe: Callable[[str], None],
    keep: Keep,
) -> Sensitivity:
    """What is known, with the probes."""
    # ggml rounds the tensors of the blocks, of which only the slope is wanted. What an embedding loses depends on who rounds it:
    # an encoder looks at what it does as a head, and a lookup is no product.
    own, plain = inquiry.rounder, replace(inquiry.rounder, errors=None, encode=None)
    rounder = {job.group: own if job.names == (job.group,) else plain for job in jobs}
    probe_errors = {name: dict(some) for name, some in known.probe_errors.items()}
    wanted = {(name, job.kind) for job in jobs for name in job.names if job.kind.name not in probe_errors.get(name, {})}
    pairs = sorted(wanted, key=lambda pair: (pair[0], pair[1].id))
    shares = executor.map(lambda pair: rounder.get(pair[0], plain).shares(work, pair[0], [pair[1]]), pairs)
    for (name, _), found in zip(pairs, shares, strict=True):
        probe_errors.setdefault(name, {}).update(found)
    stale = {(job.group, job.kind.name) for job in jobs}
    probes = {(probe.group, probe.type): probe for probe in known.probes if (probe.group, probe.type) not in stale}
    with Divergence(work.path, inquiry.texts, work.path.parent, inquiry.threads) as divergence:
        for job in jobs:
            rounder[job.group].lower(work, job.names, job.kind)
            probe = Probe(job.group, job.kind.name, divergence.of(work.copy))
            work.restore(job.names)
            probes[probe.group, probe.type] = probe
            log.info("%d tensors of %s in %s: mean KL divergence %.5f", len(job.names), probe.group, probe.type, probe.kld)
            known = replace(known, probe_errors=probe_errors, probes=tuple(probes.values()), text=text_hash(inquiry.texts))
            keep(known)
            on_probe(probe.group)
    return known
