"""`sprig fit` and `sprig quantize --device`: from the Hub, a folder, a file or the store, from headers alone."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.device import machine
from agent.device.machine import Load
from agent.errors import SprigError
from agent.fit import calibrate
from agent.fit.machine import recall_machine, remember_machine
from agent.fit.profile import find_profile
from agent.models.file import read_model
from agent.models.memory import plan_load
from pipeline import fit as fitting
from pipeline import quantize
from pipeline.fit import budget_for, model_forms, recipe_for
from pipeline.quantize import dry_run
from pipeline.sources.source import FIRST_READ_BYTES
from tests.fixtures import public_models
from tests.fixtures.command import one_line, only_json, sprig
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.paths import ROOT
from tests.fixtures.random_llama import SMALL, LlamaShape, write_checkpoint

REPO = "sprig-test/tiny-llama"
NARROW = LlamaShape(192, 384, 2, 3, 3, 320, tied=True)  # 256 divides neither of its widths


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "tiny-llama", SMALL, shards=2)


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "narrow", NARROW)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf-home"))
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with LoopbackHub({REPO: folder}) as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def test_of_a_hub_id_only_headers_are_asked_for(hub: LoopbackHub, folder: Path, home: Path, tmp_path: Path) -> None:
    env = {"HF_HOME": str(tmp_path / "hf-home"), "HF_ENDPOINT": hub.url}
    told = only_json(sprig("fit", REPO, "--device", "pi5-2gb", "--json", home=home, **env))
    weights = [r for r in hub.requests if r.path.endswith(".safetensors") and r.method == "GET"]
    assert {r.range for r in weights if r.range} == {f"bytes=0-{FIRST_READ_BYTES - 1}"}
    assert hub.sent("*.safetensors") <= 2 * FIRST_READ_BYTES < sum(f.stat().st_size for f in folder.glob("*.safetensors")) / 4
    assert (told["device"]["name"], told["choice"]) == ("pi5-2gb", "Q8_0")
    assert [one["recipe"] for one in told["recipes"]][:3] == ["F16", "Q8_0", "Q6_K"]
    assert told["verify"] == [f"sprig quantize {REPO} -q Q8_0", "sprig bench tiny-llama-Q8_0"]
    assert {one["basis"] for one in told["basis"]} <= {"measured", "published", "derived"}
    assert all(one["source"] for one in told["basis"])
    best = told["recipes"][1]
    assert best["fits"]
    assert best["contexts"][0]["q8_0"]["cache"] < best["contexts"][0]["f16"]["cache"]
    assert 0 < best["writes_full"] <= best["writes"]


@pytest.mark.parametrize("recipe", ["F16", "Q8_0", "Q4_K_M", "Q3_K_M"])
def test_a_recipes_file_has_the_size_that_quantize_makes(folder: Path, recipe: str, tmp_path: Path) -> None:
    told = next(one for one in model_forms(str(folder)) if one.recipe == recipe).file
    planned = dry_run(str(folder), recipe, tmp_path / "x.gguf")
    assert abs(told.size - planned.size) <= 64  # the header says the recipe's name
    assert told.weights == sum(entry.nbytes for entry in planned.layout.entries)


@pytest.mark.slow
def test_what_is_told_of_a_recipe_is_what_its_file_says_of_itself(folder: Path, home: Path) -> None:
    made = read_model(quantize(str(folder), "Q4_K_M").path)
    told = next(one for one in model_forms(str(folder)) if one.recipe == "Q4_K_M").file
    same = {f.name for f in dataclasses.fields(made)} - {"path", "identity", "size", "sampling", "source", "commit"}
    assert {name: getattr(told, name) for name in same} == {name: getattr(made, name) for name in same}
    # The same file by its name in the store, and how it would be loaded there.
    told_again = only_json(sprig("fit", "tiny-llama-Q4_K_M", "--device", "pi4", "--json", home=home))
    (one,) = told_again["recipes"]
    profile = find_profile("pi4")
    plan = plan_load(made, public_models.device_budget(profile, None), processor=profile.processor)
    assert (one["recipe"], one["size"]) == ("Q4_K_M", made.size)
    assert (one["plan"]["context"], one["plan"]["total"]) == (plan.context, plan.need.total)
    assert told_again["verify"] == ["sprig bench tiny-llama-Q4_K_M"]


@pytest.mark.slow
def test_a_gguf_in_plain_floats_is_shown_as_it_is_and_as_it_could_be(folder: Path, home: Path) -> None:
    made = quantize(str(folder), "F16").path
    found = model_forms(str(made))
    assert [one.recipe for one in found][:3] == ["F16", "Q8_0", "Q6_K"]
    assert found[0].file.identity
    packed = quantize(str(folder), "Q4_0").path
    assert [one.recipe for one in model_forms(str(packed))] == ["Q4_0"]


@pytest.mark.slow
def test_without_the_extra_a_file_is_fitted_and_a_checkpoint_says_what_to_install(
    folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = quantize(str(folder), "F16").path
    for name in ("gguf", "huggingface_hub", "tokenizers", "sentencepiece", "yaml"):
        monkeypatch.setitem(sys.modules, name, None)
    assert [one.recipe for one in model_forms(str(made))] == ["F16"]
    assert only_json(sprig("fit", made, "--device", "pi5", "--json", home=home))["choice"] == "F16"
    assert "pip install '.[pipeline]'" in one_line(sprig("fit", folder, "--device", "pi5", home=home))


def test_a_person_is_told_what_to_take_in_eighty_columns(narrow: Path, home: Path) -> None:
    done = sprig("fit", narrow, "--device", "pi5", home=home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].startswith("narrow on Raspberry Pi 5 with 8 GB: 5.32 GB may be taken")
    (chosen,) = [line for line in lines if line.startswith("> ")]
    assert chosen.split()[1] == "Q8_0"
    assert "slow" in next(line for line in lines if line.split()[:1] == ["Q4_K_M"])
    assert "Take Q8_0: " in done.stdout
    assert "derived: llama.cpp issue 26484" in " ".join(done.stdout.split())
    assert "sprig bench narrow-Q8_0" in " ".join(done.stdout.split())


def test_what_fits_nowhere_is_told_with_what_it_needs(folder: Path, home: Path) -> None:
    done = sprig("fit", folder, "--device", "pi5", "--memory", "30MB", home=home)
    assert done.returncode == 0
    said = " ".join(done.stdout.split())
    assert "It does not fit: none fits: the smallest, " in said
    assert "30 MB may be taken" in said
    assert "sprig bench" not in said


@pytest.mark.usefixtures("home")
def test_this_machine_is_measured_once_when_it_is_quiet(folder: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    profile = dataclasses.replace(find_profile("pi5"), name="", title="a desk", sizes=(8_000_000_000,))
    monkeypatch.setattr(calibrate, "measure_machine", lambda say: measured.append("once") or profile)
    monkeypatch.setattr(machine, "load", lambda: Load(99, 99, 99))
    busy = sprig("fit", folder, home=home)
    assert busy.returncode == 0, busy.stderr
    assert "other programs keep it busy (load 99.0" in busy.stderr
    assert recall_machine() is None
    monkeypatch.setattr(machine, "load", lambda: Load(0, 99, 99))
    for _ in range(2):
        done = sprig("fit", folder, home=home)
        assert done.returncode == 0, done.stderr
        assert "on this machine (a desk)" in done.stdout
    assert measured == ["once", "once"]
    assert sprig("fit", folder, "--measure", home=home).returncode == 0
    assert measured == ["once", "once", "once"]
    saved = sprig("fit", "--save-profile", "desk", home=home)
    assert saved.returncode == 0
    assert str(home / "devices" / "desk.toml") in saved.stdout
    assert " on a desk with 8 GB: " in sprig("fit", folder, "--device", "desk", home=home).stdout


def test_devices_are_listed_and_a_broken_one_among_them(home: Path) -> None:
    (home / "devices").mkdir(parents=True)
    (home / "devices" / "mine.toml").write_text("title = 1")
    done = sprig("fit", "--devices", home=home)
    assert done.returncode == 0
    assert "pi5" in done.stdout
    assert "! " in done.stdout
    assert "mine.toml" in done.stdout
    told = only_json(sprig("fit", "--devices", "--json", home=home))["devices"]
    assert [one["broken"] for one in told if "broken" in one]
    assert next(one for one in told if one.get("name") == "pi5")["names"] == ["pi5-2gb", "pi5-4gb", "pi5-8gb", "pi5-16gb"]


def test_wrong_usage_is_one_line(folder: Path, home: Path) -> None:
    assert "name a model" in one_line(sprig("fit", home=home))
    assert "did you mean pi5?" in one_line(sprig("fit", folder, "--device", "pi6", home=home))
    assert "there is no model" in one_line(sprig("fit", "nothing", "--device", "pi5", home=home))
    assert "were asked for" in one_line(sprig("fit", folder, "--device", "pi5", "-c", "9999", home=home))


# sprig quantize --device


def test_quantize_takes_the_recipe_that_fits_the_device(folder: Path, narrow: Path, home: Path) -> None:
    done = sprig("quantize", folder, "--device", "pi5", "--dry-run", "--json", home=home)
    assert only_json(done)["recipe"] == "Q8_0"
    assert done.stderr.startswith("Q8_0 for a Raspberry Pi 5 with 8 GB (about ")
    given = sprig("quantize", narrow, "-q", "q4_k_m", "--device", "pi5", "--dry-run", "--json", home=home)
    assert only_json(given)["recipe"] == "Q4_K_M"
    assert "slow to read here; Q8_0 would be better" in given.stderr
    assert only_json(sprig("quantize", folder, "--dry-run", "--json", home=home))["recipe"] == "Q4_K_M"


@pytest.mark.usefixtures("home")
def test_what_is_too_large_for_the_device_is_not_made(folder: Path, home: Path) -> None:
    (home / "devices").mkdir(parents=True)
    text = (ROOT / "agent" / "fit" / "profiles" / "zero2w.toml").read_text()
    (home / "devices" / "tag.toml").write_text(text.replace("512MB", "184MB"))
    with pytest.raises(SprigError, match=r"F32 needs 44 MB .*; Q\w+ fits"):
        recipe_for(str(folder), "tag", "F32")
    (home / "devices" / "tag.toml").write_text(text.replace("512MB", "140MB"))
    with pytest.raises(SprigError, match="does not fit a Raspberry Pi Zero 2 W with 140 MB: none fits: the smallest"):
        budget_for(str(folder), "tag")
    assert "does not fit a Raspberry" in one_line(sprig("quantize", folder, "--device", "tag", "--dry-run", home=home))
    assert "there is no device" in one_line(sprig("quantize", folder, "--device", "tog", "--dry-run", home=home))


@pytest.fixture
def headers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Public models in the place of checkpoints: their shapes are known without one."""
    known = {model.name: model for model in public_models.MODELS}
    monkeypatch.setattr(fitting, "_read_headers", lambda name: public_models.headers(known[name]))


@pytest.mark.usefixtures("headers", "home")
@pytest.mark.parametrize(("model", "device"), [
    ("Llama 3.2 1B", "pi5"),  # the speed decides
    ("Llama 3.2 1B", "pi5-2gb"),  # the memory decides
    ("SmolLM2 360M", "pi4"),
    ("Qwen3 4B", "pi5"),  # slow in every form: as fast as the recipe that would be taken
])  # fmt: skip
def test_a_device_is_a_budget_the_largest_file_that_serves(model: str, device: str) -> None:
    found, one = budget_for(model, device), next(one for one in public_models.MODELS if one.name == model)
    recipe = public_models.best(one, device)
    assert recipe is not None
    assert found.recipe is None
    assert found.size is not None
    assert 0.99 * recipe.file.size < found.size < 1.2 * recipe.file.size
    assert {"Q4_0", "IQ4_NL", "Q8_0"} <= set(found.types)
    assert ("Q5_0" in found.types) == (device == "pi4")  # which repacks nothing, so that no type is slow beside others
    assert found.why.startswith("at most ")
    assert "tokens a second with room for " in found.why


@pytest.mark.usefixtures("headers", "home")
def test_where_a_budget_has_nothing_to_choose_a_device_is_a_recipe() -> None:
    assert budget_for("SmolLM2 135M", "pi5").recipe == "Q8_0"  # all of it in the largest type
    assert budget_for("SmolLM2 1.7B", "pi5-2gb").recipe == "Q3_K_M"  # four bits have no room
    some = budget_for("SmolLM2 135M", "pi5", ["Q4_0", "Q6_K"])
    assert (some.recipe, some.types) == (None, ("Q4_0", "Q6_K"))


def test_the_plan_for_a_device_is_that_of_its_budget(folder: Path, home: Path) -> None:
    (home / "devices").mkdir(parents=True)
    text = (ROOT / "agent" / "fit" / "profiles" / "zero2w.toml").read_text()
    (home / "devices" / "tag.toml").write_text(text.replace("512MB", "183MB"))
    found = budget_for(str(folder), "tag")
    assert found.size is not None
    done = sprig("quantize", folder, "--device", "tag", "--dry-run", "--json", home=home)
    told = only_json(done)
    assert told["recipe"].startswith("budget-")
    assert 0.97 * found.size < told["size"] <= found.size
    assert found.why in done.stderr
    assert "needs an importance" not in done.stderr
    assert "--stream needs a recipe" in one_line(sprig("quantize", folder, "--device", "tag", "--stream", home=home))
    both = sprig("quantize", folder, "--device", "tag", "-q", "Q4_0", "--types", "Q4_0", "--dry-run", home=home)
    assert "--types belongs to a budget" in both.stderr
    assert both.returncode == 1


def test_the_table_of_the_guide_is_what_the_arithmetic_says() -> None:
    assert public_models.table() in (ROOT / "docs" / "devices.md").read_text(), "python -m tests.fixtures.public_models prints it"


@pytest.mark.usefixtures("home")
def test_the_picker_reads_the_same_estimate(folder: Path) -> None:
    """It measures nothing: without a measured machine it tells no speed."""
    from tui.offers import look

    made = quantize(str(folder), "Q8_0").path
    assert [row.writes for row in look(None) if row.path == made] == [0.0]  # type: ignore[union-attr]
    remember_machine(dataclasses.replace(find_profile("pi5"), name="", sizes=(8_000_000_000,)))
    ((speed,),) = [[row.writes for row in look(None) if row.path == made]]  # type: ignore[union-attr]
    assert speed > 100
