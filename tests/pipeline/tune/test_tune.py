"""A tuning from the outside: a GGUF and its checkpoint go in, the same codes with better scales come out, proved in llama.cpp."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.engine.trial import trial
from agent.errors import CheckpointError, SprigError, UnsupportedError
from agent.gguf.check import check
from agent.gguf.reader import TensorEntry
from agent.progress import Progress
from pipeline import quantize
from pipeline.format.ggml import Bytes, Floats
from pipeline.forward.process import ForwardProcess
from pipeline.model import from_checkpoint
from pipeline.network import extra
from pipeline.recipes.names import find_recipe
from pipeline.sources.source import open_checkpoint, open_source, read_config
from pipeline.tune import tune as room
from pipeline.tune.scales import has_scales, split
from pipeline.tune.tune import TuneResult, tune
from tests.fixtures.checkpoints import save
from tests.fixtures.corpus import CODE, SCRIPTS
from tests.fixtures.later import later, needs
from tests.fixtures.shared import shared
from tests.fixtures.tokenizers import make_tokenizer

needs("transformers")
torch = later("torch")
build = later("pipeline.network.build")
loop = later("pipeline.tune.train")
students = later("pipeline.tune.student")
WIDTH = 32
TEXT = ["\n".join([*SCRIPTS, *CODE])]


def made(case: str, recipe: str) -> tuple[Path, Path]:
    """A tiny checkpoint of transformers' own, and a GGUF of it."""

    def make(folder: Path) -> None:
        save(case, folder / "hf")
        make_tokenizer("smollm2", folder / "hf", 512)
        for kind in {recipe, "F32"}:
            quantize(str(folder / "hf"), kind, folder / f"{kind}.gguf", threads=1)

    folder = shared(f"tune-{case}-{recipe}", make)
    return folder / "hf", folder / f"{recipe}.gguf"


def tuned(case: str, recipe: str, out: Path, *, steps: int = 8, texts: list[str] = TEXT) -> TuneResult:
    checkpoint, gguf = made(case, recipe)
    return tune(gguf, str(checkpoint), out, texts=texts, steps=steps, width=WIDTH, threads=1)


def divergence(reference: Path, candidate: Path) -> float:
    """Of the whole distributions, over the tuning's own text."""
    with (
        ForwardProcess(reference, n_ctx=256, n_outputs=256, threads=1) as a,
        ForwardProcess(candidate, n_ctx=256, n_outputs=256, threads=1) as b,
    ):
        ids = a.tokenize(TEXT[0])[:256]
        p, q = (x - np.log(np.exp(x).sum(-1, keepdims=True)) for x in (a.logits(ids).astype(float), b.logits(ids).astype(float)))
    return float((np.exp(p) * (p - q)).sum(-1).mean())


@pytest.mark.slow
@pytest.mark.parametrize(("case", "recipe"), [("llama-tied-biases", "Q4_0"), ("gemma3-linear", "Q4_1")])
def test_the_tuned_file_is_nearer_to_the_original_in_llama_cpp(case: str, recipe: str, tmp_path: Path) -> None:
    out = tmp_path / "tuned.gguf"
    result = tuned(case, recipe, out)
    _, gguf = made(case, recipe)
    assert result.tuned
    assert result.after < result.before - 2 * result.error
    assert result.to_dict()["path"] == str(out)
    assert f"{result.before:.4f} -> {result.after:.4f}" in result.note
    reference = gguf.with_name("F32.gguf")
    assert divergence(reference, out) < divergence(reference, gguf)
    assert trial(out).finite
    assert list(tmp_path.iterdir()) == [out]
    before = check(gguf)
    assert check(out).raw_keys == before.raw_keys
    for entry in before.tensors.values():
        old, new = (rows_of(path, entry) for path in (gguf, out))
        assert (old != new).any()
        if has_scales(entry.type):
            ours, theirs = (split(rows, entry.type, entry.shape[-1]) for rows in (old, new))
            np.testing.assert_array_equal(ours.codes, theirs.codes)
            np.testing.assert_allclose(ours.scales, theirs.scales, rtol=0.05)


@pytest.mark.slow
def test_so_many_steps_give_the_same_file_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        tuned("llama-tied-biases", "Q4_0", tmp_path / name, steps=2)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def rows_of(path: Path, entry: TensorEntry) -> Bytes:
    raw = students.read_bytes(path)[entry.offset : entry.offset + entry.nbytes]
    return np.ascontiguousarray(raw.reshape(-1, entry.type.row_size(entry.shape[-1])))


@pytest.mark.slow
def test_minutes_end_it_and_a_file_may_be_tuned_in_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = loop.Allowance
    monkeypatch.setattr(loop, "Allowance", lambda until, steps: real(min(until, time.monotonic() + 0.5), steps))
    checkpoint, gguf = made("llama-tied-biases", "Q4_0")
    place = tmp_path / "model.gguf"
    shutil.copyfile(gguf, place)
    seen: list[Progress] = []
    result = tune(
        place, str(checkpoint), place, texts=TEXT, minutes=1, width=WIDTH, threads=1,
        on_progress=seen.append,
    )  # fmt: skip
    assert result.path == place
    assert result.steps >= 1
    assert list(dict.fromkeys(step.stage for step in seen)) == ["teacher", "check", "tune"]
    assert (seen[-1].stage, seen[-1].share) == ("check", 1)
    assert all(0 <= step.share <= 1 for step in seen)
    assert (place.read_bytes() != gguf.read_bytes()) == result.tuned
    assert list(tmp_path.iterdir()) == [place]


@pytest.mark.slow
def test_the_time_holds_within_a_step_also_on_a_busy_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, gguf = made("llama-tied-biases", "Q4_0")
    real = loop._logits

    def busy(network: Any, windows: Any) -> Any:
        time.sleep(0.03 * len(windows))
        return real(network, windows)

    monkeypatch.setattr(loop, "_logits", busy)
    out = tmp_path / "out.gguf"
    for minutes in (0.0, 0.02, 0.05):
        begun = time.monotonic()
        result = tune(gguf, str(checkpoint), out, texts=TEXT, minutes=minutes, width=WIDTH, threads=1)
        assert time.monotonic() - begun < 60 * minutes + 6  # a step takes tenths; torch and llama.cpp load first
        if not result.steps:
            assert "the time was over before a step" in result.note
            assert out.read_bytes() == gguf.read_bytes()
            assert not result.tuned
    assert list(tmp_path.iterdir()) == [out]


def test_a_run_without_time_makes_no_step() -> None:
    assert loop.Allowance(until=0.0).spent(0) == 1
    assert loop.Allowance(until=0.0, steps=4).spent(1) == 0.25


@pytest.mark.slow
def test_what_is_not_better_stays_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "RATE", 0.5)  # it runs away, and goes back to where it began
    result = tuned("llama-tied-biases", "Q4_0", tmp_path / "out.gguf", steps=8)
    assert not result.tuned
    assert result.steps < 8, "two checks without gain end it"
    assert result.after == result.before
    assert "was left out" in result.note
    assert (tmp_path / "out.gguf").read_bytes() == made("llama-tied-biases", "Q4_0")[1].read_bytes()


CASES = ["qwen3-tied", "gemma4", "phi3", "granite-biases", "gpt2", "lfm2", "olmo2"]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_student_says_what_llama_cpp_says_of_the_file(case: str) -> None:
    checkpoint, gguf = made(case, "Q4_0")
    source = open_source(str(checkpoint))
    ids = [int(i) for i in np.random.default_rng(0).integers(3, 512, 40)]
    with open_checkpoint(source) as opened:
        network = build.build(read_config(source), opened)
    original = logits_of(network, ids)
    student = students.Student(network, from_checkpoint(source, find_recipe("F32")), check(gguf), students.read_bytes(gguf))
    assert student.learned > 1000
    ours = logits_of(network, ids)
    with ForwardProcess(gguf, n_ctx=64, n_outputs=64, threads=1) as process:
        theirs = process.logits(ids)
        assert np.std(ours - theirs) < 0.25 * np.std(original - theirs), "llama.cpp rounds activations, and no more differs"


def logits_of(network: Any, ids: list[int]) -> Floats:
    with torch.no_grad():
        found: Floats = network(input_ids=torch.tensor([ids]), use_cache=False).logits[0].numpy()
    return found


def refused(kind: type[SprigError], match: str, gguf: Path, model: Path, out: Path, texts: list[str] = TEXT) -> None:
    with pytest.raises(kind, match=match) as e:
        tune(gguf, str(model), out, texts=texts, steps=1, width=WIDTH, threads=1)
    assert "\n" not in str(e.value)
    assert not out.exists()


@pytest.mark.slow
def test_what_cannot_be_tuned_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint, gguf = made("llama-tied-biases", "Q4_0")
    other, _ = made("gemma3-linear", "Q4_1")
    out = tmp_path / "out.gguf"
    refused(SprigError, "the text gives 0 windows of 32 tokens; a tuning needs 384 tokens", gguf, checkpoint, out, ["short"])
    refused(CheckpointError, "the GGUF is not made of this checkpoint: .* in the file", gguf, other, out)
    refused(UnsupportedError, "is a GGUF; a tuning learns from the checkpoint", gguf, gguf, out)
    stranger = tmp_path / "stranger"
    shutil.copytree(checkpoint, stranger)
    save("llama-tied-biases", stranger, seed=8)
    refused(CheckpointError, "as far from stranger as blind guessing", gguf, stranger, out)
    monkeypatch.setattr(extra, "find_spec", lambda name: None)
    refused(
        SprigError, r"needs the train extra \(torch, transformers, safetensors not found\): pip install", gguf, checkpoint, out
    )


def test_a_model_that_transformers_computes_otherwise_is_refused() -> None:
    plan = room._Plan(Path("x.gguf"), open_source(str(made("llama-tied-biases", "Q4_0")[0])), 0, None, WIDTH, 0, 1, print)
    room._same(plan, np.array([0.11]), np.array([0.10]), 3.0)
    with pytest.raises(UnsupportedError, match="do not compute the same"):
        room._same(plan, np.array([0.60]), np.array([0.10]), 3.0)
