"""The order of a sweep's steps, what is done again and what is not; the commands themselves are not run here."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OutputError
from pipeline.steps import command as steps
from pipeline.sweep.plan import SweepPlan, read_plan
from pipeline.sweep.step import StepResult, SweepStep, finished, run_step
from pipeline.sweep.steps import steps_of
from pipeline.sweep.sweep import sweep
from pipeline.sweep.table import rows_of, table_text
from tests.pipeline.sweep.test_plan import EVALUATE, QUANTIZE

PLAN = """
recipes = ["Q4_0", "Q8_0"]
[[model]]
model = "org/a"
[[model]]
model = "org/b"
[evaluate]
windows = 4
"""
SIZES = {"a-Q4_0": 50, "a-Q8_0": 90, "b-Q4_0": 70, "b-Q8_0": 95}


class FakeExecutor(Executor):
    """Notes the steps and answers as the commands would, without running them; what ``fails`` names fails."""

    def __init__(self, fails: str = "", broken: str = "") -> None:
        self.ran: list[str] = []
        self.fails, self.broken = fails, broken

    def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        step, folder, work = args
        assert work.is_dir()
        self.ran.append(step.name)
        future: Future[Any] = Future()
        if step.name == self.broken:
            future.set_exception(RuntimeError("worker tcp://a\ndied"))
        elif step.name == self.fails:
            future.set_result(StepResult(step.name, None, 1.0, "out of memory"))
        else:
            future.set_result(keep(step, folder))
        return future


def keep(step: SweepStep, folder: Path) -> StepResult:
    name = step.name.partition(".")[0]
    size = SIZES.get(name, 200)
    result: dict[str, Any] = {"size": size, "weights": 100}
    if step.makes:
        (folder / step.makes).write_bytes(bytes(size))
    else:
        kld = {"value": 10 / size if name != "b-Q8_0" else 1.0, "error": 0.01}
        windows = [{"domain": d, "tokens": 10, "kld": kld["value"] + more, "nll": 1.0} for d, more in (("en", 0.1), ("zh", -0.1))]
        overall = {"kld": kld, "top1": {"value": 0.75, "error": None}}
        result = {"candidates": [{"weights": 100, "overall": overall, "per_window": windows}]}
    kept = {"key": step.key, "size": size if step.makes else 0, "seconds": 2.0, "result": result}
    (folder / "results" / f"{step.name}.json").write_text(json.dumps(kept))
    return StepResult(step.name, result, 2.0)


def plan(tmp_path: Path, text: str = PLAN) -> SweepPlan:
    file = tmp_path / "plan.toml"
    file.write_text(text)
    return read_plan(file, QUANTIZE, EVALUATE)


def test_a_file_is_measured_when_it_and_its_reference_are_there(tmp_path: Path) -> None:
    executor, seen = FakeExecutor(), []
    ended = sweep(
        plan(tmp_path), tmp_path / "out", executor, on_step=lambda step, done, steps: seen.append((step.name, done, steps))
    )
    assert len(ended) == 4 + 2 + 4
    assert sorted(executor.ran) == sorted(ended)
    for name in SIZES:
        measured = executor.ran.index(f"{name}.evaluate")
        assert executor.ran.index(f"{name}.quantize") < measured
        assert next(i for i, ran in enumerate(executor.ran) if ran.startswith(name[0]) and ran.endswith(".reference")) < measured
    assert seen[-1][1:] == (10, 10)
    assert not list((tmp_path / "out").glob(".work-*"))


def test_what_is_finished_is_not_done_again(tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = sweep(plan(tmp_path), out, FakeExecutor())
    again = FakeExecutor()
    assert sweep(plan(tmp_path), out, again) == first
    assert again.ran == []
    more = FakeExecutor()
    sweep(plan(tmp_path, PLAN.replace('"Q8_0"', '"Q8_0", "Q5_0"')), out, more)
    assert sorted(more.ran) == ["a-Q5_0.evaluate", "a-Q5_0.quantize", "b-Q5_0.evaluate", "b-Q5_0.quantize"]


def test_what_changed_is_done_again_and_all_that_rests_on_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    sweep(plan(tmp_path), out, FakeExecutor())
    (out / "models" / "a-Q4_0.gguf").write_bytes(b"cut")
    cut = FakeExecutor()
    sweep(plan(tmp_path), out, cut)
    assert cut.ran == ["a-Q4_0.quantize"]  # the same bytes come again, so its figures stand
    longer = FakeExecutor()
    sweep(plan(tmp_path, PLAN.replace("windows = 4", "windows = 8")), out, longer)
    assert sorted(longer.ran) == [f"{name}.evaluate" for name in SIZES]
    (out / "results" / "b-Q4_0.evaluate.json").write_text('{"key": ')  # as no Sprig leaves it
    torn = FakeExecutor()
    sweep(plan(tmp_path, PLAN.replace("windows = 4", "windows = 8")), out, torn)
    assert torn.ran == ["b-Q4_0.evaluate"]


def test_an_input_that_was_replaced_counts_as_another(tmp_path: Path) -> None:
    text = '[[run]]\nmodel = "org/a"\nrecipe = "Q4_0"\nimatrix = "i.gguf"\n[evaluate]'
    imatrix = tmp_path / "i.gguf"
    imatrix.write_bytes(b"one")
    before = steps_of(plan(tmp_path, text), tmp_path)
    assert before == steps_of(plan(tmp_path, text), tmp_path)
    imatrix.write_bytes(b"two")
    os.utime(imatrix, ns=(1, 1))
    after = steps_of(plan(tmp_path, text), tmp_path)
    changed = [name for name, step in after.items() if step.key != before[name].key]
    assert changed == ["a-Q4_0.quantize", "a-Q4_0.evaluate"]


def test_one_that_fails_holds_up_only_what_needs_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    wanted = plan(tmp_path)
    reference = next(name for name in steps_of(wanted, out) if name.startswith("a-") and name.endswith(".reference"))
    executor = FakeExecutor(fails=reference, broken="b-Q4_0.quantize")
    ended = sweep(wanted, out, executor)
    assert ended["a-Q4_0.evaluate"].error == f"{reference} failed, which it needs"
    assert ended["b-Q4_0.quantize"].error == "no worker could run it: RuntimeError: worker tcp://a died"
    rows = {row.name: row for row in rows_of(wanted.files, ended)}
    assert [name for name, row in rows.items() if not row.error] == ["b-Q8_0"]
    assert rows["a-Q8_0"].size == 90
    assert rows["b-Q4_0"].size is None
    second = FakeExecutor()
    ended = sweep(wanted, out, second)
    assert not [step for step in ended.values() if step.error]
    assert "b-Q8_0.evaluate" not in second.ran


def test_threads_that_the_plan_names_win_over_a_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[list[str]] = []

    def launch(module: str, line: list[str], *_: object, **__: object) -> None:
        lines.append(line)
        raise OSError("no process")

    monkeypatch.setattr(steps, "launch", launch)
    wanted = plan(tmp_path, "recipes = ['Q4_0']\n[quantize]\nthreads = 3\n[[model]]\nmodel = 'org/a'")
    with ThreadPoolExecutor(1) as executor:
        sweep(wanted, tmp_path / "out", executor, threads=1)
    (line,) = lines
    assert [one for one in line if one.startswith("--threads")] == ["--threads=1", "--threads=3"], "the last one counts"


def test_a_scheduler_that_is_gone_is_named(tmp_path: Path) -> None:
    class Gone(Executor):
        def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            assert future.cancel()
            future.set_running_or_notify_cancel()
            return future

    wanted = plan(tmp_path)
    assert {row.error.partition(":")[0] for row in rows_of(wanted.files, sweep(wanted, tmp_path / "out", Gone()))} == {
        "it was called off"
    }


def test_a_worker_that_does_not_see_the_folder_says_so(tmp_path: Path) -> None:
    step = next(iter(steps_of(plan(tmp_path), tmp_path / "elsewhere").values()))
    said = run_step(step, tmp_path / "elsewhere", tmp_path / "elsewhere" / ".work-0").error
    assert said.endswith(f"does not see {tmp_path / 'elsewhere'}; all workers must share it, at the same path")


def test_two_runs_in_one_folder_do_not_mix(tmp_path: Path) -> None:
    class Meanwhile(FakeExecutor):
        def submit(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
            with pytest.raises(OutputError, match="another run"):
                sweep(plan(tmp_path), tmp_path / "out", FakeExecutor())
            return super().submit(function, *args, **kwargs)

    sweep(plan(tmp_path), tmp_path / "out", Meanwhile())


def test_an_interruption_says_what_is_kept(tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="what is finished is kept"):
        sweep(plan(tmp_path), tmp_path / "out", FakeExecutor(), on_step=stop)
    assert not list((tmp_path / "out").glob(".work-*"))
    step = next(iter(steps_of(plan(tmp_path), tmp_path / "out").values()))
    assert finished(step, tmp_path / "out") is not None


def test_the_table_marks_what_no_smaller_file_beats(tmp_path: Path) -> None:
    wanted = plan(tmp_path)
    rows = rows_of(wanted.files, sweep(wanted, tmp_path / "out", FakeExecutor()))
    assert [row.name for row in rows if row.best] == ["a-Q4_0", "a-Q8_0", "b-Q4_0"]
    assert table_text(rows).splitlines() == [
        "file          size  bits/weight         mean KLD        over first  same top-1  seconds",
        "a-Q4_0 *  50 bytes         4.00  0.2000 ± 0.0100                        75.0 %        4",
        "a-Q8_0 *  90 bytes         7.20  0.1111 ± 0.0100  -0.0889 ± 0.0000      75.0 %        4",
        "b-Q4_0 *  70 bytes         5.60  0.1429 ± 0.0100                        75.0 %        4",
        "b-Q8_0    95 bytes         7.60  1.0000 ± 0.0100  +0.8571 ± 0.0000      75.0 %        4",
    ]
    assert json.loads(json.dumps([row.to_dict() for row in rows]))[0]["kld"] == [0.2, 0.01]
