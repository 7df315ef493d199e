"""Sprig's one pass beside what a user would run instead, on a random Llama-shaped checkpoint of 1.1 B weights (2.2 GB BF16).

    python benchmarks/quantize.py [--recipes Q4_0 Q8_0 Q4_K_M] [--scratch DIR] [--write docs/benchmarks.md]

The peer is llama.cpp as it lies in the source distribution of llama-cpp-python: ``convert_hf_to_gguf.py --outtype bf16``, then
``llama_model_quantize`` of the installed library with as many threads. Both run as programs of their own from a warm page
cache, one after the other in one session, so only the ratios mean something. Sprig's time has everything in it: start, preflight,
the check of the finished file in llama.cpp, and the sync to disk; the peer neither checks nor syncs.

Memory is the peak of RssAnon over all processes of a run, sampled every 20 ms: file pages, which the kernel can drop, are not
in it. Disk is the peak of what lies in the output's folder.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tarfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from agent.gguf.reader import read_header
from pipeline.format import ggml
from pipeline.recipes.names import RECIPES
from tests.fixtures.random_llama import TINYLLAMA, write_checkpoint

THREADS = len(os.sched_getaffinity(0))


@dataclass(frozen=True)
class Run:
    seconds: float
    memory: int
    disk: int


def rss_anon(pid: int) -> int:
    """Bytes of anonymous memory of a process and its descendants."""
    total = 0
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                total = int(line.split()[1]) * 1024
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except (OSError, ValueError):
        return 0
    return total + sum(rss_anon(int(child)) for child in children)


def measure(command: list[str], folder: Path) -> Run:
    """Run a program to its end. SystemExit with its last words when it fails."""
    peak = {"memory": 0, "disk": 0}
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def watch() -> None:
        while process.poll() is None:
            peak["memory"] = max(peak["memory"], rss_anon(process.pid))
            used = 0
            for path in folder.rglob("*"):
                try:
                    used += path.stat().st_blocks * 512 if path.is_file() else 0
                except OSError:
                    continue
            peak["disk"] = max(peak["disk"], used)
            time.sleep(0.02)

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    seconds = time.perf_counter() - start
    watcher.join()
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{output[-2000:]}")
    return Run(seconds, peak["memory"], peak["disk"])


def llama_cpp_source(scratch: Path) -> Path:
    """The llama.cpp tree of the installed llama-cpp-python's source distribution."""
    from importlib.metadata import version

    release = version("llama-cpp-python")
    root = scratch / f"llama_cpp_python-{release}"
    if not root.exists():
        command = ["download", "-q", "--no-deps", "--no-binary", ":all:", "-d", str(scratch)]
        subprocess.run([sys.executable, "-m", "pip", *command, f"llama-cpp-python=={release}"], check=True)
        with tarfile.open(next(scratch.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(scratch, filter="data")
    return root / "vendor" / "llama.cpp"


QUANTIZE = """
import ctypes, sys, llama_cpp
p = llama_cpp.llama_model_quantize_default_params()
p.ftype, p.nthread = int(sys.argv[3]), int(sys.argv[4])
sys.exit(llama_cpp.llama_model_quantize(sys.argv[1].encode(), sys.argv[2].encode(), ctypes.byref(p)))
"""


def kernel_seconds(path: Path) -> float:
    """How long ggml's kernels alone take for the tensors of this file, all cores, weights in cache, nothing read or written."""
    rng = np.random.default_rng(0)
    header = read_header(path)
    slabs: dict[int, np.ndarray] = {}
    work = []
    for t in header.tensors.values():
        if t.type.block == 1:
            continue
        length = t.shape[-1]
        rows = max(1, (1 << 19) // length)
        slabs.setdefault(length, rng.standard_normal((rows, length), dtype=np.float32) * 0.02)
        total = int(np.prod(t.shape[:-1]))
        work += [(length, min(rows, total - r), t.type) for r in range(0, total, rows)]
    start = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(lambda w: ggml.quantize(slabs[w[0]][: w[1]], w[2]), work))
    return time.perf_counter() - start


def same_tensors(a: Path, b: Path) -> bool:
    left, right = read_header(a), read_header(b)
    x, y = (np.memmap(p, dtype=np.uint8, mode="r") for p in (a, b))
    return left.tensors.keys() == right.tensors.keys() and all(
        t.type == right.tensors[n].type
        and np.array_equal(x[t.offset : t.offset + t.nbytes], y[right.tensors[n].offset : right.tensors[n].offset + t.nbytes])
        for n, t in left.tensors.items()
    )


def megabytes(n: int) -> str:
    return f"{n / 1e6:,.0f} MB"


def bench(scratch: Path, recipes: list[str]) -> list[str]:
    checkpoint = scratch / "llama-1.1b"
    if not (checkpoint / "config.json").exists():
        write_checkpoint(checkpoint, TINYLLAMA)
    weights = sum(p.stat().st_size for p in checkpoint.glob("*.safetensors"))
    largest = max(int(np.prod(s)) for s in TINYLLAMA.shapes().values()) * 2
    script = llama_cpp_source(scratch) / "convert_hf_to_gguf.py"
    work = scratch / "work"
    for path in checkpoint.iterdir():  # warm page cache for both
        path.read_bytes()
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    bf16 = work / "bf16.gguf"
    convert = measure([sys.executable, str(script), str(checkpoint), "--outfile", str(bf16), "--outtype", "bf16"], work)
    rows = []
    for recipe in recipes:
        theirs, ours = work / "theirs.gguf", scratch / "ours" / "ours.gguf"
        shutil.rmtree(ours.parent, ignore_errors=True)
        ours.parent.mkdir()
        quant = measure([sys.executable, "-c", QUANTIZE, str(bf16), str(theirs), str(RECIPES[recipe].ftype), str(THREADS)], work)
        sprig = measure([sys.executable, "-m", "sprig", "quantize", str(checkpoint), "-q", recipe, "-o", str(ours)], ours.parent)
        kernel = kernel_seconds(ours)
        same = same_tensors(ours, theirs)
        peer = convert.seconds + quant.seconds
        cells = [
            recipe,
            megabytes(ours.stat().st_size),
            f"{peer:.1f} s ({convert.seconds:.1f} + {quant.seconds:.1f})",
            f"{sprig.seconds:.1f} s",
            f"**{sprig.seconds / peer:.2f}**",
            f"{kernel:.1f} s",
            f"{sprig.seconds / kernel:.2f}",
            megabytes(max(convert.memory, quant.memory)),
            megabytes(sprig.memory),
            megabytes(max(convert.disk, quant.disk)),
            megabytes(sprig.disk),
            "yes" if same else "NO",
        ]
        rows.append(f"| {' | '.join(cells)} |")
        print(rows[-1], file=sys.stderr, flush=True)
        theirs.unlink()
    shutil.rmtree(work)
    shutil.rmtree(scratch / "ours")
    return [
        f"Checkpoint: {weights / 1e9:.2f} GB BF16, random weights, {TINYLLAMA.layers} layers of width {TINYLLAMA.width}; "
        f"largest tensor {megabytes(largest)}. {platform.machine()}, {THREADS} cores, Python {platform.python_version()}.",
        "",
        "| recipe | output | convert to BF16 + llama_model_quantize | sprig quantize | ratio | kernels alone | sprig / kernels "
        "| peer memory | sprig memory | peer disk | sprig disk | same tensors |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
        *rows,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Sprig's one pass beside convert + llama_model_quantize.")
    parser.add_argument("--recipes", nargs="+", default=["Q4_0", "Q8_0", "Q4_K_M"], choices=list(RECIPES))
    parser.add_argument("--scratch", type=Path, default=Path(os.environ.get("TMPDIR", "/tmp")) / "sprig-bench")
    parser.add_argument("--write", type=Path, help="put the table into this file, between its markers")
    arguments = parser.parse_args()
    arguments.scratch.mkdir(parents=True, exist_ok=True)
    lines = bench(arguments.scratch, arguments.recipes)
    print("\n".join(lines))
    if arguments.write:
        text = arguments.write.read_text()
        begin, end = "<!-- quantize:begin -->", "<!-- quantize:end -->"
        before, rest = text.split(begin, 1)
        after = rest.split(end, 1)[1]
        arguments.write.write_text(f"{before}{begin}\n\n" + "\n".join(lines) + f"\n\n{end}{after}")


if __name__ == "__main__":
    main()
