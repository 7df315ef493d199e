"""A distillation from the outside: two checkpoints and a text go in, a better student comes out that loads where it should."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.errors import CheckpointError, OutputError, SprigError, UnsupportedError
from agent.gguf.reader import read_header
from pipeline import Distilled, distill, quantize
from pipeline.distill import distill as room
from pipeline.distill import memory
from pipeline.distill.data.read import read_lessons
from pipeline.distill.options import DistillOptions
from pipeline.network import extra
from tests.fixtures.later import later
from tests.fixtures.learners import models

torch = later("torch")
transformers = later("transformers")
files = later("safetensors.torch")
loop = later("pipeline.distill.loop")

FEW = DistillOptions(width=16, batch=4, tokens=500, rate=1e-2, bf16=False)


def distilled(
    out: Path, student: str = "student", teacher: str = "teacher", options: DistillOptions = FEW, **more: Any
) -> Distilled:
    data = [models() / "text.txt"]
    return distill(
        str(models() / teacher), str(models() / student), out, **{"data": data, "options": options, "threads": 1, **more}
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return dict(files.load_file(folder / "model.safetensors"))


def same(a: Path, b: Path) -> bool:
    return (a / "model.safetensors").read_bytes() == (b / "model.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("divergence", ["forward", "reverse", "js"])
def test_the_student_comes_nearer_to_its_teacher(divergence: str, tmp_path: Path) -> None:
    result = distilled(tmp_path / "out", options=replace(FEW, divergence=divergence, temperature=2.0, language=0.1))
    assert result.after < 0.98 * result.before
    assert result.best_step == result.steps
    assert result.tokens >= 500
    assert list(tmp_path.iterdir()) == [tmp_path / "out"]


@pytest.mark.slow
def test_the_result_is_a_checkpoint_for_transformers_and_for_quantize(tmp_path: Path) -> None:
    out = tmp_path / "out"
    steps: list[loop.DistillStep] = []
    result = distilled(out, "small", on_step=steps.append)
    model, info = transformers.AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    assert model.dtype == torch.float32
    assert transformers.AutoTokenizer.from_pretrained(out)("a tree").input_ids
    card = (out / "README.md").read_text()
    assert "license: apache-2.0" in card
    assert "- org/original" in card
    assert "`small`, taught by `teacher`" in card
    assert f"{result.before:.4f} before, {result.after:.4f} after" in card
    keys = read_header(quantize(str(out), "Q8_0", tmp_path / "out.gguf", threads=1).path).keys
    assert keys["general.base_model.0.name"] == "original"
    assert result.to_dict()["path"] == str(out)
    assert (out / "runs").is_dir()
    learned = [s for s in steps if s.stage == "learn"]
    assert [s.step for s in learned] == list(range(1, result.steps + 1))
    assert learned[-1].share == 1
    assert learned[-1].seconds_left == 0
    assert all(s.tokens_per_second > 0 for s in learned)


@pytest.mark.slow
@pytest.mark.parametrize("each", [1, 2, 1000])
def test_a_short_run_learns_more_than_it_is_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, each: int) -> None:
    monkeypatch.setattr(loop, "CHECKS", 10)
    monkeypatch.setattr(loop, "STEPS_OF_CHECK", each)
    steps: list[loop.DistillStep] = []
    result = distilled(tmp_path / "out", options=replace(FEW, tokens=300), on_step=steps.append)
    judged = sum(s.stage == "evaluate" for s in steps)
    assert judged == 1 + max(1, min(10, result.steps // each)), "once at the start, once at the end, and as often as it pays"


@pytest.mark.slow
def test_nothing_but_a_configuration_is_a_student_too(tmp_path: Path) -> None:
    for name in ("a", "b"):
        result = distilled(tmp_path / name, "fresh")
        assert result.after < result.before
    assert same(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "a" / "tokenizer.json").read_bytes() == (models() / "teacher" / "tokenizer.json").read_bytes()


@pytest.mark.slow
def test_hidden_states_and_attention_are_learned_across_widths(tmp_path: Path) -> None:
    told: list[loop.DistillStep] = []
    result = distilled(tmp_path / "out", "small", options=replace(FEW, hidden=1.0, attention=1.0), on_step=told.append)
    assert result.after < result.before
    assert not [name for name in weights(tmp_path / "out") if "projection" in name]


@pytest.mark.slow
def test_an_encoder_learns_vectors(tmp_path: Path) -> None:
    result = distilled(tmp_path / "out", "little", "encoder", replace(FEW, hidden=0.5))
    assert result.after < 0.9 * result.before
    model, info = transformers.AutoModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not info["missing_keys"]
    assert type(model).__name__ == "DistilBertModel"
    made = quantize(str(tmp_path / "out"), "F16", tmp_path / "out.gguf", threads=1)
    assert read_header(made.path).keys["bert.block_count"] == 1


@pytest.mark.slow
def test_low_rank_changes_are_merged_and_leave_the_rest_alone(tmp_path: Path) -> None:
    result = distilled(tmp_path / "out", options=replace(FEW, lora=2, rate=1e-2))
    assert result.after < result.before
    assert result.learned < 0.3 * result.parameters
    before, after = weights(models() / "student"), weights(tmp_path / "out")
    assert before.keys() == after.keys()
    for name, weight in after.items():
        change = weight - before[name]
        matrix = weight.ndim == 2 and "embed" not in name
        assert bool(change.any()) == matrix, name
        if matrix:
            assert int(torch.linalg.matrix_rank(change, rtol=1e-4)) <= 2


@pytest.mark.slow
def test_kept_answers_teach_as_the_teacher_does(tmp_path: Path) -> None:
    said: list[str] = []
    live = distilled(tmp_path / "live", options=replace(FEW, tokens=300))
    kept = distilled(tmp_path / "kept", options=replace(FEW, tokens=300, top_k=512), on_note=said.append)
    assert kept.after == pytest.approx(live.after, rel=0.01)
    assert said[0].startswith("the teacher's top 512 of ")
    assert said[0].endswith("on the disk")
    some = distilled(tmp_path / "some", options=replace(FEW, tokens=300, top_k=32))
    assert some.after < some.before < live.before


@pytest.mark.slow
def test_computing_activations_twice_changes_nothing(tmp_path: Path) -> None:
    distilled(tmp_path / "a", options=replace(FEW, tokens=100, rate=1e-3))
    distilled(tmp_path / "b", options=replace(FEW, tokens=100, rate=1e-3, checkpointing=True))
    a, b = weights(tmp_path / "a"), weights(tmp_path / "b")
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_bf16_learns_too(tmp_path: Path) -> None:
    result = distilled(tmp_path / "out", options=replace(FEW, bf16=True))
    assert result.bf16
    assert result.after < result.before
    assert distilled(tmp_path / "measured", options=replace(FEW, tokens=100, bf16=None, top_k=4)).bf16 in (True, False)


@pytest.mark.slow
def test_the_best_is_kept_when_learning_makes_it_worse(tmp_path: Path) -> None:
    result = distilled(tmp_path / "out", options=replace(FEW, rate=3.0))
    assert (result.best_step, result.after) == (0, result.before)
    assert "written as it came" in result.note
    before, after = weights(models() / "student"), weights(tmp_path / "out")
    assert all(torch.equal(before[name], after[name]) for name in after)


@pytest.mark.slow
def test_time_ends_it(tmp_path: Path) -> None:
    result = distilled(tmp_path / "out", options=replace(FEW, tokens=None, minutes=0.02))
    assert 1.2 <= result.seconds < 20
    assert result.steps > 1


@pytest.mark.slow
def test_what_the_memory_does_not_hold_is_said_beforehand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    free = 1_000
    monkeypatch.setattr(memory, "available_memory", lambda: free)
    refused(SprigError, r"the weights of teacher and student take \d+ kB of memory, 1 kB are free", tmp_path / "a")
    free = 300_000
    refused(SprigError, r"learning takes at least .* of memory, 300 kB are free: learn low-rank", tmp_path / "b")

    def full(*args: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.")

    free = 1 << 40
    monkeypatch.setattr(loop, "distilled", full)
    refused(SprigError, r"the memory is at its end in the learning: .*; --checkpointing helps too", tmp_path / "c")


def refused(kind: type[SprigError], match: str, *args: Any, **more: Any) -> None:
    with pytest.raises(kind, match=match) as raised:
        distilled(*args, **more)
    assert "\n" not in str(raised.value)


def test_pairs_that_do_not_fit_are_one_line_and_leave_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    refused(UnsupportedError, r"different vocabularies \(512 and 480 tokens\).*prune the teacher's", out, "stranger")
    refused(UnsupportedError, "teacher tells tokens and encoder gives vectors: both must be", out, "encoder")
    refused(SprigError, "encoder tells no tokens: leave --top-k", out, "little", "encoder", options=replace(FEW, top_k=4))
    refused(SprigError, "teacher reads at most 128 tokens, and a sequence has 256", out, options=replace(FEW, width=256))
    assert list(tmp_path.iterdir()) == []
    few = tmp_path / "few"
    few.mkdir()
    config = json.loads((models() / "fresh" / "config.json").read_text())
    (few / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    refused(UnsupportedError, "the tokenizer has tokens up to 511, teacher knows 512 and few 300: set vocab_size", out, str(few))
    (few / "config.json").write_text(json.dumps(config | {"vocab_size": "many"}))
    refused(CheckpointError, "says no number of tokens", out, str(few))
    (few / "config.json").write_text("{")
    refused(CheckpointError, "cannot be read as JSON", out, str(few))
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    refused(SprigError, "sprig distill needs the train extra", out)


@pytest.mark.slow
def test_too_little_text_is_one_line(tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a tree")
    refused(SprigError, "1 sequences to learn from, and two must be", tmp_path / "out", data=[short])


@pytest.mark.slow
def test_it_is_told_how_far_the_teacher_is_with_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(folder: Path, files: Any, *, width: int, own: int | None, threads: int, on_progress: Any) -> Any:
        assert (own, files) == (None, [])
        assert threads == 1
        on_progress(1, 4)
        return read_lessons(folder, [models() / "text.txt"], width=width)

    monkeypatch.setattr(room, "read_lessons", read)
    told: list[loop.DistillStep] = []
    distilled(tmp_path / "out", data=[], on_step=told.append)
    assert (told[0].stage, told[0].share) == ("write", 0.25)
    assert [step.stage for step in told].count("write") == 1


def test_a_place_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").touch()
    refused(OutputError, "out exists already", out)
    assert list(tmp_path.rglob("*")) == [out, out / "mine"]


def test_options_that_contradict_each_other_are_refused() -> None:
    for match, wrong in (
        ("temperature must be from 0.001 to 1000, and is 0", {"temperature": 0}),
        ("there is no divergence 'sideways'; take one of forward, reverse, js", {"divergence": "sideways"}),
        ("tokens and time both end the learning", {"tokens": 5, "minutes": 1}),
        ("the kept top-k holds no hidden states", {"top_k": 5, "hidden": 1}),
        ("leave the rank of low-rank changes", {"lora": 4, "recipe": "Q4_0"}),
    ):
        with pytest.raises(SprigError, match=match):
            DistillOptions(**wrong)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_it_and_the_best_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = loop.distilled, 0

    def broken(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        return real(*args) * (float("nan") if calls > 8 else 1)

    monkeypatch.setattr(loop, "distilled", broken)
    out = tmp_path / "out"
    refused(
        SprigError,
        r"not a number any more in step \d+; the best so far \(evaluation loss .*\) is kept in .*rate below 0.01",
        out,
    )
    assert not out.exists()
    best = tmp_path / "out.part" / "best"
    transformers.AutoModelForCausalLM.from_pretrained(best)
    before, after = weights(models() / "student"), weights(best)
    assert any(not torch.equal(before[name], after[name]) for name in after)


def test_weights_that_are_no_numbers_are_said_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(models() / "student", broken)
    held = weights(broken)
    held["model.norm.weight"][:] = float("nan")
    files.save_file(held, broken / "model.safetensors", {"format": "pt"})
    refused(SprigError, "not a number any more in step 1; nothing was learned yet", tmp_path / "out", str(broken))
