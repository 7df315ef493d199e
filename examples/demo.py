"""The whole job on a real model, with no network: `make demo` runs this.

SmolLM2-135M-Instruct is rebuilt as a Hugging Face checkpoint, served from a Hub on this machine, and `sprig quantize` does with
it what it does with any model of the Hub. Then llama.cpp loads what came out and answers a question, and an agent calls a tool.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from agent.files import human_size  # noqa: E402
from agent.text import display  # noqa: E402
from tests.fixtures.loopback_hub import LoopbackHub  # noqa: E402
from tests.fixtures.smollm2 import REPO_ID, rebuild  # noqa: E402

FOLDER = ROOT / ".demo"
RECIPES = ("Q4_0", "Q8_0")
QUESTION, EXPECTED = "What is the opposite of hot?", "cold"  # of which every recipe is sure
WISH = "Water bed 2 for 60 seconds."
PREFILL, DECODE = 256, 48  # tokens that are timed


@dataclass(frozen=True)
class Answer:
    """What a finished file says, and how fast on this machine; speeds in tokens per second."""

    text: str
    prefill: float
    decode: float


def checkpoint() -> Path:
    """The Hugging Face folder, built once: it gets its name when it is whole."""
    folder = FOLDER / "checkpoint"
    if not folder.is_dir():
        print("Rebuilding SmolLM2-135M-Instruct as a Hugging Face checkpoint", flush=True)
        unfinished = FOLDER / "checkpoint.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        rebuild(unfinished).rename(folder)
    return folder


def quantize(recipe: str, hub: LoopbackHub) -> dict[str, Any]:
    """The real command in a process of its own, on an empty Hub cache the first time."""
    out = FOLDER / f"SmolLM2-135M-Instruct-{recipe}.gguf"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING_FACE_"))}
    env |= {"HF_ENDPOINT": hub.url, "HF_HOME": str(FOLDER / "hf"), "NO_PROXY": "*", "no_proxy": "*"}
    command = [sys.executable, "-m", "sprig", "quantize", REPO_ID, "-q", recipe, "-o", str(out), "--json"]
    print(f"\n$ sprig quantize {REPO_ID} -q {recipe}", flush=True)
    done = subprocess.run(command, env=env, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(done.returncode)  # the command has said why
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def ask(path: Path) -> Answer:
    """One question as `sprig ask` asks it, at temperature 0; then the speed of a longer prompt and of an answer."""
    from agent import Agent, Limits
    from agent.fit.bench import bench, usual_way
    from agent.models.file import read_model

    with Agent(path, limits=Limits(tokens=7), sampling={"temperature": 0}) as agent:
        text = agent.run(QUESTION).text
    file = read_model(path)
    speed = bench(file, usual_way(file), prompt=PREFILL, generate=DECODE, repeat=1)
    return Answer(text.strip(), speed.reads, speed.writes)


def act(path: Path) -> str:
    """A wish that one tool call fulfils, as a script would have it fulfilled."""
    from agent import Agent, Limits, tool

    @tool
    def water(bed: int, seconds: int = 30) -> str:
        """Open the valve of a garden bed.

        Args:
            bed: number of the bed, 1 to 4
            seconds: how long
        """
        return f"bed {bed} got water for {seconds} seconds"

    with Agent(path, tools=[water], limits=Limits(rounds=2, tokens=60), sampling={"temperature": 0, "seed": 1}) as agent:
        result = agent.run(WISH, tool_choice="required")
    if not result.calls:
        sys.exit(f"demo: the agent made no call ({result.error or result.reason})")
    done = result.calls[0]
    return f"{done.call.name}({', '.join(f'{k}={v!r}' for k, v in done.call.arguments.items())}) -> {done.text}"


def table(rows: list[tuple[dict[str, Any], Answer]], source: int) -> str:
    lines = [f"{'source':>14}{'output':>8}{'bits':>6}{'download':>10}{'quantize':>10}{'check':>8}{'prefill':>11}{'decode':>11}"]
    for made, answer in rows:
        seconds = made["seconds"]
        download = f"{seconds['download']:.1f} s" if made["download"] else "cached"
        lines.append(
            f"{made['recipe']:<6}{human_size(source):>8}{human_size(made['size']):>8}{made['bits_per_weight']:>6.2f}{download:>10}"
            f"{seconds['quantize']:>8.1f} s{seconds['check']:>6.1f} s{answer.prefill:>7.0f} t/s{answer.decode:>7.0f} t/s"
        )
    return "\n".join(lines)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    shutil.rmtree(FOLDER / "hf", ignore_errors=True)
    start = time.perf_counter()
    folder = checkpoint()
    weights = sum(f.stat().st_size for f in folder.glob("*.safetensors"))
    with LoopbackHub({REPO_ID: folder}) as hub:
        made = [quantize(recipe, hub) for recipe in RECIPES]
    rows = [(m, ask(Path(m["path"]))) for m in made]
    print(f"\nQ: {QUESTION}")
    for m, answer in rows:
        print(f"{m['recipe']}: {display(answer.text)}")
    print(f"\nAn agent with a tool: {WISH}")
    print(f"{display(act(Path(made[-1]['path'])))}")
    print(f"\n{table(rows, weights)}\n")
    print(f"bits per weight; prefill of {PREFILL} and decode of {DECODE} tokens on {os.cpu_count()} cores of this machine")
    print(f"All in {time.perf_counter() - start:.0f} s. The files, each with its card, are in {FOLDER.name}/:")
    for m in made:
        print(f"  {Path(m['path']).name}")
    wrong = [m["recipe"] for m, answer in rows if EXPECTED not in answer.text]
    if wrong:
        sys.exit(f"demo: {', '.join(wrong)} did not say {EXPECTED!r}; the conversion is broken")


if __name__ == "__main__":
    main()
