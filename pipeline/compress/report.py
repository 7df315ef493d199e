"""What a compression did: a table of its stages, one of its candidates, and what was chosen and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from agent.files import human_size
from agent.text import display
from agent.text.duration import told_time
from pipeline.compress.choose import ChosenWay
from pipeline.compress.plan import CompressPlan
from pipeline.compress.run import disk_needed, left_to_do
from pipeline.compress.stage import StageAnswer, answered
from pipeline.compress.stages import Job
from pipeline.evaluate.report.write import write_report
from pipeline.steps.evaluations import joined
from pipeline.steps.pairs import Measured


@dataclass(frozen=True, slots=True)
class Foreseen:
    """A plan, what it will take, and what is done already.

    Attributes:
        size, why: bytes of the file at most, and why so many.
        out, work: where the file and everything else go.
    """

    plan: CompressPlan
    job: Job
    size: int
    why: str
    out: Path
    work: Path
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float:
        """That the stages which are left will take."""
        return sum(stage.forecast.seconds for stage in left_to_do(self.job, self.work))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        left = {stage.name for stage in left_to_do(self.job, self.work)}
        return {
            "model": self.plan.model, "size": self.size, "why": self.why, "out": str(self.out), "work": str(self.work),
            "seconds": round(self.seconds), "disk": disk_needed(self.job, self.work),
            "memory": max(stage.forecast.memory for stage in self.job.stages.values()),
            "candidates": [
                {"name": one.way.name, "why": one.way.why, "prune": one.way.prune, "distill": one.way.distill}
                for one in self.job.ways
            ],
            "stages": [
                {
                    "name": stage.name, "command": stage.command, "arguments": stage.arguments, "needs": stage.needs,
                    "done": stage.name not in left, "seconds": round(stage.forecast.seconds), "memory": stage.forecast.memory,
                    "disk": stage.forecast.kept,
                }
                for stage in self.job.stages.values()
            ],
            "notes": list(self.notes),
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        found = [
            f"model         {display(self.plan.model)}",
            f"size          at most {self.size:,} bytes: {display(self.why)}",
            f"output        {display(str(self.out))}",
            f"work folder   {display(str(self.work))}: {human_size(disk_needed(self.job, self.work))} needed",
            f"time          about {told_time(self.seconds)}",
            "",
        ]
        found += [f"candidate     {one.way.name}{f': {display(one.way.why)}' if one.way.why else ''}" for one in self.job.ways]
        rows = [["stage", "command", "time", "memory", "disk"]]
        for stage in self.job.stages.values():
            done = answered(stage, self.work)
            cast = stage.forecast
            time = "done" if done else told_time(cast.seconds)
            rows.append([stage.name, stage.command, time, human_size(cast.memory), human_size(cast.kept)])
        return [*found, "", *table(rows), *(f"note          {display(note)}" for note in self.notes)]


@dataclass(frozen=True, slots=True)
class Compressed:
    """A finished compression.

    Attributes:
        path, card: the file and its card.
        size: its bytes.
        choice: the candidates and what was chosen.
        answers: stage -> how it ended.
        page: the report, where one was asked for.
    """

    foreseen: Foreseen
    path: Path
    card: Path
    size: int
    choice: ChosenWay
    answers: Mapping[str, StageAnswer]
    page: Path | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        found = self.foreseen.to_dict()
        for stage in found["stages"]:
            answer = self.answers[stage["name"]]
            stage["took"] = {
                "seconds": answer.seconds,
                "processor": answer.processor,
                "memory": answer.memory,
                "bytes": answer.size,
            }
            stage |= {"kept": answer.kept, "error": answer.error, "result": dict(answer.result)}
        return found | {
            "path": str(self.path), "card": str(self.card), "bytes": self.size, "chosen": self.choice.chosen,
            "why_chosen": self.choice.why, "measured": [one.to_dict() for one in self.choice.ways],
            "report": str(self.page) if self.page else None,
        }  # fmt: skip

    def lines(self) -> list[str]:
        """The report for people, a line each."""
        work = self.foreseen.work
        found = [*self.stage_lines(), "", *candidate_lines(self.choice), ""]
        found.append(f"chosen        {display(self.choice.why)}")
        found.append(f"output        {display(str(self.path))} ({self.size:,} bytes, {human_size(self.size)})")
        found.append(f"card          {display(str(self.card))}")
        if self.page:
            found.append(f"report        {display(str(self.page))}")
        held = sum(answer.size for answer in self.answers.values())
        found.append(
            f"work folder   {display(str(work))} keeps all candidates ({human_size(held)}): another size of the model goes on "
            "from there (--work); remove it when you need none"
        )
        return found + [f"note          {display(note)}" for note in self.foreseen.notes]

    def stage_lines(self) -> list[str]:
        """The stages: what was foreseen, and what they took."""
        rows = [["stage", "foreseen", "took", "processor", "memory", "made", ""]]
        for stage in self.foreseen.job.stages.values():
            answer = self.answers[stage.name]
            how = f"failed: {display(answer.error)}" if answer.error else "by an earlier run" if answer.kept else ""
            memory = human_size(answer.memory) if answer.memory else ""
            took = "" if answer.error else told_time(answer.seconds)
            processor = told_time(answer.processor) if answer.processor else ""
            made = human_size(answer.size) if answer.size else ""
            rows.append([stage.name, told_time(stage.forecast.seconds), took, processor, memory, made, how])
        return table(rows)

    def story(self) -> list[str]:
        """What the card says."""
        chosen = next(one for one in self.foreseen.job.ways if one.way.name == self.choice.chosen)
        done = [f"{name} ({self.foreseen.job.stages[name].command})" for name in chosen.stages]
        plan = self.foreseen.plan
        model = Path(plan.model).name if Path(plan.model).exists() else plan.model  # no path of this machine
        model += f" at {plan.revision}" if plan.revision else ""
        told = [f"Made by `sprig compress` of {model}, to at most {self.foreseen.size:,} bytes: {', '.join(done)}."]
        if chosen.way.prune or chosen.way.distill is not None:
            told.append(f"Cut: {_words(chosen.way.prune)}; learnt: {_words(chosen.way.distill)}.")
        for one in self.choice.ways:
            told.append(f"{one.name}: {', '.join(filter(None, _measures(one)))}{'failed' if one.error else ''}.")
        return [*told, f"Chosen: {self.choice.why}."]


def _words(options: Mapping[str, Any] | None) -> str:
    if options is None:
        return "nothing"
    return ", ".join(f"{name} {_plain(value)}" for name, value in options.items()) or "as usual"


def _plain(value: Any) -> str:
    """A value without the places of this machine."""
    values = value if isinstance(value, list) else [value]
    return " ".join(Path(one).name if isinstance(one, str) and "/" in one else str(one) for one in values)


def _measures(one: Any) -> list[str]:
    kld = f"mean KL divergence {figure(one.kld)} nats" if one.kld else ""
    return [f"{one.size:,} bytes" if one.size else "", kld, f"{figure(one.bits)} bits per byte" if one.bits else ""]


def candidate_lines(choice: ChosenWay) -> list[str]:
    """The candidates: size, divergence, bits per byte, each beside the whole model's."""
    rows = [["candidate", "size", "mean KLD", "over whole", "bits/byte", "over whole", ""]]
    for one in choice.ways:
        mark = f"{one.name} *" if one.name == choice.chosen else one.name
        how = f"failed: {display(one.error)}" if one.error else "beats it" if one.beats else ""
        rows.append(
            [mark, human_size(one.size) if one.size else "", figure(one.kld), figure(one.kld_over, "+"), figure(one.bits),
             figure(one.bits_over, "+"), how]
        )  # fmt: skip
    return table(rows)


def figure(measured: Measured | None, sign: str = "") -> str:
    """A value with its error."""
    if measured is None:
        return ""
    value, error = measured
    return f"{value:{sign}.4f}{'' if error is None else f' ± {error:.4f}'}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns side by side; those in which nothing stands are left out."""
    filled = [i for i in range(len(rows[0])) if any(row[i] for row in rows[1:])]
    widths = {i: max(len(row[i]) for row in rows) for i in filled}
    last = len(rows[0]) - 1
    return [
        "  ".join(row[i].ljust(widths[i]) if i in (0, last) else row[i].rjust(widths[i]) for i in filled).rstrip() for row in rows
    ]


def write_page(done: Compressed, folder: Path) -> Path:
    """The page of `sprig evaluate --report`, of the candidates that have a divergence; the choice and the stages are its notes.

    Raises:
        OutputError: it cannot be written.
    """
    ways = [one for one in done.foreseen.job.ways if one.evaluate and not done.answers[one.evaluate].error]
    told = [_named(done.answers[one.evaluate].result, one.way.name) for one in ways if one.evaluate]
    notes = [done.choice.why, *(" ".join(line.split()) for line in (*candidate_lines(done.choice)[1:], *done.stage_lines()[1:]))]
    return write_report(replace(joined(told), notes=tuple(notes)), folder)


def _named(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """All files have one name; on the page each has its candidate's."""
    (one,) = result["candidates"]
    return {**result, "candidates": [{**one, "name": name}]}
