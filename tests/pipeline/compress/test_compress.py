"""A compression with fake commands: what is planned, what is done once however often it is killed, what is chosen."""

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from importlib import import_module
from pathlib import Path

import pytest

from agent.errors import OutputError, RecipeError, SprigError
from pipeline.compress.compress import compress, foresee
from pipeline.compress.plan import COMMANDS as PLANNED
from pipeline.compress.plan import CompressPlan, WayDown, read_compress_plan
from pipeline.compress.report import Compressed
from pipeline.compress.run import at_work, run_job
from pipeline.steps.commands import command_options
from tests.fixtures.random_llama import LlamaShape, write_checkpoint
from tests.pipeline.compress.fakes import FakeRunner

SHAPE = LlamaShape(256, 512, 2, 4, 2, 320)
SIZE = 800_000
WAYS = (
    WayDown("whole"),
    WayDown("ffn", {"ffn": 256}),
    WayDown("taught", {"ffn": 256}, {"tokens": 1000}),
    WayDown("small", {"vocab_size": 288}),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_checkpoint(folder, SHAPE)
    return folder


@pytest.fixture
def plan(model: Path) -> CompressPlan:
    return CompressPlan(str(model), size=SIZE, threads=1, ways=WAYS)


def run(plan: CompressPlan, folder: Path, **fake: object) -> Compressed:
    return compress(plan, out=folder / "out.gguf", runner=FakeRunner(folder / "log", **fake))  # type: ignore[arg-type]


def nothing(*_: object) -> None:
    pass


def began(folder: Path) -> list[str]:
    return (folder / "log").read_text().split()


def test_what_candidates_share_is_done_once(plan: CompressPlan, tmp_path: Path) -> None:
    done = run(plan, tmp_path)
    names = began(tmp_path)
    assert len(names) == len(set(names))
    assert names.count("reference") == 1
    assert [name for name in names if name.endswith(".prune")] == ["ffn.prune"], "what is taught was cut in the same way"
    assert [name for name in names if name.endswith(".bits")] == ["whole.bits", "ffn.bits", "taught.bits", "small.bits"]
    assert "small.evaluate" not in names, "another vocabulary has no divergence"
    stage = done.foreseen.job.stages["ffn.prune"]
    assert f"--statistics={tmp_path}/out.compress/whole.calibrate/statistics" in stage.arguments
    assert "--resume" not in str(stage.arguments)


@pytest.mark.slow
def test_a_second_run_does_nothing_and_gives_the_same(plan: CompressPlan, tmp_path: Path) -> None:
    first = run(plan, tmp_path)
    before, bytes_before = began(tmp_path), first.path.read_bytes()
    again = run(plan, tmp_path)
    assert began(tmp_path) == before
    assert again.path.read_bytes() == bytes_before
    assert again.choice == first.choice
    assert all(answer.kept for answer in again.answers.values())


@pytest.mark.slow
def test_killed_in_every_stage_nothing_is_done_twice_and_the_bytes_are_the_same(plan: CompressPlan, tmp_path: Path) -> None:
    plan = replace(plan, ways=(WAYS[0], WAYS[2]))
    (tmp_path / "quiet").mkdir()
    (tmp_path / "killed").mkdir()
    quiet = run(plan, tmp_path / "quiet")
    folder = tmp_path / "killed"
    job = foresee(plan, out=folder / "out.gguf").job
    for name in job.stages:
        for killed in (name, f"{name}+"):  # half done, and all done but for the answer
            child = os.fork()
            if not child:
                with at_work(folder / "out.compress"):
                    run_job(
                        job, folder / "out.compress", FakeRunner(folder / "log", killed=killed), on_stage=nothing, on_line=nothing
                    )
                os._exit(0)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    done = run(plan, folder)
    names = began(folder)
    for name, stage in job.stages.items():
        assert names.count(name) == (2 if stage.whole else 3), "a result that is whole is not made again"
    assert done.path.read_bytes() == quiet.path.read_bytes()
    assert done.choice == quiet.choice


@pytest.mark.slow
def test_what_changed_is_done_again_and_all_that_rests_on_it(plan: CompressPlan, tmp_path: Path) -> None:
    run(plan, tmp_path)
    before = len(began(tmp_path))
    run(replace(plan, evaluate={"windows": 8}), tmp_path)
    assert {name.partition(".")[2] for name in began(tmp_path)[before:]} == {"evaluate", "bits"}
    before = len(began(tmp_path))
    ways = (*WAYS[:2], replace(WAYS[2], distill={"tokens": 2000}), WAYS[3])
    run(replace(plan, evaluate={"windows": 8}, ways=ways), tmp_path)
    after = began(tmp_path)[before:]
    assert after == ["taught.distill", "taught.distill.calibrate", "taught.quantize", "taught.evaluate", "taught.bits"]


@pytest.mark.slow
def test_another_size_begins_with_what_is_there(plan: CompressPlan, tmp_path: Path) -> None:
    run(plan, tmp_path)
    before = len(began(tmp_path))
    run(replace(plan, size=SIZE + 10_000), tmp_path)
    assert {name.partition(".")[2] for name in began(tmp_path)[before:]} == {"quantize", "evaluate", "bits"}


@pytest.mark.parametrize(
    ("losses", "chosen", "said"),
    [
        ({"whole": 0.3, "ffn": 0.4}, "whole", "nothing that was cut beats the whole model in the same bytes (ffn +0.1000"),
        ({"whole": 0.3, "taught": 0.2}, "taught", "taught beats the whole model in the same bytes: -0.1000 ± 0.0000 nats"),
        ({"whole": 0.3, "taught": 0.2, "small": 0.1}, "small", "-0.2000 ± 0.0000 bits per byte"),
    ],
)
def test_a_cut_model_must_beat_the_whole_one(
    plan: CompressPlan, tmp_path: Path, losses: dict[str, float], chosen: str, said: str
) -> None:
    done = run(plan, tmp_path, losses=losses)
    assert done.choice.chosen == chosen
    assert said in done.choice.why
    assert done.path.read_bytes() == (tmp_path / "out.compress" / f"{chosen}.quantize" / "out.gguf").read_bytes()
    card = done.card.read_text()
    assert card.startswith("# out.gguf\n\nMade by Sprig.\n\n## How it was chosen\n")
    assert f"- Chosen: {done.choice.why}." in card
    assert done.to_dict()["chosen"] == chosen
    assert any(line.startswith(f"{chosen} *") for line in done.lines())


@pytest.mark.slow
def test_a_candidate_that_fails_is_named_and_the_rest_goes_on(plan: CompressPlan, tmp_path: Path) -> None:
    done = run(plan, tmp_path, fails="taught.distill")
    assert done.choice.chosen == "whole"
    assert "taught failed: taught.distill: loss is NaN" in done.choice.why
    assert "taught.quantize" not in began(tmp_path)
    assert "small.bits" in began(tmp_path)
    again = run(plan, tmp_path)
    assert began(tmp_path).count("whole.quantize") == 1
    assert began(tmp_path).count("taught.distill") == 2
    assert not [one for one in again.choice.ways if one.error]


def test_without_the_whole_model_nothing_is_said(plan: CompressPlan, tmp_path: Path) -> None:
    with pytest.raises(SprigError, match=r"nothing can be compared: whole\.quantize: the disk is full"):
        run(plan, tmp_path, fails="whole.quantize", error="the disk is full")
    assert not (tmp_path / "out.gguf").exists()
    assert "ffn.evaluate" in began(tmp_path), "what can be done is done"


def test_a_page_shows_the_candidates(plan: CompressPlan, tmp_path: Path) -> None:
    done = compress(plan, out=tmp_path / "out.gguf", runner=FakeRunner(tmp_path / "log"), report=tmp_path / "page")
    assert done.page == tmp_path / "page" / "index.html"
    text = done.page.read_text()
    assert "taught" in text
    assert "in the same bytes" in text
    assert json.loads((tmp_path / "out.compress" / "report.json").read_text())["chosen"] == "whole"


def test_a_dry_run_writes_nothing(plan: CompressPlan, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("All of this is a line of text.\n\n" * 2000)
    found = foresee(replace(plan, data=(data,)), out=tmp_path / "out.gguf")
    assert sorted(tmp_path.iterdir()) == [data]
    told = found.to_dict()
    assert told["size"] == SIZE
    assert all(stage["seconds"] > 0 and stage["memory"] > 0 for stage in told["stages"])
    assert any(line.startswith("ffn.prune") for line in found.lines())


@pytest.mark.slow
def test_data_is_divided_and_judged_by_what_was_held_out(plan: CompressPlan, tmp_path: Path) -> None:
    data = tmp_path / "data.txt"
    data.write_text("".join(f"Line {i} of a text of many lines.\n\n" for i in range(2000)))
    done = run(replace(plan, data=(data,)), tmp_path)
    texts = tmp_path / "out.compress" / "texts"
    stages = done.foreseen.job.stages
    assert f"--text={texts / 'held' / 'data.txt'}" in stages["whole.evaluate"].arguments
    assert f"--text={texts / 'read' / 'data.txt.txt'}" in stages["whole.calibrate"].arguments
    assert f"--vocab={texts / 'read' / 'data.txt.txt'}" in stages["small.vocab"].arguments
    assert f"--data={texts / 'learn' / 'data.txt'}" in stages["taught.distill"].arguments
    held, rest = (texts / "held" / "data.txt").read_text(), (texts / "learn" / "data.txt").read_text()
    assert sorted((held + rest).splitlines()) == sorted(data.read_text().splitlines())
    before = len(began(tmp_path))
    run(replace(plan, data=(data,)), tmp_path)
    assert len(began(tmp_path)) == before
    data.write_text(data.read_text() + "One line more.\n" * 400)
    run(replace(plan, data=(data,)), tmp_path)
    assert "whole.calibrate" in began(tmp_path)[before:]
    assert "reference" not in began(tmp_path)[before:]


def test_a_budget_that_cannot_be_met_says_the_smallest_that_can(model: Path, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot be 1,000 bytes \(1 kB\): the smallest of these candidates has [\d,]+ "):
        foresee(CompressPlan(str(model), size=1000), out=tmp_path / "out.gguf")


def test_a_budget_that_holds_all_of_it_cuts_nothing(model: Path, tmp_path: Path) -> None:
    found = foresee(CompressPlan(str(model), size=50_000_000), out=tmp_path / "out.gguf")
    assert [way.way.name for way in found.job.ways] == ["whole"]
    assert "--recipe=Q8_0" in found.job.stages["whole.quantize"].arguments
    assert "whole.calibrate" not in found.job.stages


def test_few_bits_propose_a_cut_and_time_lets_it_learn(model: Path, tmp_path: Path) -> None:
    plan = CompressPlan(str(model), size=790_000, threads=1)
    found = foresee(plan, out=tmp_path / "out.gguf")
    assert [way.way.name for way in found.job.ways] == ["whole", "ffn"]
    assert "nothing learns again: no --time was given" in found.notes
    taught = foresee(replace(plan, time=7200.0), out=tmp_path / "out.gguf")
    way = taught.job.ways[1].way
    assert way.distill is not None
    assert int(way.distill["tokens"]) % 1024 == 0
    assert taught.seconds < 7200
    short = foresee(replace(plan, time=60.0), out=tmp_path / "out.gguf")
    assert [way.way.name for way in short.job.ways] == ["whole"]
    assert "ffn is left out: there is no time for it" in short.notes


def test_every_plan_is_beaten_or_not_by_the_whole_model(model: Path, tmp_path: Path) -> None:
    found = foresee(CompressPlan(str(model), size=SIZE, ways=WAYS[1:2]), out=tmp_path / "out.gguf")
    assert [way.way.name for way in found.job.ways] == ["whole", "ffn"]


def test_no_room_is_said_before_anything_runs(plan: CompressPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(import_module("pipeline.compress.run"), "free_disk", lambda path: 1000)
    with pytest.raises(
        OutputError, match=r"out.compress needs about \d+ MB more, and 1 kB are free: make room, or name another place"
    ):
        run(plan, tmp_path)
    assert not (tmp_path / "log").exists()


def test_an_unknown_device_is_named_with_the_nearest(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SprigError, match="there is no device 'pi6'; did you mean pi"):
        foresee(CompressPlan(str(model), device="pi6"), out=tmp_path / "out.gguf")


def test_a_device_gives_the_size(model: Path, tmp_path: Path) -> None:
    found = foresee(CompressPlan(str(model), device="pi5"), out=tmp_path / "out.gguf")
    assert found.size > 0
    assert "Raspberry Pi 5" in found.why


def test_two_runs_in_one_folder_do_not_mix(plan: CompressPlan, tmp_path: Path) -> None:
    work = tmp_path / "out.compress"
    with at_work(work), pytest.raises(OutputError, match="another run"):
        run(plan, tmp_path)
    assert [one.name for one in work.iterdir()] == [".lock"]


def test_an_interruption_says_what_is_kept(plan: CompressPlan, tmp_path: Path) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="what is finished is kept; the same command goes on from there"):
        compress(plan, out=tmp_path / "out.gguf", runner=FakeRunner(tmp_path / "log"), on_line=stop)


@pytest.mark.slow
def test_the_plan_that_was_run_lies_in_the_work_folder(plan: CompressPlan, tmp_path: Path) -> None:
    done = run(plan, tmp_path)
    commands = {name: command_options(name) for name in PLANNED}
    again = read_compress_plan(tmp_path / "out.compress" / "plan.toml", commands)
    assert again.ways == done.foreseen.plan.ways
    assert again.size == SIZE
