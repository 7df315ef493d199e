"""`sprig sweep` as a person runs it: real files, real processes, a real cluster of which a worker is killed."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.quantize import quantize
from pipeline.sweep.step import SweepStep, run_step, take_away
from tests.fixtures.command import environment, one_line, only_json, process, sprig
from tests.fixtures.paths import ROOT
from tests.fixtures.patience import PATIENCE
from tests.fixtures.random_llama import SMALL, write_checkpoint

pytestmark = pytest.mark.slow

PLAN = """
recipes = ["Q8_0", "Q4_0"]
[quantize]
threads = 1
[[model]]
model = "tiny"
"""


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "tiny", SMALL)
    file = tmp_path / "plan.toml"
    file.write_text(PLAN)
    return file


def eventually(seen: Callable[[], object]) -> None:
    end = time.monotonic() + 60 * PATIENCE
    while not seen():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)


def alone(tmp_path: Path, recipe: str) -> bytes:
    """The file that `sprig quantize` makes by itself."""
    return quantize(str(tmp_path / "tiny"), recipe, tmp_path / f"{recipe}.gguf", threads=1).path.read_bytes()


def test_a_plan_is_carried_out_once(plan: Path, tmp_path: Path) -> None:
    told = only_json(sprig("sweep", plan, "--json", "-j", "2", home=tmp_path))
    folder = tmp_path / "plan"
    assert json.loads((folder / "table.json").read_text()) == told
    assert [row["name"] for row in told["files"]] == ["tiny-Q4_0", "tiny-Q8_0"]
    for row in told["files"]:
        made = Path(row["quantized"]["path"])
        assert made == folder / "models" / f"{row['name']}.gguf"
        assert made.stat().st_size == row["size"]
        assert made.with_suffix(".md").is_file()
        assert alone(tmp_path, row["choices"]["recipe"]) == made.read_bytes()
    before = {file: file.stat().st_mtime_ns for file in folder.rglob("*.gguf")}
    again = sprig("sweep", plan, home=tmp_path)
    assert again.returncode == 0
    assert again.stderr == ""
    assert again.stdout.splitlines()[1].startswith("tiny-Q4_0")
    assert {file: file.stat().st_mtime_ns for file in folder.rglob("*.gguf")} == before


def test_files_are_measured_and_reported(plan: Path, tmp_path: Path) -> None:
    pytest.importorskip("pipeline.cli.evaluate", reason="this Sprig has no sprig evaluate")
    (tmp_path / "words.txt").write_text(" ".join(f"word {i * i} follows" for i in range(200)))
    plan.write_text(PLAN + '[evaluate]\ntext = ["words.txt"]\ncontext = 32\nwindows = 3\nthreads = 1\n')
    told = only_json(sprig("sweep", plan, "--json", "-j", "2", home=tmp_path))
    assert told["failed"] == 0
    by_name = {row["name"]: row for row in told["files"]}
    four, eight = by_name["tiny-Q4_0"], by_name["tiny-Q8_0"]
    assert 0 < eight["kld"][0] < four["kld"][0]
    assert eight["over_first"] is None  # the plan's first
    assert four["over_first"][0] == pytest.approx(four["kld"][0] - eight["kld"][0])
    assert four["best"]
    assert len(list((tmp_path / "plan" / "references").glob("*.gguf"))) == 1
    again = only_json(sprig("sweep", plan, "--json", home=tmp_path))
    assert again == told
    for page in told["reports"].values():
        assert "tiny-Q4_0" in Path(page).read_text()


def test_what_fails_is_named_and_the_rest_is_made(plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace('"Q8_0", "Q4_0"', '"Q4_0"') + '[[run]]\nmodel = "tiny"\nrecipe = "Q9_9"\n')
    done = sprig("sweep", plan, home=tmp_path)
    assert done.returncode == 1
    assert "tiny-Q9_9  failed" in done.stdout
    assert "Q9_9" in done.stderr
    assert done.stderr.endswith("sprig: 1 of 2 failed; run the same command again to try them once more\n")
    assert [file.name for file in (tmp_path / "plan" / "models").glob("*.gguf")] == ["tiny-Q4_0.gguf"]


def test_a_plan_with_a_mistake_makes_nothing(plan: Path, tmp_path: Path) -> None:
    plan.write_text(PLAN.replace("threads", "thread"))
    said = one_line(sprig("sweep", plan, home=tmp_path))
    assert said == f"sprig: {plan}, [quantize]: there is no key 'thread'; did you mean threads?\n"
    assert not (tmp_path / "plan").exists()


def test_a_cluster_that_is_not_there(plan: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    said = one_line(sprig("sweep", plan, "--scheduler", "nonsense://x", home=tmp_path))
    assert said.startswith("sprig: no Dask scheduler answers at nonsense://x: ")
    assert not (tmp_path / "plan").exists()


def test_control_c_ends_what_runs_and_keeps_what_is_done(plan: Path, tmp_path: Path) -> None:
    recipes = ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K_M", "Q5_K_M", "Q6_K"]  # so many that one of them runs, however late
    plan.write_text(PLAN.replace('["Q8_0", "Q4_0"]', json.dumps(recipes)))
    line = [sys.executable, "-m", "sprig", "sweep", str(plan), "--json"]
    child = subprocess.Popen(
        line, env=environment(tmp_path, {}), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    eventually(lambda: [*tmp_path.glob("plan/models/*.gguf")] and [*tmp_path.glob("plan/.work-*/*/stderr")])
    child.send_signal(signal.SIGINT)
    said, complaint = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said == ""
    assert complaint.splitlines()[-1] == "sprig: interrupted; what is finished is kept; the same command goes on from there"
    assert not list((tmp_path / "plan").glob(".work-*"))
    kept = list((tmp_path / "plan" / "models").glob("*.gguf"))
    assert 1 <= len(kept) < len(recipes)
    for made in kept:
        assert made.read_bytes() == alone(tmp_path, made.stem.removeprefix("tiny-"))
        assert made.with_suffix(".md").is_file()


@pytest.mark.usefixtures("started")  # the folder is taken away while it starts
def test_a_step_ends_when_nobody_waits_for_it(plan: Path, tmp_path: Path) -> None:
    """A worker that was taken for dead, or whose sweep was interrupted, does not compute on."""
    work = tmp_path / "work"
    work.mkdir()

    def leave() -> None:
        while not any(work.iterdir()):
            time.sleep(0.01)
        take_away(work)

    leaving = threading.Thread(target=leave)
    leaving.start()
    step = SweepStep("a", "quantize", (str(tmp_path / "tiny"), "--recipe=Q8_0"), "k", "models/a.gguf")
    ended = run_step(step, tmp_path, work)
    leaving.join()
    assert ended.error == "nobody waits for it any longer"
    assert not (tmp_path / "models").exists()
    assert not list(tmp_path.glob("work*"))


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[tuple[str, list[subprocess.Popen[bytes]]]]:
    """A scheduler and two workers, as a person starts them: its address, and the processes of the workers."""
    pytest.importorskip("distributed", reason="the cluster extra is not installed")
    told = tmp_path / "scheduler.json"
    log = (tmp_path / "cluster.log").open("wb")

    def start(what: str, *options: str) -> subprocess.Popen[bytes]:
        line = [sys.executable, "-m", f"distributed.cli.dask_{what}", "--scheduler-file", str(told), "--no-dashboard", *options]
        env = environment(tmp_path, {"DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "60s"})
        return subprocess.Popen(line, env=env, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)

    with contextlib.ExitStack() as stack:
        stack.enter_context(log)
        scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0")
        stack.callback(_end, scheduler)
        workers = [
            start("worker", "--no-nanny", "--nthreads", "1", "--host", "127.0.0.1", "--local-directory", str(tmp_path / f"w{i}"))
            for i in range(2)
        ]
        for worker in workers:
            stack.callback(_end, worker)
        eventually(lambda: told.exists() and told.stat().st_size)
        eventually(lambda: (tmp_path / "cluster.log").read_bytes().count(b"Registered to:") == 2)
        yield json.loads(told.read_text())["address"], workers


def _end(child: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def test_a_worker_that_dies_costs_nothing_but_time(
    plan: Path, tmp_path: Path, cluster: tuple[str, list[subprocess.Popen[bytes]]]
) -> None:
    address, workers = cluster
    plan.write_text(PLAN.replace('"Q8_0", "Q4_0"', '"Q8_0", "Q4_0", "Q5_0"'))
    killed: list[bool] = []

    def kill_one_at_work() -> None:
        eventually(lambda: len(list((tmp_path / "far").glob(".work-*/*"))) == 2)
        workers[0].kill()
        killed.append(True)

    killer = threading.Thread(target=kill_one_at_work)
    killer.start()
    far = only_json(process("sweep", plan, "-o", tmp_path / "far", "--scheduler", address, "--json", home=tmp_path))
    killer.join()
    assert killed
    assert workers[0].wait() == -signal.SIGKILL
    assert far["failed"] == 0
    assert len(far["files"]) == 3
    assert not list((tmp_path / "far").glob(".work-*"))
    for row in far["files"]:
        assert Path(row["quantized"]["path"]).read_bytes() == alone(tmp_path, row["choices"]["recipe"])
