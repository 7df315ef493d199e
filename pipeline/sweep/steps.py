"""The commands that carry out a plan, each with what it needs and a hash of all that its result depends on."""

from __future__ import annotations

from pathlib import Path

from pipeline.steps.key import hash_of, looks, value_of
from pipeline.sweep.plan import SweepPlan
from pipeline.sweep.step import SweepStep

MODELS, REFERENCES = "models", "references"


def steps_of(plan: SweepPlan, folder: Path) -> dict[str, SweepStep]:
    """Name -> step, each behind those that it needs.

    Args:
        folder: where the sweep's files go; whole, for workers stand elsewhere.
    """
    steps: dict[str, SweepStep] = {}
    references: dict[tuple[str, ...], SweepStep] = {}
    for file in plan.files:
        steps[quantize_step(file.name)] = made = _quantize(quantize_step(file.name), file.quantize, f"{MODELS}/{file.name}.gguf")
        if plan.evaluate is None:
            continue
        needs, compared, given = [made], "", ""
        if isinstance(file.reference, str):
            compared = given = file.reference
        else:
            if file.reference not in references:
                name = f"{file.model}-{hash_of(file.reference)[:8]}"
                step = _quantize(f"{name}.reference", file.reference, f"{REFERENCES}/{name}.gguf")
                references[file.reference] = steps[step.name] = step
            needs.append(references[file.reference])
            compared = str(folder / references[file.reference].makes)
        line = (str(folder / made.makes), f"--reference={compared}", *plan.evaluate)
        name = evaluate_step(file.name)
        steps[name] = SweepStep(
            name, "evaluate", line, _key((given, *plan.evaluate), needs), needs=tuple(step.name for step in needs)
        )
    return steps


def quantize_step(file: str) -> str:
    """The name of the step that makes a file of the plan."""
    return f"{file}.quantize"


def evaluate_step(file: str) -> str:
    """The name of the step that measures it."""
    return f"{file}.evaluate"


def _quantize(name: str, line: tuple[str, ...], makes: str) -> SweepStep:
    return SweepStep(name, "quantize", line, _key(line, []), makes)


def _key(line: tuple[str, ...], needs: list[SweepStep]) -> str:
    """SHA-256 of the arguments, of what the files among them look like now, and of the steps before."""
    files = [looks(value_of(argument)) for argument in line]
    return hash_of([line, files, [step.key for step in needs]])
