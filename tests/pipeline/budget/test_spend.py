"""`sprig quantize --size`: a real run on a small model, from the probes to a file of that size, and what is kept of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import OutputError, RecipeError, UnsupportedError
from agent.gguf.reader import read_header
from pipeline.budget import divergence, spend
from pipeline.budget.divergence import Divergence
from pipeline.budget.errors import Rounder
from pipeline.budget.sensitivity import read_sensitivity
from pipeline.preflight import Preflight
from pipeline.quantize import dry_run, quantize
from pipeline.recipes import budget
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.fixtures.shared import shared

TYPES = ("Q8_0", "Q5_K", "Q4_0")
SHAPE = replace(SMALL, layers=2, vocab=640, tied=True)  # the embedding is a large part
TEXT = "The quick brown fox jumps over the lazy dog, and then it sleeps for 10 hours. " * 12


@pytest.fixture(scope="module")
def model() -> Path:
    return shared("budget-model", lambda folder: write_checkpoint(folder / "model", SHAPE)) / "model"


@pytest.fixture(scope="module")
def measured(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home in which the model was measured, in a few types and on one window."""
    folder = tmp_path_factory.mktemp("measured")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPRIG_HOME", str(folder))
        patch.setattr(spend, "texts", lambda: [TEXT])
        patch.setattr(divergence, "WINDOWS", 1)
        patch.setattr(budget, "FAST", TYPES)
        before = planned(model, bpw=5.5)
        assert any("the types are a guess" in note for note in before.notes)
        made = quantize(str(model), None, folder / "first.gguf", bpw=5.5, threads=1)
        assert before.size <= 5.5 * before.n_weights / 8
        assert {n: c.type for n, c in planned(model, bpw=5.5).choices.items()} == {
            n: c.type for n, c in made.preflight.choices.items()
        }
    return folder


@pytest.fixture(scope="module")
def sensitivity(measured: Path) -> Path:
    """The file of what was measured."""
    (file,) = (measured / "sensitivity").iterdir()
    assert file.name == f"model-{read_sensitivity(file).identity[:12]}.json"
    return file


@pytest.fixture(autouse=True)
def few_types_and_own_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spend, "texts", lambda: [TEXT])
    monkeypatch.setattr(divergence, "WINDOWS", 1)
    monkeypatch.setattr(budget, "FAST", TYPES)


def planned(model: Path, **options: object) -> Preflight:
    plan = dry_run(str(model), None, "out/", threads=1, **options)  # type: ignore[arg-type]
    assert isinstance(plan, Preflight)
    return plan


@pytest.mark.parametrize("bits", [4.8, 5.5, 7.0, 8.3])
def test_the_budget_is_spent_and_not_passed(bits: float, model: Path, sensitivity: Path) -> None:
    plan = planned(model, bpw=bits, sensitivity=sensitivity)
    assert plan.size <= bits * plan.n_weights / 8 < plan.size * 1.01  # of a model with 15 matrices
    assert {kind for kind in plan.types if kind != "F32"} <= set(TYPES)
    assert any("the types are the solver's" in note for note in plan.notes)


@pytest.mark.slow
def test_the_file_has_the_size_and_says_what_it_is(model: Path, sensitivity: Path, tmp_path: Path) -> None:
    most = planned(model, bpw=6.0, sensitivity=sensitivity).size
    made = quantize(str(model), None, f"{tmp_path}/", size=most, sensitivity=sensitivity, threads=1)
    header = read_header(made.path)
    assert made.path.stat().st_size == made.size <= most
    assert re.fullmatch(r"model-budget-[\d.]+MB\.gguf", made.path.name)
    assert header.keys["sprig.recipe"] == made.recipe == made.path.stem.removeprefix("model-")
    usual = {k: n for k, n in made.types.items() if k != "F32"}
    assert len(usual) > 1
    assert header.keys["general.file_type"] > 1
    assert set(tmp_path.iterdir()) == {made.path, made.card}


@pytest.mark.slow
def test_what_another_budgets_file_has_is_not_quantized_again(model: Path, sensitivity: Path, tmp_path: Path) -> None:
    """Tensors of the same type are copied from the file beside; the result is what a run alone makes."""
    options = {"sensitivity": sensitivity, "threads": 1}
    first = quantize(str(model), None, f"{tmp_path}/", bpw=5.5, **options)  # type: ignore[arg-type]
    second = quantize(str(model), None, f"{tmp_path}/", bpw=6.0, **options)  # type: ignore[arg-type]
    alone = quantize(str(model), None, f"{tmp_path / 'alone'}/", bpw=6.0, **options)  # type: ignore[arg-type]
    assert first.resumed == alone.resumed == 0
    plan = second.preflight
    same = {n for n, c in plan.choices.items() if first.preflight.choices[n] == c}
    assert 0 < len(same) < len(plan.choices)
    assert second.resumed == sum(entry.nbytes for entry in plan.layout.entries if entry.name in same)
    assert second.path.read_bytes() == alone.path.read_bytes()


@pytest.mark.slow
def test_the_file_of_another_model_or_imatrix_lends_nothing(model: Path, sensitivity: Path, tmp_path: Path) -> None:
    made = quantize(str(model), None, f"{tmp_path}/", bpw=5.5, sensitivity=sensitivity, threads=1)
    raw = made.path.read_bytes()
    weights = str(read_header(made.path).keys["sprig.weights"]).encode()
    assert weights.decode() == read_sensitivity(sensitivity).identity
    made.path.write_bytes(raw.replace(weights, weights[::-1]))
    (tmp_path / "model-broken.gguf").write_bytes(raw[:100])
    again = quantize(str(model), None, f"{tmp_path}/", bpw=6.0, sensitivity=sensitivity, threads=1)
    assert again.resumed == 0


@pytest.mark.slow
def test_more_bytes_lose_less(model: Path, sensitivity: Path) -> None:
    losses = read_sensitivity(sensitivity).losses()
    spent = [planned(model, bpw=bits, sensitivity=sensitivity) for bits in (5.0, 6.0, 8.0)]
    lost = [sum(losses[n][c.type.name] for n, c in plan.choices.items() if n in losses) for plan in spent]
    assert lost[0] > lost[1] > lost[2] > 0


@pytest.mark.slow
def test_what_was_measured_is_used_again_and_only_new_types_are_measured(
    model: Path, sensitivity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "copy.json"
    file.write_bytes(sensitivity.read_bytes())
    asked: list[list[str]] = []
    real = Rounder.shares

    def watched(self, work, name, kinds):  # type: ignore[no-untyped-def]
        asked.append([kind.name for kind in kinds])
        return real(self, work, name, kinds)

    monkeypatch.setattr(Rounder, "shares", watched)
    quantize(str(model), None, tmp_path / "a.gguf", bpw=5.2, sensitivity=file, threads=1)
    assert asked == []
    quantize(str(model), None, tmp_path / "b.gguf", bpw=5.2, types=("Q4_0", "Q5_0"), sensitivity=file, threads=1)
    assert asked
    assert {kind for kinds in asked for kind in kinds} == {"Q5_0"}
    before, after = (read_sensitivity(path) for path in (sensitivity, file))
    assert after.probes[: len(before.probes)] == before.probes
    assert [(p.group, p.type) for p in after.probes[len(before.probes) :]] == [("token_embd.weight", "Q5_0")]
    times = len(asked)
    quantize(str(model), None, tmp_path / "c.gguf", bpw=5.2, types=("Q4_0", "Q5_0"), sensitivity=file, threads=1)
    assert len(asked) == times


def test_types_that_a_person_named_stay(model: Path, sensitivity: Path) -> None:
    plan = planned(model, bpw=7.0, sensitivity=sensitivity, tensor_types=[("attn_v", "Q4_K")], embedding_type="Q4_0")
    assert {c.type.name for n, c in plan.choices.items() if "attn_v" in n} == {"Q4_K"}
    assert plan.choices["token_embd.weight"].type.name == "Q4_0"


@pytest.mark.parametrize("bits", [1.0, 30.0])
def test_a_budget_that_cannot_be_names_both_limits(bits: float, model: Path, sensitivity: Path) -> None:
    with pytest.raises(
        RecipeError, match=r"cannot be [\d,]+ bytes .*: with Q8_0, .* it has [\d,]+ to [\d,]+ bytes \(4\.\d+ to 8\.\d+ bits"
    ):
        planned(model, bpw=bits, sensitivity=sensitivity)


def test_the_sensitivity_of_another_model_is_refused(sensitivity: Path, tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "other", SHAPE, seed=5)
    with pytest.raises(RecipeError, match="was measured on another model"):
        planned(tmp_path / "other", bpw=5.5, sensitivity=sensitivity)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "sprig sensitivity 1"}', "sliced", "NaN"])
def test_a_broken_sensitivity_is_one_line(content: str, model: Path, sensitivity: Path, tmp_path: Path) -> None:
    file, whole = tmp_path / "broken.json", sensitivity.read_text()
    file.write_text(
        {"sliced": whole[: len(whole) // 2], "NaN": re.sub(r'"kld": [\d.e-]+', '"kld": NaN', whole)}.get(content, content)
    )
    with pytest.raises(RecipeError, match=r"broken\.json is no .*sensitivity.*measure it again") as told:
        planned(model, bpw=5.5, sensitivity=file)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bpw": 5.0, "size": "1MB"}, "give one of them"),
        ({"types": ("Q4_0",)}, "--types belongs to a budget"),
        ({"size": "much"}, "'much' is not a size"),
        ({"bpw": 5.0, "pure": True}, "--pure and a budget"),
        ({"bpw": 5.0, "types": ("Q9",)}, "not a type"),
        ({"bpw": 5.0, "stream": True}, "--stream keeps none"),
        ({"bpw": float("nan")}, "cannot be"),
    ],
)
def test_what_makes_no_sense_is_said(options: dict[str, object], said: str, model: Path) -> None:
    with pytest.raises(RecipeError, match=re.escape(said)):
        planned(model, **options)


def test_a_recipe_and_a_budget_are_one_too_many(model: Path) -> None:
    with pytest.raises(RecipeError, match="'Q4_0' and a budget both choose"):
        dry_run(str(model), "Q4_0", None, bpw=5.0)


def test_a_model_that_writes_no_text_is_refused(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeFile:
        causal = False

    monkeypatch.setattr(spend, "read_model", lambda path: FakeFile())
    with pytest.raises(UnsupportedError, match="writes no text"):
        quantize(str(model), None, tmp_path / "x.gguf", bpw=5.0, sensitivity=tmp_path / "s.json", threads=1)
    assert list(tmp_path.iterdir()) == []


def test_too_little_disk_for_the_copies_is_told_before_anything_is_made(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend, "free_disk", lambda folder: 1000)
    with pytest.raises(OutputError, match=r"measuring needs \d MB in .*, 1 kB free"):
        quantize(str(model), None, tmp_path / "x.gguf", bpw=5.0, sensitivity=tmp_path / "s.json", threads=1)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_was_stopped_while_it_measured_is_gone_on_with(
    model: Path, sensitivity: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, real, asked = tmp_path / "s.json", Divergence.of, 0

    def interrupted(self: Divergence, path: Path) -> float:
        nonlocal asked
        asked += 1
        if asked == 4:
            raise KeyboardInterrupt
        return real(self, path)

    monkeypatch.setattr(Divergence, "of", interrupted)
    with pytest.raises(KeyboardInterrupt, match="--resume goes on from what was measured"):
        quantize(str(model), None, tmp_path / "a.gguf", bpw=5.5, sensitivity=file, threads=1)
    assert [path.name for path in tmp_path.iterdir()] == ["s.json"]
    whole, half = read_sensitivity(sensitivity), read_sensitivity(file)
    assert (half.errors, half.probe_errors, half.probes) == (whole.errors, whole.probe_errors, whole.probes[:3])
    left = len(whole.probes) - 3
    assert any(f"a run measures 0 tensors and {left} probes first" in n for n in planned(model, bpw=5.5, sensitivity=file).notes)
    quantize(str(model), None, tmp_path / "a.gguf", bpw=5.5, sensitivity=file, threads=1)
    assert asked == 4 + left
    assert read_sensitivity(file) == whole
