"""The commands of the workstation, thin: arguments in, a call, the result for a person or a script.

What needs the pipeline's own dependencies is imported inside the commands, so that help works without them.
"""

from __future__ import annotations

import shlex
import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from agent.cli import console
from agent.cli.completion import device_names, model_names
from agent.cli.options import MODEL_ANYWHERE, SETTINGS, Json, Verbose
from agent.errors import RecipeError
from agent.files import human_size
from agent.text import display
from pipeline.cli.options import EveryCore, Offline, Resume, Revision, Token, known_recipe, recipe_names
from pipeline.recipes.budget import FAST, read_budget
from pipeline.recipes.names import RECIPES, USUAL, wanted_recipe
from pipeline.sources.extra import need_pipeline_extra

if TYPE_CHECKING:
    from pipeline.quantize import QuantizeResult

quantize_app = typer.Typer(**SETTINGS)


def _pairs(values: list[str]) -> tuple[tuple[str, str], ...]:
    """REGEX=TYPE, split at the last "=": a regular expression may hold one, a type may not."""
    pairs = [value.rpartition("=") for value in values]
    odd = next((v for v, (pattern, _, kind) in zip(values, pairs, strict=True) if not pattern or not kind), None)
    if odd is not None:
        raise typer.BadParameter(f"{odd!r} is not REGEX=TYPE, like 'ffn_down=Q6_K'", param_hint="--tensor-type")
    return tuple((pattern, kind) for pattern, _, kind in pairs)


_RecipeOption = Annotated[
    str | None,
    typer.Option(
        "-q",
        "--recipe",
        metavar="RECIPE",
        autocompletion=recipe_names,
        callback=known_recipe,
        help=f"One of {', '.join(RECIPES)}; usually {USUAL}.",
    ),
]
_DeviceOption = Annotated[
    str | None,
    typer.Option(
        "-d",
        "--device",
        metavar="NAME",
        autocompletion=device_names,
        help="The best file for it, as for pi5 (sprig fit --devices); with -q, judge that.",
    ),
]

_Size = Annotated[
    str | None, typer.Option("--size", metavar="SIZE", help="Instead of a recipe: the best file of this size, as 400MB.")
]
_Bpw = Annotated[
    float | None, typer.Option("--bpw", metavar="BITS", help="The same, in bits per weight over the whole file, as 4.5.")
]
_Types = Annotated[
    str | None,
    typer.Option(
        metavar="TYPE,...", help=f"Types that a budget may choose; usually those that are fast there: {','.join(FAST)}."
    ),
]
_Sensitivity = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Keep what a budget must know of the model here, and use what is there.")
]
_ContextLength = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Tokens that the file says it was trained for, instead of the model's.")
]
_Stream = Annotated[bool, typer.Option("--stream", help="Read weights straight from the Hub; only the output is stored.")]
_AllowRequantize = Annotated[
    bool, typer.Option("--allow-requantize", help="Take a GGUF that is quantized already, though that loses twice.")
]
_ChatTemplate = Annotated[Path | None, typer.Option(metavar="FILE", help="Chat template (Jinja) instead of the model's.")]
_Encoder = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Who rounds: ggml's own kernels, gptq (feeds errors back where that wins), tune (learns)."),
]
_Minutes = Annotated[float | None, typer.Option("--tune-minutes", min=0.1, metavar="M", help="For --encoder tune; by default 4.")]
_Statistics = Annotated[
    Path | None, typer.Option(metavar="DIR", help="What sprig calibrate --statistics measured, for gptq and tune.")
]
_Model = Annotated[
    str,
    typer.Argument(metavar="MODEL", autocompletion=model_names, help=f"{MODEL_ANYWHERE} org/name:RECIPE names the recipe too."),
]
_Out = Annotated[str | None, typer.Option("-o", "--out", metavar="FILE", help="File or folder to write; by default the store.")]
_TensorType = Annotated[
    list[str] | None, typer.Option(metavar="REGEX=TYPE", help="Type for tensors whose name matches; may be repeated.")
]
_Gate = Annotated[
    str | None,
    typer.Option(metavar="kld=X,top1=Y", help="Publish only if mean KLD is at most X, same top-1 at least Y (0 to 1)."),
]
_LlamaCpp = Annotated[
    Path | None, typer.Option(metavar="DIR", help="llama.cpp checkout whose script converts what Sprig does not know.")
]
_Base = Annotated[
    str | None, typer.Option(metavar="MODEL", help="Of an adapter (LoRA): the model to merge it into; by default its own.")
]
_Lora = Annotated[
    bool, typer.Option("--lora", help="Write an adapter by itself, as a GGUF adapter: F32, F16 (usual), BF16 or Q8_0.")
]


@quantize_app.command()
def quantize(
    ctx: typer.Context,
    model: _Model,
    recipe: _RecipeOption = None,
    size: _Size = None,
    bpw: _Bpw = None,
    types: _Types = None,
    sensitivity: _Sensitivity = None,
    device: _DeviceOption = None,
    out: _Out = None,
    base: _Base = None,
    lora: _Lora = False,
    revision: Revision = None,
    token: Token = None,
    offline: Offline = False,
    imatrix: Annotated[Path | None, typer.Option(metavar="FILE", help="Importance matrix (llama.cpp's GGUF format).")] = None,
    tensor_type: _TensorType = None,
    encoder: _Encoder = None,
    tune_minutes: _Minutes = None,
    statistics: _Statistics = None,
    pure: Annotated[bool, typer.Option("--pure", help="One type for all weights, no mixture.")] = False,
    output_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Type of the output head.")] = None,
    embedding_type: Annotated[str | None, typer.Option(metavar="TYPE", help="Type of the token embedding.")] = None,
    context_length: _ContextLength = None,
    chat_template: _ChatTemplate = None,
    stream: _Stream = False,
    allow_requantize: _AllowRequantize = False,
    gate: _Gate = None,
    resume: Resume = False,
    threads: EveryCore = None,
    llama_cpp: _LlamaCpp = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would happen, fetch no weights, and stop.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a small GGUF of a Hugging Face model, in one pass: download, check, convert, quantize."""
    if lora:
        _refuse_beside_lora(ctx)
    budget = _budget(size, bpw, device, types, sensitivity, {"-q": recipe, "--pure": pure, "--stream": stream})
    options: dict[str, Any] = {
        **budget, "base": base, "revision": revision, "token": token, "offline": offline, "imatrix": imatrix,
        "tensor_types": _pairs(tensor_type or []), "pure": pure, "output_type": output_type, "embedding_type": embedding_type,
        "context_length": context_length, "chat_template": chat_template, "stream": stream, "threads": threads,
        "llama_cpp": llama_cpp, "allow_requantize": allow_requantize, "statistics": statistics,
        "minutes": tune_minutes,
    }  # fmt: skip
    with console.command(json=json, verbose=verbose) as out_of:
        need_pipeline_extra()
        recipe = wanted_recipe(model, recipe)
        if lora:
            _write_adapter(out_of, model, recipe, out, base, revision, token, offline, dry_run)
            return
        if device is not None:
            recipe = _for_device(out_of, model, device, recipe, options)
        _make(out_of, encoder, model, recipe, out, resume, gate, dry_run, options)


def _budget(
    size: str | None, bpw: float | None, device: str | None, types: str | None, sensitivity: Path | None, others: dict[str, Any]
) -> dict[str, Any]:
    """The options of a budget, if there is one; that of a device has no size yet."""
    names = [name for name in (types or "").split(",") if name.strip()]
    found = {"size": size, "bpw": bpw, "types": names, "sensitivity": sensitivity}
    if device is not None and not (size or bpw):
        return found
    try:
        if read_budget(size, bpw, names, sensitivity) is None:
            return {}
    except RecipeError as e:
        raise typer.BadParameter(str(e)) from None
    others["--device"] = device
    if other := next((option for option, value in others.items() if value), None):
        raise typer.BadParameter(f"{other} and a budget (--size, --bpw) do not go together: leave one out")
    return found


def _for_device(out: console.Console, model: str, device: str, recipe: str | None, options: dict[str, Any]) -> str | None:
    """Say what is made for a device and why. Gives the recipe; of a budget, size and types are put into the options."""
    from pipeline.fit import budget_for, recipe_for

    named = {name: options[name] for name in ("base", "revision", "token", "offline")}
    found = recipe_for(model, device, recipe, **named) if recipe else budget_for(model, device, options["types"], **named)
    if found.recipe is None:
        if other := next((name for name in ("pure", "stream") if options[name]), None):
            raise RecipeError(f"--{other} needs a recipe, and --device is a budget for this model; name one with -q")
        options |= {"size": found.size, "types": found.types}
    elif recipe is None:
        options |= {"types": None, "sensitivity": None}
    out.say(display(found.why))
    return found.recipe


def _make(
    out_of: console.Console, encoder: str | None, model: str, recipe: str | None, out: str | None, resume: bool, gate: str | None,
    dry_run: bool,
    options: dict[str, Any],
) -> None:  # fmt: skip
    from pipeline.evaluate.gate import read_gate

    wanted = read_gate(gate) if gate is not None else None
    if dry_run:
        from pipeline.encoders import dry_run as plan_of

        plan = plan_of(model, recipe, out, encoder=encoder, **options)
        out_of.result(plan.to_dict(), "\n".join(plan.lines()))
        return
    from agent.cli.progress import Bars
    from pipeline.encoders import quantize as run

    with Bars() as bars:
        result = run(model, recipe, out, encoder=encoder, resume=resume, gate=wanted, on_progress=bars.show, **options)
    out_of.result(result.to_dict(), _summary(result))


def _write_adapter(
    out_of: console.Console, model: str, recipe: str | None, out: str | None, base: str | None, revision: str | None,
    token: str | None, offline: bool, dry_run: bool,
) -> None:  # fmt: skip
    from pipeline.lora import write_adapter

    made = write_adapter(model, recipe or "F16", out, base=base, revision=revision, token=token, offline=offline, dry_run=dry_run)
    out_of.result(made.to_dict(), "\n".join(made.lines()))


_WITH_LORA = {"model", "recipe", "out", "base", "lora", "revision", "token", "offline", "dry_run", "json", "verbose"}


def _refuse_beside_lora(ctx: typer.Context) -> None:
    """Options that say how a whole model is made say nothing of an adapter."""
    for parameter in ctx.command.params:
        source = ctx.get_parameter_source(parameter.name or "")
        if parameter.name not in _WITH_LORA and source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"{parameter.opts[0]} is for a whole model, and --lora writes an adapter", ctx)


def _use(path: Path) -> list[tuple[str, str]]:
    """How a model is used that writes no text."""
    from agent.models.file import read_model

    file = read_model(path)
    if file.causal or file.pooling == "rank":
        return []
    return [("use", display(f"sprig embed {shlex.quote(str(path))} 'a text' gives its vector"))]


def _summary(result: QuantizeResult) -> str:
    spent = ", ".join(f"{stage} {seconds:.1f}" for stage, seconds in result.seconds.items() if seconds >= 0.05)
    said = f' and goes on with "{display(result.text)}"' if result.text else ""
    bits = 8 * result.size / result.preflight.n_weights
    rows = [
        ("output", display(str(result.path))),
        ("card", display(str(result.card))),
        ("size", f"{result.size:,} bytes ({human_size(result.size)}, {bits:.2f} bits per weight)"),
        ("recipe", f"{result.recipe}: {', '.join(f'{n} {kind}' for kind, n in result.types.items())}"),
        ("seconds", f"{sum(result.seconds.values()):.1f}: {spent}"),
        ("check", f"every row is valid; llama.cpp loads it{said}"),
        *([("fidelity", result.fidelity.line)] if result.fidelity else []),
        *_use(result.path),
    ]
    notes = [
        textwrap.fill(display(note), 96, initial_indent=f"{'note':<14}", subsequent_indent=" " * 14, break_long_words=False)
        for note in result.notes
    ]
    return "\n".join([*(f"{label:<14}{value}" for label, value in rows), *notes])
