"""`sprig distill`, thin: arguments in, a call, the result for a person or a script."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import console
from agent.cli.options import SETTINGS, Json, Verbose
from agent.errors import SprigError
from agent.progress import Progress
from agent.text import display
from agent.text.duration import parse_duration
from pipeline.cli.options import EveryCore, Offline, Resume, Revision, Token, known_recipe, recipe_names
from pipeline.distill.options import DIVERGENCES, LORA_RATE, RATE, DistillOptions
from pipeline.sources.extra import need_pipeline_extra

if TYPE_CHECKING:
    from agent.cli.progress import Bars
    from pipeline.distill.loop import DistillStep

distill_app = typer.Typer(**SETTINGS)

_SAYS = {"write": "the teacher writes", "teacher": "the teacher answers"}


def _minutes(text: str) -> float:
    try:
        return parse_duration(text) / 60
    except ValueError as e:
        raise typer.BadParameter(str(e)) from None


def _count(text: str) -> int:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([kmb]?)", text.strip().lower())
    if found is None:
        raise typer.BadParameter(f"{text!r} is no number of tokens; 150000, 150k and 2M are")
    return round(float(found[1]) * {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}[found[2]])


_Data = Annotated[
    list[Path] | None,
    typer.Option("--data", metavar="FILE", help="Text, or chats as JSONL; may be repeated. By default what the teacher writes."),
]
_Own = Annotated[
    int | None,
    typer.Option(parser=_count, metavar="N", help="Tokens that the teacher writes; by default 32k without --data, none with it."),
]
_Tokens = Annotated[
    int | None, typer.Option(parser=_count, metavar="N", help="Learn from so many tokens, as 150k; by default all data once.")
]
_Time = Annotated[
    float | None, typer.Option("--time", parser=_minutes, metavar="TIME", help="Learn so long instead, as 2h or 90min.")
]
_For = Annotated[
    str | None,
    typer.Option(
        "--for",
        metavar="RECIPE",
        autocompletion=recipe_names,
        callback=known_recipe,
        help="Train through the rounding of this recipe, as Q4_0.",
    ),
]
_TopK = Annotated[
    int | None,
    typer.Option("--top-k", metavar="K", help="Ask the teacher once, and keep its likeliest K tokens on the disk."),
]
_Rate = Annotated[
    float | None, typer.Option(metavar="R", help=f"Highest learning rate; by default {RATE:g}, with --lora {LORA_RATE:g}.")
]
_Divergence = Annotated[
    str, typer.Option(metavar="NAME", help=f"From the teacher: {', '.join(DIVERGENCES[:-1])} or {DIVERGENCES[-1]}.")
]
_Bf16 = Annotated[bool | None, typer.Option("--bf16/--no-bf16", help="Compute in BF16; by default where it is faster here.")]
_Checkpointing = Annotated[bool, typer.Option("--checkpointing", help="Less memory, slower: compute activations twice.")]


@distill_app.command()
def distill(
    teacher: Annotated[str, typer.Argument(metavar="TEACHER", help="Checkpoint: a folder, or a model of the Hub.")],
    student: Annotated[
        str,
        typer.Argument(
            metavar="STUDENT",
            help="Checkpoint of the same tokens, or a config.json alone, whose weights are drawn.",
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write; it must not exist, or be empty.")],
    data: _Data = None,
    own: _Own = None,
    tokens: _Tokens = None,
    minutes: _Time = None,
    recipe: _For = None,
    divergence: _Divergence = "forward",
    temperature: Annotated[float, typer.Option(metavar="T", help="Softens both distributions.")] = 1.0,
    language: Annotated[float, typer.Option(metavar="SHARE", help="Share of the language-model loss, 0 to 1.")] = 0.0,
    hidden: Annotated[float, typer.Option(metavar="W", help="Weight of the loss between hidden states.")] = 0.0,
    attention: Annotated[float, typer.Option(metavar="W", help="Weight of the loss between attention maps.")] = 0.0,
    top_k: _TopK = None,
    lora: Annotated[
        int | None,
        typer.Option(metavar="RANK", help="Learn changes of this rank (LoRA), merged at the end, and not all weights."),
    ] = None,
    rate: _Rate = None,
    batch: Annotated[int, typer.Option(metavar="N", help="Sequences of a step.")] = 8,
    width: Annotated[int, typer.Option(metavar="N", help="Tokens of a sequence, at most.")] = 256,
    checkpointing: _Checkpointing = False,
    bf16: _Bf16 = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the order, and of all that is drawn by lot.")] = 0,
    resume: Resume = False,
    threads: EveryCore = None,
    revision: Revision = None,
    token: Token = None,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Let a student learn what a teacher says: a pruned model gets back what it lost, a small one gets better."""
    try:
        options = DistillOptions(
            tokens=tokens, minutes=minutes, width=width, batch=batch, rate=rate, divergence=divergence, temperature=temperature,
            language=language, hidden=hidden, attention=attention, top_k=top_k, lora=lora, checkpointing=checkpointing, bf16=bf16,
            recipe=recipe, own=own, seed=seed,
        )  # fmt: skip
    except SprigError as e:
        raise typer.BadParameter(str(e)) from None
    with console.command(json=json, verbose=verbose) as out_of:
        need_pipeline_extra()
        from agent.cli.progress import Bars
        from pipeline.distill.distill import distill as run

        with Bars(_SAYS) as bars:
            result = run(
                teacher, student, out, data=data or [], options=options, resume=resume, threads=threads, revision=revision,
                token=token, offline=offline, on_step=lambda step: _show(step, bars, out_of), on_note=out_of.say,
            )  # fmt: skip
        if os.environ.get("RANK", "0") == "0":  # of several processes one speaks
            out_of.result(result.to_dict(), f"{display(str(result.path))}\n{result.note}")


def _show(step: DistillStep, bars: Bars, out_of: console.Console) -> None:
    if step.stage == "evaluate":
        out_of.say(f"step {step.step}: evaluation loss {step.loss:.4f}")
        return
    learns = f"step {step.step}, loss {step.loss:.4f}, {step.tokens:,} tokens, {step.tokens_per_second:.0f}/s"
    bars.show(Progress.of_share(step.stage, step.share, learns if step.stage == "learn" else ""))
