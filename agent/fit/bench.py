"""How fast a model reads and writes here, measured as llama-bench does; and the way to compute in which it is fastest."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace

from agent.children.launch import cause, run_module
from agent.device.processor import Threads, choose_threads, ranges, read_cores
from agent.errors import SprigError
from agent.models.file import ModelFile
from agent.models.memory import BATCH, Cache, MemoryBudget, flash_attention, plan_load
from agent.models.tuned import Tuned

PROMPT, GENERATE, REPEAT = 512, 128, 3  # llama-bench's own, but for the repeats
_SECONDS = 3600.0
_LITTLE_PROMPT, _LITTLE_GENERATE = 64, 16  # tokens that show which of two ways is faster
_LEAST_SECONDS = 0.5  # of a run: a shorter one may fall between the turns of another program
_BATCHES = (64, 128, 256, 512)
_AS_GOOD = 0.97  # of the best speed: what a smaller number reaches is taken
_NO_USE = 0.7  # of the best speed: once more threads fall below, still more are not tried
_DEPTH = 512  # tokens in the cache when its types are compared
_WORTH = 1.05  # of the speed with F16: what a cache in Q8_0, which is less exact, has to reach


@dataclass(frozen=True, slots=True)
class Way:
    """How a model is computed: threads and their cores, tokens at once, type of K and V, whether the weights are repacked."""

    threads: Threads
    batch: int
    cache: Cache
    repack: bool


@dataclass(frozen=True, slots=True)
class BenchResult:
    """Tokens a second of each run, seconds to load, bytes that the process then held, and bytes that it held at most."""

    prefill: tuple[float, ...]
    decode: tuple[float, ...]
    load: float
    resident: int
    peak: int = 0

    @property
    def reads(self) -> float:
        return statistics.fmean(self.prefill) if self.prefill else 0.0

    @property
    def writes(self) -> float:
        return statistics.fmean(self.decode) if self.decode else 0.0


def usual_way(
    file: ModelFile,
    *,
    threads: int | None = None,
    cache: str | None = None,
    memory: int | None = None,
    tuned: Tuned | None = None,
) -> Way:
    """How the agent computes this model when nothing else is said; what is given is taken. SprigError when it does not fit."""
    if threads is not None:
        tuned = None  # as the engine does: what is said comes first
    batch = tuned.batch if tuned else BATCH
    plan = plan_load(file, MemoryBudget.of(memory), cache=cache or (tuned.cache if tuned else None), batch=batch)
    return Way(tuned.threads if tuned else choose_threads(wanted=threads), batch, plan.cache, plan.repack)


def bench(
    file: ModelFile,
    way: Way,
    *,
    prompt: int = PROMPT,
    generate: int = GENERATE,
    repeat: int = REPEAT,
    depth: int = 0,
    least: float = 0.0,
) -> BenchResult:
    """Measure how fast a model reads ``prompt`` tokens and writes ``generate``, in a child process.

    Each run begins after ``depth`` tokens that are in the cache already. One that takes less than ``least`` seconds is done
    again until they have passed.

    SprigError in one line when llama.cpp refuses or dies.
    """
    return bench_file(file.path, file.name, way, prompt=prompt, generate=generate, repeat=repeat, depth=depth, least=least)


def bench_file(
    path: str,
    name: str,
    way: Way,
    *,
    prompt: int,
    generate: int,
    repeat: int,
    depth: int = 0,
    least: float = 0.0,
    own_time: bool = False,
) -> BenchResult:
    """The same for a file of which only its path and what to call it are known.

    ``own_time``: count the processor's time of the one thread, which leaves out what other programs take.
    """
    context = {
        "n_ctx": max(256, -(-(depth + max(prompt, generate)) // 256) * 256), "n_seq": 1, "n_batch": way.batch, "cache": way.cache,
        "flash": flash_attention(way.cache), "threads": way.threads.decode, "prefill_threads": way.threads.prefill,
    }  # fmt: skip
    job = {
        "path": path, "repack": way.repack, "cores": way.threads.cores, "context": context, "prompt": prompt,
        "generate": generate, "repeat": repeat, "depth": depth, "least": least, "own_time": own_time,
    }  # fmt: skip
    ended = run_module("agent.fit.bench_child", [], json.dumps(job).encode(), _SECONDS)
    try:
        said = json.loads(ended.output)
    except ValueError:
        raise SprigError(f"{name} could not be measured: {cause(ended.status) or 'llama.cpp ended'}") from None
    if "failed" in said:
        raise SprigError(f"{name} could not be measured: {said['failed']}")
    return BenchResult(tuple(said["prefill"]), tuple(said["decode"]), said["load"], said["resident"], said["peak"])


def tune(file: ModelFile, way: Way, on_step: Callable[[str], None]) -> Tuned:
    """Find the threads, the cores, the batch and the cache with which this model is fastest here. Takes some tens of short runs.

    The speed of each core is measured alone first: one that is slow, whatever the reason, keeps all the others waiting.

    Args:
        way: how it is computed now.
        on_step: takes one line for each thing that was tried.
    """

    def tried(threads: Threads, batch: int, what: str, prompt: int = 0, generate: int = 0) -> float:
        found = bench(
            file, replace(way, threads=threads, batch=batch), prompt=prompt, generate=generate, repeat=1, least=_LEAST_SECONDS
        )
        rate = found.reads or found.writes
        on_step(f"{what}: {rate:.1f} tokens/s")
        return rate

    cores = [core.number for core in read_cores()]
    alone = dict.fromkeys(cores, 0.0)
    for core in cores * 2:  # twice: another program may have had it just then
        rate = tried(Threads(1, 1, (core,), ""), way.batch, f"writes on core {core} alone", generate=_LITTLE_GENERATE)
        alone[core] = max(alone[core], rate)
    order = sorted(cores, key=lambda core: -alone[core])

    def most(what: str, prompt: int, generate: int) -> int:
        rates: dict[int, float] = {}
        for count in _counts(len(order)):
            chosen = tuple(sorted(order[:count]))
            said = f"{what} on {ranges(chosen)}"
            rates[count] = tried(Threads(count, count, chosen, ""), way.batch, said, prompt, generate)
            if rates[count] < _NO_USE * max(rates.values()):
                break
        return _least(rates)

    decode = most("writes", 0, _LITTLE_GENERATE) if len(cores) > 1 else 1
    prefill = most("reads", _LITTLE_PROMPT, 0) if len(cores) > 1 else 1
    count = max(decode, prefill)
    held = tuple(sorted(order[:count])) if count < len(cores) else ()
    threads = Threads(decode, prefill, held, "")
    batches = {n: tried(threads, n, f"reads {n} at once", prompt=max(_BATCHES)) for n in _BATCHES}
    batch = _least(batches)
    return Tuned(decode, prefill, held, batch, _faster_cache(file, replace(way, threads=threads, batch=batch), on_step))


def _faster_cache(file: ModelFile, way: Way, on_step: Callable[[str], None]) -> Cache | None:
    """Q8_0 where that is clearly faster than F16; None leaves the choice to the memory."""
    rates: dict[Cache, float] = {}
    depth = min(_DEPTH, file.n_ctx_train // 2)
    for cache in ("f16", "q8_0"):
        said = f"writes after {depth} tokens, cache in {cache}"
        try:
            found = bench(
                file, replace(way, cache=cache), prompt=0, generate=_LITTLE_GENERATE, repeat=1, depth=depth, least=_LEAST_SECONDS
            )
        except SprigError:  # Q8_0 needs heads of a multiple of 32 numbers
            on_step(f"{said}: this model cannot")
            return None
        rates[cache] = found.writes
        on_step(f"{said}: {found.writes:.1f} tokens/s")
    return "q8_0" if rates["q8_0"] > _WORTH * rates["f16"] else None


def _counts(most: int) -> Iterable[int]:
    """Numbers of threads worth a try: each up to eight, then every other one."""
    return [n for n in range(1, most + 1) if n <= 8 or n % 2 == 0 or n == most]


def _least(rates: dict[int, float]) -> int:
    """The smallest number that is as good as the best one."""
    return min(n for n, rate in rates.items() if rate >= _AS_GOOD * max(rates.values()))


def to_dict(file: ModelFile, way: Way, found: BenchResult) -> dict[str, object]:
    """For a script: the model, the way, and what was measured."""
    return {
        "model": file.path, "name": file.name, "type": file.type, "size": file.size,
        "way": {**asdict(way), "threads": {k: v for k, v in asdict(way.threads).items() if k != "why"}},
        "prefill": list(found.prefill), "decode": list(found.decode), "load": found.load, "resident": found.resident,
        "peak": found.peak,
    }  # fmt: skip
