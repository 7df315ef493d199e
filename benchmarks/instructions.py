"""Instructions that one token costs, in the worker and in the process that waits for it, counted by valgrind.

    .venv/bin/python benchmarks/instructions.py [MODEL]

Two answers of different length are counted; their difference is what tokens cost, without start and load. Counts do not depend on
what else the machine does. MODEL is a GGUF; by default the demo's.
"""

from __future__ import annotations

import collections
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SHORT, LONG = 20, 60  # tokens
PYTHON = ("libpython", "python3", "_ctypes", "_json", "_struct", "select.")
ANSWER = """
import sys
sys.path.insert(0, {root!r})
{worker}
from agent import Engine
from agent.engine.sampling import Sampling
from agent.messages import Segment
with Engine({model!r}, context=512, threads=1, conversations=1, keep_prefix=False, repack=True) as engine:
    prompt = engine.tokenize([Segment("Once upon a time there was a small robot", True)])
    for step in engine.generate("a", prompt, sampling=Sampling(temperature=0, seed=1), max_tokens={tokens}):
        pass
"""


def counted(model: str, tokens: int, folder: Path, *, worker: bool) -> dict[str, int]:
    """Instructions by library, of one answer."""
    out = folder / f"{'worker' if worker else 'parent'}-{tokens}"
    valgrind = ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}.%p"]
    wrapper = folder / "python.sh"
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(valgrind)} {sys.executable} "$@"\n')
    wrapper.chmod(0o755)
    program = ANSWER.format(
        root=str(ROOT), model=model, tokens=tokens, worker=f"sys.executable = {str(wrapper)!r}" if worker else ""
    )
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SPRIG_HOME": str(folder / "home")}
    subprocess.run(command if worker else [*valgrind, *command], env=environment, capture_output=True, check=True)
    return by_library(max(folder.glob(f"{out.name}.*"), key=lambda path: path.stat().st_size))


def by_library(profile: Path) -> dict[str, int]:
    """The sums of a callgrind file. Its format: https://valgrind.org/docs/manual/cl-format.html"""
    names: dict[str, str] = {}
    sums: collections.Counter[str] = collections.Counter()
    library, called = "", False
    for line in profile.read_text(errors="replace").splitlines():
        key, _, rest = line.partition("=")
        if key in ("ob", "cob"):
            number, _, name = rest.partition(" ")
            names.setdefault(number, Path(name).name)
            library = names[number] if key == "ob" else library
        elif key == "calls":
            called = True  # the next line counts what was called, which has lines of its own
        elif line[:1].isdigit() or line[:1] in ("+", "-", "*"):
            if not called:
                sums[library] += int(line.split()[1])
            called = False
    return dict(sums)


def main() -> None:
    model = sys.argv[1] if len(sys.argv) > 1 else str(ROOT / ".demo" / "SmolLM2-135M-Instruct-Q4_0.gguf")
    print("| process | instructions a token | Python and its modules | libllama, with the calls into it | ggml |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for worker in (True, False):
            short, long = (counted(model, tokens, Path(name), worker=worker) for tokens in (SHORT, LONG))
            cost = {library: (count - short.get(library, 0)) // (LONG - SHORT) for library, count in long.items()}
            python, llama, ggml = (
                sum(count for library, count in cost.items() if library.startswith(kinds))
                for kinds in (PYTHON, ("libllama", "libffi"), ("libggml",))
            )
            print(
                f"| {'worker' if worker else 'parent'} | {sum(cost.values()):,} | {python:,} | {llama:,} | {ggml:,} |", flush=True
            )


if __name__ == "__main__":
    main()
