"""The HTML page of a report: one file that fetches nothing and runs nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.report.axis import NOTHING
from pipeline.evaluate.report.dots import dots_svg
from pipeline.evaluate.report.heatmap import heatmap_svg, kind_of, span_of
from pipeline.evaluate.report.names import short_names
from pipeline.evaluate.report.pareto import Point, pareto_svg
from pipeline.evaluate.report.svg import STYLE, element, words
from pipeline.evaluate.report.tables import calls_table, domain_table, files_table, speeds_table, tasks_table
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore

_WIDE, _NARROW = 880, 360  # pixels: each plot is drawn for a desk and for a phone

_PAGE_STYLE = """
:root{color-scheme:light dark;--ink:#1d2329;--soft:#626c75;--line:#dfe4e7;--paper:#fff;--row:#f6f8f9}
@media(prefers-color-scheme:dark){:root{--ink:#e6eaed;--soft:#9aa5ad;--line:#2b3238;--paper:#14181b;--row:#1a1f23}}
*{box-sizing:border-box}
body{margin:0;background:var(--paper);color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,sans-serif}
main{max-width:1240px;margin:0 auto;padding:24px 20px 64px}
h1{font-size:24px;line-height:1.25;margin:0 0 6px}
h2{font-size:17px;margin:40px 0 8px}
p{margin:6px 0;max-width:72ch}
.soft{color:var(--soft)}
.wide{overflow-x:auto;margin:12px 0}
table{border-collapse:collapse;font-size:13.5px;font-variant-numeric:tabular-nums;white-space:nowrap}
th,td{padding:6px 11px;text-align:right;border-bottom:1px solid var(--line)}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom}
tbody th{font-weight:600}
th:first-child{text-align:left;position:sticky;left:0;background:var(--paper);padding-left:0;max-width:46vw}
tbody th span{display:inline-block;max-width:calc(46vw - 24px);overflow:hidden;text-overflow:ellipsis;vertical-align:bottom}
tbody tr:hover,tbody tr:hover th:first-child{background:var(--row)}
.sign{vertical-align:-2px;margin-right:7px}
figure{margin:16px 0}
figure svg{display:block;max-width:100%;height:auto}
.phone{display:none}.phone svg{width:100%}.desk svg{margin-left:-12px}
small{display:block;font-size:11.5px;line-height:1.2;color:var(--soft)}
details{margin:10px 0}summary{cursor:pointer;color:var(--soft)}
@media(max-width:720px){main{padding:16px 12px 48px}.desk{display:none}.phone{display:block}h1{font-size:21px}}
@media print{.phone{display:none}}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


_ABOUT_FRONT = (
    "Filled signs lie on the Pareto front: no smaller file loses less. Bars are one standard error, where that is longer than "
    "the sign."
)
_ABOUT_TASKS = (
    "Share of right answers ± one standard error over questions; beside the first file, on the same questions. "
    "Per byte: the likelihood of a choice is divided by its length."
)
_ABOUT_TENSORS = (
    "How far the weights are from the reference's: the root mean square of their difference, as a share of that of the "
    "reference's weights. What an encoder rounds for the activations lies farther off here, and loses less: see the divergence."
)
_ABOUT_CALLS = (
    "Wishes that one call of a tool fulfils, with the right tool and the right arguments. Restraint: no call where none is "
    "needed. With the constraint on, a call is held to its tool's schema."
)
_ABOUT_SPEEDS = "On this machine, as the agent computes; ± is the standard error over runs."


def page(
    evaluation: Evaluation,
    *,
    tasks: Sequence[TaskScore] = (),
    calls: Sequence[CallScore] = (),
    speeds: Sequence[FileSpeed] = (),
) -> str:
    """The report as HTML; what was not measured has no section. Arguments as for ``write_report``."""
    body = [
        element("h1", "What was lost"),
        *_opening(evaluation),
        *_divergence(evaluation),
        *_domains(evaluation),
        *_tensors(evaluation),
    ]
    for title, content, about in (
        ("Questions", tasks_table(tasks) if tasks else "", _ABOUT_TASKS),
        ("Tool calls", calls_table(calls) if calls else "", _ABOUT_CALLS),
        ("Speed and memory", speeds_table(speeds) if speeds else "", _ABOUT_SPEEDS),
    ):
        if content:
            body += [element("h2", title), element("p", about, class_="soft"), content]
    if evaluation.notes:
        body += [element("h2", "Notes"), element("ul", "".join(element("li", words(note, 500)) for note in evaluation.notes))]
    policy = element("meta", http_equiv="Content-Security-Policy", content=_POLICY)
    view = element("meta", name="viewport", content="width=device-width, initial-scale=1")
    title = words("What was lost: " + ", ".join(one.name for one in evaluation.candidates), 120)
    head = element("meta", charset="utf-8") + policy + view + element("title", title) + element("style", _PAGE_STYLE + STYLE)
    return "<!DOCTYPE html>\n" + element(
        "html", element("head", head) + element("body", element("main", "\n".join(body))), lang="en"
    )


def _opening(evaluation: Evaluation) -> list[str]:
    overall = evaluation.candidates[0].overall
    kind = "cut as llama-perplexity does" if evaluation.style == "llama-perplexity" else "of which the second half is scored"
    domains = len(evaluation.domains)
    what = (
        f"{overall.windows} windows of {evaluation.n_ctx} tokens, {kind}: {overall.tokens:,} tokens of {domains} "
        f"domain{'s' if domains > 1 else ''}. All files read the same windows in llama.cpp."
    )
    beside = f"Divergence, top-1 and Δp are from {evaluation.reference.name}. " if evaluation.reference else ""
    error = "± is one standard error over windows." if overall.windows > 1 else ""
    lines = [element("p", words(what, 400)), element("p", words(beside + error, 400), class_="soft") if beside + error else ""]
    return [*lines, files_table(evaluation, signs=evaluation.reference is not None)]


def _divergence(evaluation: Evaluation) -> list[str]:
    names = short_names([one.name for one in evaluation.candidates])
    points = [
        Point(name, str(i), one.size, one.kld.value, one.kld.error)
        for i, (name, one) in enumerate(zip(names, evaluation.candidates, strict=True))
        if one.kld
    ]
    if not points:
        return []
    plot = _figure(lambda width: pareto_svg(points, width=width, height=440 if width == _WIDE else 380))
    return [plot, element("p", _ABOUT_FRONT, class_="soft")]


def _domains(evaluation: Evaluation) -> list[str]:
    if len(evaluation.domains) < 2:
        return []
    parts = [element("h2", "By domain")]
    tables = [("perplexity", domain_table(evaluation, lambda f: f.perplexity, signs=evaluation.reference is not None))]
    if evaluation.reference:
        parts.append(_figure(partial(_domain_plot, evaluation)))
        tables.insert(0, ("mean KL divergence", domain_table(evaluation, lambda f: f.kld, signs=True)))
    parts += [element("details", element("summary", f"Table: {name}") + made) for name, made in tables]
    return parts


def _domain_plot(evaluation: Evaluation, width: float) -> str:
    named = list(zip(short_names([one.name for one in evaluation.candidates]), evaluation.candidates, strict=True))
    groups = {domain: {name: kld for name, one in named if (kld := one.per_domain[domain].kld)} for domain in evaluation.domains}
    return dots_svg(groups, width=width, title="Divergence by domain", about="mean KL divergence, nats")


def _tensors(evaluation: Evaluation) -> list[str]:
    names = short_names([one.name for one in evaluation.candidates])
    found = {name: _with_errors(one.tensor_errors) for name, one in zip(names, evaluation.candidates, strict=True)}
    span = span_of(error for errors in found.values() for error in errors.values())
    plots = [
        _figure(partial(heatmap_svg, errors, title=f"Error of each tensor, {name}", span=span))
        for name, errors in found.items()
        if errors
    ]
    return [element("h2", "By tensor"), element("p", _ABOUT_TENSORS, class_="soft"), *plots] if plots else []


def _with_errors(errors: Mapping[str, float]) -> dict[str, float]:
    """Without the kinds of tensors that are equal in all blocks, as norms are."""
    kept = {kind_of(name) for name, error in errors.items() if error > NOTHING}
    return {name: error for name, error in errors.items() if kind_of(name) in kept}


class _Draw(Protocol):
    def __call__(self, *, width: float) -> str: ...


def _figure(draw: _Draw) -> str:
    desk = element("div", draw(width=_WIDE), class_="desk")
    return element("figure", desk + element("div", draw(width=_NARROW), class_="phone"))
