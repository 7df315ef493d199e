"""Evaluations as data, without a model: what a report is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.evaluate.figures import Estimate, EvaluatedFile, Evaluation, Figures

DOMAINS = ("chat", "code", "zh")


def figures(kld: float | None) -> Figures:
    nll, perplexity, bits = Estimate(3.0, 0.05), Estimate(20.1, 0.9), Estimate(1.02, 0.01)
    if kld is None:
        return Figures(8, 2048, nll, perplexity, bits)
    lost = Estimate(kld, kld / 20)
    return Figures(8, 2048, nll, perplexity, bits, lost, lost, lost, Estimate(0.9, 0.01), Estimate(0.05, 0.002), lost)


def evaluated(name: str, size: int, kld: float | None, domains: Sequence[str] = DOMAINS) -> EvaluatedFile:
    per_domain = {domain: figures(kld) for domain in domains}
    return EvaluatedFile(name, Path("models", name), size, 2_000_000, 0.2, figures(kld), per_domain, ())


def evaluation(
    *files: tuple[str, int, float | None],
    reference: str | None = "ref",
    domains: Sequence[str] = DOMAINS,
    tensors: Mapping[str, float] | None = None,  # errors in the first file
) -> Evaluation:
    first, *others = (evaluated(*file, domains) for file in files)
    candidates = (replace(first, tensor_errors=tensors or {}), *others)
    beside = None if reference is None else evaluated(reference, 4_000_000, None, domains)
    return Evaluation(candidates, beside, "sprig", 512, 3.2, ("a note",))
