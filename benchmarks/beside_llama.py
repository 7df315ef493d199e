"""The agent beside llama.cpp's own programs at equal settings: decode, prefill, a tool call. Then how its threads wait.

    LLAMA_BENCH=.../llama-bench LLAMA_SERVER=.../llama-server .venv/bin/python benchmarks/beside_llama.py [MODEL]

MODEL is a GGUF; by default the demo's model. Each pair runs in turn, so that a slow minute of the machine hits both; what counts
is the median of the ratios. Rows whose program is not named are left out.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent import Agent, Engine, Limits  # noqa: E402
from agent.models.demo import TITLE  # noqa: E402
from agent.models.file import read_model  # noqa: E402
from benchmarks.agent import DECODE, PLAN, answered, ratios, row, water_beds  # noqa: E402

PROMPT, BATCH = 1643, 256
PAIRS, SPIN_ROUNDS = 5, 2
SPINS = ("10000", "100000", "1000000")
# The form of the Hermes models, which llama-server knows and the demo's model was not trained on: the constraint leads it.
TEMPLATE = """{%- if tools %}<|im_start|>system
# Tools

<tools>
{%- for tool in tools %}
{{ tool | tojson }}
{%- endfor %}
</tools>

A call is a JSON object between marks:
<tool_call>
{"name": "NAME", "arguments": {"KEY": "VALUE"}}
</tool_call><|im_end|>
{% endif %}
{%- for message in messages %}
{%- if message.role == "tool" %}<|im_start|>user
<tool_response>
{{ message.content }}
</tool_response><|im_end|>
{% elif message.role == "assistant" and message.tool_calls %}<|im_start|>assistant
{%- for call in message.tool_calls %}
<tool_call>
{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% else %}<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endif %}
{%- endfor %}
{%- if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""


def beside_bench(model: Path, bench: str, threads: int) -> None:
    """Decode and prefill, at the agent's settings, on so many threads."""

    def llama_bench(*what: str) -> float:
        settings = ["-t", str(threads), "-b", str(BATCH), "-ub", str(BATCH), "-fa", "1", "-r", "1", "-o", "json"]
        done = subprocess.run([bench, "-m", str(model), *settings, *what], capture_output=True, text=True, check=True)
        return float(json.loads(done.stdout)[0]["avg_ts"])

    draw = random.Random(1)
    with Engine(model, context=8192, threads=threads, batch=BATCH, keep_prefix=False) as engine:

        def writes() -> float:
            ids, end = answered(engine, [draw.randrange(1000, 40000)], DECODE + 1)
            return (len(ids) - 1) / float(end.timing["decode_seconds"])

        def reads() -> float:
            _, end = answered(engine, [draw.randrange(1000, 40000) for _ in range(PROMPT)], 1)
            return PROMPT / float(end.timing["prefill_seconds"])

        writes()
        reads()
        for name, ours, peer, pairs in (
            (f"decode of {DECODE} tokens", writes, lambda: llama_bench("-p", "0", "-n", str(DECODE)), PAIRS),
            (f"prefill of {PROMPT} tokens", reads, lambda: llama_bench("-p", str(PROMPT), "-n", "0"), 2),
        ):
            mine, theirs, ratio = ratios(ours, peer, pairs)
            row(f"{name}, {threads} thread(s), beside llama-bench", f"{mine:.1f} / {theirs:.1f} t/s = **{ratio:.2f}**", ">= 0.96")


@contextlib.contextmanager
def llama_server(server: str, model: Path, folder: Path) -> Iterator[str]:
    """The address of a llama-server that holds the model with the template above."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        server, "-m", str(model), "--port", str(port), "--jinja", "-c", "4096", "-b",
        str(BATCH), "-ub", str(BATCH), "-t", str(len(os.sched_getaffinity(0))), "-np", "1", "-fa", "on",
    ]  # fmt: skip
    with (folder / "server.log").open("wb") as log:
        child = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5) as answer:
                if answer.status == 200:
                    break
            time.sleep(0.2)
        yield address
    finally:
        child.terminate()
        child.wait()


def beside_server(model: Path, server: str, folder: Path) -> None:
    """A call with five arguments: the agent's, and llama-server's with its own grammar."""
    from pipeline import quantize

    (folder / "hermes.jinja").write_text(TEMPLATE)
    same = folder / "with-template.gguf"
    quantize(str(model), read_model(model).type, same, allow_requantize=True, chat_template=folder / "hermes.jinja")
    with llama_server(server, same, folder) as address:
        body = json.dumps(
            {
                "messages": [{"role": "user", "content": PLAN}], "tools": [water_beds.spec.as_openai()],
                "tool_choice": "required", "temperature": 0, "max_tokens": 200,
            }
        ).encode()  # fmt: skip
        said: list[str] = []

        def theirs() -> float:
            request = urllib.request.Request(f"{address}/v1/chat/completions", body, {"Content-Type": "application/json"})
            start = time.perf_counter()
            with urllib.request.urlopen(request, timeout=300) as answer:
                reply = json.load(answer)
            seconds = time.perf_counter() - start
            call = reply["choices"][0]["message"]["tool_calls"][0]["function"]
            said[:] = [str(reply["usage"]["completion_tokens"]), str(len(json.loads(call["arguments"])))]
            return seconds

        limits = Limits(rounds=1, tokens=200)
        with Agent(same, tools=[water_beds], limits=limits, sampling={"temperature": 0}, engine={"context": 4096}) as agent:

            def ours() -> float:
                agent.reset()
                start = time.perf_counter()
                result = agent.run(PLAN, tool_choice="required")
                assert result.calls, result
                return time.perf_counter() - start

            theirs()
            ours()
            mine, peer, ratio = ratios(ours, theirs, PAIRS)
        row(
            f"a call with five arguments beside llama-server's ({said[0]} tokens, {said[1]} arguments)",
            f"{mine:.2f} / {peer:.2f} s = **{ratio:.2f}**", "<= 0.5",
        )  # fmt: skip


@contextlib.contextmanager
def busy(loops: int) -> Iterator[None]:
    """So many programs that take whatever core they get."""
    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(loops)]
    try:
        yield
    finally:
        for other in others:
            other.kill()
            other.wait()


def spinning(model: Path) -> None:
    """How long a thread spins before it sleeps, on an idle machine and beside other programs; in turn, the median of each."""
    cores = len(os.sched_getaffinity(0))
    print("\n| other programs | GOMP_SPINCOUNT | prefill t/s | decode t/s |\n|---|---|---|---|")
    with contextlib.ExitStack() as opened:
        engines = {}
        for spin in SPINS:
            os.environ["GOMP_SPINCOUNT"] = spin
            engines[spin] = opened.enter_context(Engine(model, context=2048, batch=BATCH, keep_prefix=False))
            answered(engines[spin], [5000], 8)
        del os.environ["GOMP_SPINCOUNT"]
        for loops in sorted({0, 1, cores}):
            found: dict[str, list[tuple[float, float]]] = {spin: [] for spin in SPINS}
            for _ in range(SPIN_ROUNDS):
                for spin, engine in engines.items():
                    with busy(loops):
                        prompt = [random.randrange(1000, 40000) for _ in range(64)]
                        ids, end = answered(engine, prompt, 129, seconds=15)
                    timing = end.timing
                    found[spin].append((len(prompt) / timing["prefill_seconds"], (len(ids) - 1) / timing["decode_seconds"]))
            for spin, speeds in found.items():
                reads, writes = (statistics.median(values) for values in zip(*speeds, strict=True))
                print(f"| {loops} | {spin} | {reads:.0f} | {writes:.1f} |", flush=True)


def main() -> None:
    demo = ROOT / ".demo" / f"{TITLE}-Q8_0.gguf"
    model = Path(sys.argv[1]) if len(sys.argv) > 1 else demo
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["SPRIG_HOME"] = str(folder / "home")
        print("| what | measured | asked |\n|---|---|---|")
        parts: list[Callable[[], None]] = []
        if bench := os.environ.get("LLAMA_BENCH"):
            parts += [lambda n=n: beside_bench(model, bench, n) for n in sorted({1, len(os.sched_getaffinity(0))})]  # type: ignore[misc]
        if server := os.environ.get("LLAMA_SERVER"):
            parts += [lambda: beside_server(model, server, folder)]
        for part in [*parts, lambda: spinning(model)]:
            part()


if __name__ == "__main__":
    main()
