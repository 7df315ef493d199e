"""`sprig bench`: how fast a model reads and writes on this machine, and the way to compute in which it is fastest."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Annotated

import typer

from agent.cli import console
from agent.cli.completion import model_names
from agent.cli.options import MODEL_HERE, SETTINGS, Cache, Json, Memory, Threads, Verbose
from agent.errors import SprigError
from agent.files import human_size
from agent.text import display

if TYPE_CHECKING:
    from agent.fit.bench import Way
    from agent.models.file import ModelFile

bench_app = typer.Typer(**SETTINGS)


@bench_app.command()
def bench(
    model: Annotated[str, typer.Argument(metavar="MODEL", autocompletion=model_names, help=MODEL_HERE)],
    prompt: Annotated[int, typer.Option("-p", "--prompt", min=0, max=65536, metavar="N", help="Tokens to read.")] = 512,
    generate: Annotated[int, typer.Option("-n", "--generate", min=0, max=65536, metavar="N", help="Tokens to write.")] = 128,
    depth: Annotated[
        int, typer.Option("-d", "--depth", min=0, max=65536, metavar="N", help="Tokens that are in the cache before each run.")
    ] = 0,
    repeat: Annotated[int, typer.Option("-r", "--repeat", min=1, max=1000, metavar="N", help="Times to measure each.")] = 3,
    threads: Threads = None,
    cache: Cache = None,
    memory: Memory = None,
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Find the fastest threads, cores, batch and cache, and use them for this model from now on."),
    ] = False,
    forget: Annotated[bool, typer.Option("--forget", help="Forget what --tune found for this model, then measure.")] = False,
    json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Measure how fast a model reads a prompt and writes tokens here, as llama-bench does."""
    with console.command(json=json, verbose=verbose) as out:
        from agent.fit.bench import bench as measure
        from agent.fit.bench import to_dict, usual_way
        from agent.fit.bench import tune as find_best
        from agent.models.file import read_model
        from agent.models.find import find_model
        from agent.models.tuned import forget_tuned, recall_tuned, remember_tuned

        file = read_model(find_model(model))
        if depth + max(prompt, generate) > file.n_ctx_train:
            raise SprigError(
                f"{display(file.name)} was trained for {file.n_ctx_train} tokens of context: take fewer with -p, -n or -d"
            )
        if not (prompt or generate or tune or forget):
            raise SprigError("there is nothing to measure: -p or -n must be more than 0")
        if forget:
            forget_tuned(file.identity)
        if tune:
            way = usual_way(file, threads=threads, cache=cache, memory=memory)
            remember_tuned(file.identity, find_best(file, way, out.say))
        way = usual_way(file, threads=threads, cache=cache, memory=memory, tuned=recall_tuned(file.identity))
        found = measure(file, way, prompt=prompt, generate=generate, repeat=repeat, depth=depth)
        lines = [_title(file, way) + (f"; after {depth} tokens" if depth else "")]
        for what, count, rates in (("reads", prompt, found.prefill), ("writes", generate, found.decode)):
            if rates:
                spread = f" ± {statistics.stdev(rates):.1f}" if len(rates) > 1 else ""
                lines.append(f"{what:6} {count:5} tokens  {statistics.fmean(rates):8.1f}{spread} tokens/s")
        lines.append(f"loaded in {found.load:.1f} s, {human_size(found.resident)} of memory")
        out.result(to_dict(file, way, found), "\n".join(lines))


def _title(file: ModelFile, way: Way) -> str:
    threads, weights = way.threads, "repacked" if way.repack else "mapped"
    counts = f"threads: {threads.decode} to write, {threads.prefill} to read ({threads.why})"
    what = f"{display(file.name)}, {file.type}, {human_size(file.size)}"
    return f"{what}; {counts}; batch {way.batch}, cache {way.cache}, weights {weights}"
