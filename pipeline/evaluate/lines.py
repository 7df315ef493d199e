"""An evaluation told on a terminal."""

from __future__ import annotations

import math

from agent.files import human_size
from agent.text import display
from pipeline.evaluate.figures import Estimate, EvaluatedFile, Evaluation


def told(estimate: Estimate, scale: float = 1.0, unit: str = "", *, sign: bool = False) -> str:
    """A figure as far as its error lets it be known: "0.485 ± 0.027"; without an error, four digits of it."""
    value, error = scale * estimate.value, estimate.error
    plus = "+" if sign else ""
    if error is None:
        return f"{value:{plus}.4g}{unit}"
    error *= scale
    if abs(value) >= 1e7:
        return f"{value:{plus}.3g} ± {error:.2g}{unit}"
    places = min(max(0, 1 - math.floor(math.log10(error))), 9) if error > 0 else 4
    return f"{value:{plus},.{places}f} ± {error:,.{places}f}{unit}"


def lines(evaluation: Evaluation) -> list[str]:
    """The evaluation for people, a line each."""
    overall = evaluation.candidates[0].overall
    scored = f"{overall.tokens:,} tokens of {len(evaluation.domains)} domain{'s' if len(evaluation.domains) > 1 else ''} scored"
    kind = "as llama-perplexity cuts them" if evaluation.style == "llama-perplexity" else "the second half of each"
    found = [f"windows       {overall.windows} of {evaluation.n_ctx} tokens, {kind}: {scored} in {evaluation.seconds:.1f} s"]
    if evaluation.reference:
        found += [f"reference     {_file(evaluation.reference)}", *_likelihood(evaluation.reference)]
    first = evaluation.candidates[0]
    for one in evaluation.candidates:
        found += [f"candidate     {_file(one)}", *_divergence(one), *_likelihood(one), *_beside(one, first)]
    if evaluation.reference and len(evaluation.domains) > 1:
        found += _by_domain(evaluation)
    if overall.windows > 1:
        found.append("± is the standard error over windows.")
    return found + [f"note          {display(note)}" for note in evaluation.notes]


def _file(one: EvaluatedFile) -> str:
    size = f"{one.size:,} bytes ({human_size(one.size)}, {one.bits_per_weight:.2f} bits per weight)"
    return f"{display(one.name)}: {size}, loaded in {one.load_seconds:.2f} s"


def _divergence(one: EvaluatedFile) -> list[str]:
    of = one.overall
    if not (of.kld and of.kld_median and of.kld_p99 and of.top1 and of.rms_dp):
        return []
    return [
        f"  mean KLD    {told(of.kld)} nats; median {told(of.kld_median)}, 99th percentile {told(of.kld_p99)}",
        f"  same top-1  {told(of.top1, 100, ' %')}; RMS of the probability difference {told(of.rms_dp, 100, ' %')}",
    ]


def _likelihood(one: EvaluatedFile) -> list[str]:
    of = one.overall
    more = of.nll_over_reference
    over = f"; logarithm of its ratio to the reference's {told(more, sign=True)}" if more else ""
    return [f"  perplexity  {told(of.perplexity)}{over}", f"  bits/byte   {told(of.bits_per_byte)}"]


def _beside(one: EvaluatedFile, first: EvaluatedFile) -> list[str]:
    of = one.overall
    if of.nll_over_first is None:
        return []
    kld = f"mean KLD {told(of.kld_over_first, sign=True)}, " if of.kld_over_first else ""
    return [f"  paired      {kld}log-likelihood lost {told(of.nll_over_first, sign=True)} beside {display(first.name)}"]


def _by_domain(evaluation: Evaluation) -> list[str]:
    """Mean KLD of each candidate in each domain."""
    rows = [["mean KLD", *(display(one.name) for one in evaluation.candidates)]]
    for domain in evaluation.domains:
        klds = [one.per_domain[domain].kld for one in evaluation.candidates]
        rows.append([display(domain), *("" if kld is None else told(kld) for kld in klds)])
    widths = [max(12, *map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows]
