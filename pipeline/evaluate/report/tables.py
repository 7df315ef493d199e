"""The tables of a report. Cells are escaped here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.files import human_size
from pipeline.evaluate.figures import Estimate, EvaluatedFile, Evaluation, Figures
from pipeline.evaluate.lines import told
from pipeline.evaluate.lines_beside import share
from pipeline.evaluate.report.svg import element, marker, words
from pipeline.evaluate.speed import FileSpeed
from pipeline.evaluate.tasks.calls import CallScore
from pipeline.evaluate.tasks.score import TaskScore

_NONE = "–"
_HEAD = (
    "file", "size", "bits/weight", "mean KLD", "median KLD", "99 % KLD", "same top-1", "RMS Δp", "perplexity", "bits/byte",
    "KLD beside first",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    """The cell that names a file; ``sign`` is the number of its sign in the plots, None for a file that is not in them."""

    text: str
    sign: int | None = None


_Row = Sequence[Name | str]


def table(head: Sequence[str], rows: Sequence[_Row]) -> str:
    """A table that scrolls sideways where it is too wide. Columns without any content are left out."""
    columns = [i for i in range(len(head)) if i == 0 or any(row[i] not in ("", _NONE) for row in rows)]
    first = element("tr", "".join(element("th", words(head[i]), scope="col") for i in columns))
    body = "".join(element("tr", "".join(_cell(row[i], i == 0) for i in columns)) for row in rows)
    return element("div", element("table", element("thead", first) + element("tbody", body)), class_="wide")


def _cell(cell: Name | str, heads_row: bool) -> str:
    if isinstance(cell, str):
        return element("th", words(cell), scope="row") if heads_row else element("td", _stacked(cell) or " ")
    swatch = ""
    if cell.sign is not None:
        sign = marker(cell.sign, 7.0, 7.0)
        swatch = element("svg", sign, class_="plot sign", width=14, height=14, viewBox="0 0 14 14", aria_hidden="true")
    return element("th", swatch + element("span", words(cell.text, 80)), scope="row")


def _stacked(cell: str) -> str:
    """A figure above its error, which keeps columns narrow."""
    value, error, rest = cell.partition(" ± ")
    if not error:
        return words(cell)
    unit = " %" if rest.endswith(" %") else ""
    return words(value + unit) + element("small", words(f"± {rest.removesuffix(unit)}"))


def files_table(evaluation: Evaluation, signs: bool) -> str:
    """Size and figures of each file, the reference first."""
    rows: list[_Row] = []
    if evaluation.reference:
        rows.append(_file(evaluation.reference, Name(f"{evaluation.reference.name} (reference)")))
    for i, one in enumerate(evaluation.candidates):
        rows.append(_file(one, Name(one.name, i if signs else None)))
    return table(_HEAD, rows)


def _file(one: EvaluatedFile, name: Name) -> _Row:
    of = one.overall
    return [name, human_size(one.size), f"{one.bits_per_weight:.2f}", *_figures(of), _told(of.kld_over_first, sign=True)]


def _figures(of: Figures) -> list[str]:
    return [
        _told(of.kld), _told(of.kld_median), _told(of.kld_p99), _told(of.top1, 100, " %"), _told(of.rms_dp, 100, " %"),
        _told(of.perplexity), _told(of.bits_per_byte),
    ]  # fmt: skip


def domain_table(evaluation: Evaluation, what: Callable[[Figures], Estimate | None], signs: bool) -> str:
    """One figure of each file in each domain."""
    rows: list[_Row] = []
    if evaluation.reference:
        reference = evaluation.reference
        rows.append([Name(f"{reference.name} (reference)"), *(_told(what(reference.per_domain[d])) for d in evaluation.domains)])
    for i, one in enumerate(evaluation.candidates):
        rows.append([Name(one.name, i if signs else None), *(_told(what(one.per_domain[d])) for d in evaluation.domains)])
    if all(cell == _NONE for cell in rows[0][1:]):
        rows = rows[1:]
    return table(["file", *evaluation.domains], rows)


def tasks_table(scores: Sequence[TaskScore]) -> str:
    kinds = {"choice": "multiple choice", "short": "short answer"}
    head = ["file", "questions", "kind", "number", "right", "right per byte", "beside first"]
    rows: list[_Row] = [
        [
            Name(one.model), one.task, kinds[one.kind], str(one.questions), _share(one.accuracy),
            _share(one.normalized), _share(one.difference, sign=True),
        ]
        for one in scores
    ]  # fmt: skip
    return table(head, rows)


def calls_table(scores: Sequence[CallScore]) -> str:
    head = ["file", "constraint", "right call", "", "right tool", "valid call", "restraint", "beside first"]
    rows: list[_Row] = [
        [
            Name(one.model), "on" if one.constrain else "off", f"{round(one.right.value * one.wishes)} of {one.wishes}",
            _share(one.right), _share(one.tool), _share(one.valid),
            _share(one.restrained), _share(one.difference, sign=True),
        ]
        for one in scores
    ]  # fmt: skip
    return table(head, rows)


def speeds_table(speeds: Sequence[FileSpeed]) -> str:
    head = ["file", "load", "prefill, tokens/s", "decode, tokens/s", "peak memory", "threads"]
    rows: list[_Row] = [
        [Name(one.model), f"{one.load_seconds:.2f} s", _told(one.prefill), _told(one.decode), human_size(one.peak_memory),
         str(one.threads)]
        for one in speeds
    ]  # fmt: skip
    return table(head, rows)


def _told(estimate: Estimate | None, scale: float = 1.0, unit: str = "", *, sign: bool = False) -> str:
    return _NONE if estimate is None else told(estimate, scale, unit, sign=sign)


def _share(estimate: Estimate | None, *, sign: bool = False) -> str:
    return _NONE if estimate is None else share(estimate, sign=sign)
