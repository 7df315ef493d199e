"""`sprig prune`, thin: arguments in, a call, the result for a person or a script."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import SETTINGS, Json, Threads, Verbose
from agent.errors import RecipeError
from agent.text import display
from pipeline.cli.calibrate import SAYS
from pipeline.cli.options import Base, Offline, Revision, Token
from pipeline.prune.cuts import read_cuts
from pipeline.sources.extra import need_pipeline_extra

prune_app = typer.Typer(**SETTINGS)

_SAYS = {
    "vocab": "the tokens that stay are chosen", "model": "a GGUF is made to measure it", **SAYS,
    "influence": "layers are measured", "prune": "tensors are written", "check": "the result is compared",
}  # fmt: skip


_Vocab = Annotated[
    list[Path] | None,
    typer.Option("--vocab", metavar="FILE", help="Text in UTF-8 whose tokens stay in the vocabulary; may be repeated."),
]
_Ffn = Annotated[
    str | None, typer.Option(metavar="N|P%", help="Neurons of each feed-forward part: N stay, or P% go, as 1280 or 20%.")
]
_Heads = Annotated[
    str | None, typer.Option(metavar="N|P%", help="Query heads: N stay, or P% go; with whole groups of keys and values.")
]
_Depth = Annotated[
    str | None,
    typer.Option(metavar="N|P%|drop:I,J-K", help="Layers: N stay, P% go, or those that are named go, as drop:10,12-14."),
]
_Sparsity = Annotated[
    float | None,
    typer.Option(metavar="P", help="Share of the layers' weights that become zero, as 0.5; saves no time in ggml."),
]
_Method = Annotated[
    str | None, typer.Option(metavar="NAME", help="How the zeros are chosen: sparsegpt (by default), wanda or magnitude.")
]


@prune_app.command()
def prune(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", autocompletion=model_names, help="Checkpoint: a folder, or a model of the Hub.")
    ],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="DIR", help="Folder to write; it must not exist, or be empty.")],
    vocab: _Vocab = None,
    vocab_size: Annotated[int | None, typer.Option(min=1, metavar="N", help="Tokens that stay in the vocabulary.")] = None,
    ffn: _Ffn = None,
    heads: _Heads = None,
    width: Annotated[str | None, typer.Option(metavar="N|P%", help="Channels of the residual stream: N stay, or P% go.")] = None,
    depth: _Depth = None,
    sparsity: _Sparsity = None,
    pattern: Annotated[str | None, typer.Option(metavar="K:N", help="With zeros: K of each N neighbours stay, as 2:4.")] = None,
    method: _Method = None,
    statistics: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Folder of sprig calibrate --statistics; by default the model is measured first."),
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            "--text", metavar="FILE", help="Text in UTF-8 to measure on; may be repeated. By default what the model writes."
        ),
    ] = None,
    no_check: Annotated[bool, typer.Option("--no-check", help="Do not compare the result with the original.")] = False,
    threads: Threads = None,
    base: Base = None,
    revision: Revision = None,
    token: Token = None,
    offline: Offline = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Make a smaller checkpoint of a model: fewer tokens, neurons, heads, channels or layers, chosen by measurement."""
    cuts: dict[str, Any] = {
        "vocab": tuple(vocab or ()), "vocab_size": vocab_size, "ffn": ffn, "heads": heads, "width": width, "depth": depth,
        "sparsity": sparsity, "pattern": pattern, "method": method,
    }  # fmt: skip
    try:
        read_cuts(**cuts)
    except RecipeError as e:
        raise typer.BadParameter(str(e)) from None
    with console.command(json=json, verbose=verbose) as out_of:
        need_pipeline_extra()
        from agent.cli.progress import Bars
        from pipeline.prune.prune import prune as run

        with Bars(_SAYS) as bars:
            found = run(
                model, out, **cuts, statistics=statistics, text=text or [], check=not no_check,
                threads=threads, on_progress=bars.show,
                base=base, revision=revision, token=token, offline=offline,
            )  # fmt: skip
        out_of.result(found.to_dict(), "\n".join(f"{label:<14}{display(value)}" for label, value in found.lines()))
