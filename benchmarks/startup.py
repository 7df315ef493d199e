"""How long `sprig --help` takes, as a person feels it: whole processes, wall time.

.venv/bin/python benchmarks/startup.py
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

RUNS = 15
COMMANDS = (["--help"], ["--version"], ["quantize", "--help"], ["models"])


def wall(arguments: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sprig", *arguments], stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    print("| Command | median | slowest of", RUNS, "|\n|---|---|---|")
    for arguments in COMMANDS:
        wall(arguments)  # the first one reads the files from disk
        seconds = [wall(arguments) for _ in range(RUNS)]
        print(f"| `sprig {' '.join(arguments)}` | {statistics.median(seconds):.3f} s | {max(seconds):.3f} s |", flush=True)


if __name__ == "__main__":
    main()
