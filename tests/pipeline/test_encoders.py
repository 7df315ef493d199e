"""From the name of an encoder to a file: what is measured first, what is judged and published, and what stays on the disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import OutputError, SprigError
from agent.files import publish
from agent.gguf.reader import read_header
from pipeline import encoders
from pipeline.calibrate.collect import collect
from pipeline.calibrate.text import CalibrationText
from pipeline.encoders import dry_run, quantize
from pipeline.preflight import Preflight
from pipeline.refine import refine as refining
from pipeline.tune import tune as tuning
from pipeline.tune.tune import TuneResult
from pipeline.tune.write import rewritten
from tests.fixtures.tiny import llama

NORM = "output_norm.weight"
WINDOWS = [[1, *np.random.default_rng(i).integers(3, 286, 160).tolist()] for i in range(4)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(llama(tmp_path_factory.mktemp("encoders") / "tiny.gguf"))


@pytest.fixture(scope="module")
def statistics(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("encoders") / "statistics"
    collect(Path(model), WINDOWS, folder, hessians=True, threads=1)
    return folder


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were measured: on four windows, since a model of noise writes no text worth reading."""
    folders: list[Path] = []

    def measure(model: str, out: Path, *, statistics: Path, **options: Any) -> None:
        folders.append(statistics)
        collect(Path(model), WINDOWS, statistics, hessians=True, threads=1)

    monkeypatch.setattr(encoders, "calibrate", measure)
    return folders


@pytest.fixture
def fake_tuning(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """A tuning without torch, which only doubles a norm; gives the minutes that it was allowed."""
    allowed: list[float] = []

    def tune(gguf: Path, model: Any, out: Path, *, minutes: float, **options: Any) -> TuneResult:
        allowed.append(minutes)
        entry = read_header(gguf).tensors[NORM]
        with rewritten(gguf, out, [(entry, (2 * norm(gguf)).view(np.uint8)[None])]) as part:
            publish(part, out)
        return TuneResult(out, True, 0.2, 0.1, 0.01, 8, 1, 1000, 1.0, 2.0, 64)

    monkeypatch.setattr(tuning, "tune", tune)
    monkeypatch.setattr(encoders, "need_train_extra", lambda what: None)
    return allowed


@pytest.mark.slow
def test_gptq_rounds_again_for_the_rounded_layers_where_the_text_is_known(model: str, statistics: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"encoder": "gptq", "threads": 1}
    once = quantize(model, "Q4_0", tmp_path / "once.gguf", statistics=statistics, **options)
    assert any("the statistics hold no text" in note for note in once.notes)
    known = tmp_path / "statistics"
    shutil.copytree(statistics, known)
    CalibrationText(tuple(map(tuple, WINDOWS)), ("noise",)).save(known / "text.json")
    again = quantize(model, "Q4_0", tmp_path / "again.gguf", statistics=known, **options)
    assert any("were rounded again" in note for note in again.notes)
    assert again.path.read_bytes() != once.path.read_bytes()
    assert again.size == once.size


def test_no_room_for_a_second_rounding_leaves_the_first(
    model: str, statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **options: Any) -> None:
        raise OutputError("no room")

    monkeypatch.setattr(refining, "refine", full)
    known = tmp_path / "statistics"
    shutil.copytree(statistics, known)
    CalibrationText(tuple(map(tuple, WINDOWS)), ("noise",)).save(known / "text.json")
    made = quantize(model, "Q4_0", tmp_path / "a.gguf", statistics=known, encoder="gptq", threads=1)
    assert any(note.endswith("give: no room") for note in made.notes)


def norm(gguf: Path) -> Any:
    entry = read_header(gguf).tensors[NORM]
    return np.fromfile(gguf, np.float32, entry.nbytes // 4, offset=entry.offset)


class FakeGate:
    """Notes the norm of the file that it is shown, and raises what it is told to."""

    line = "as near as it was asked to be"

    def __init__(self, raises: BaseException | None = None) -> None:
        self.seen: list[Any] = []
        self._raises = raises

    def judge(self, file: Path, original: Path | str, **how: Any) -> FakeGate:
        self.seen.append(norm(file))
        if self._raises:
            raise self._raises
        return self

    def to_dict(self) -> dict[str, Any]:
        return {}


def test_a_budget_and_statistics_mean_gptq_and_an_imatrix_means_ggml(model: str, statistics: Path) -> None:
    def planned(**options: Any) -> Preflight:
        plan = dry_run(model, None, "out/", threads=1, **options)
        assert isinstance(plan, Preflight)
        return plan

    measures = "--encoder gptq measures the inputs of the weights first"
    assert any(measures in note for note in planned(bpw=10).notes)
    assert not any(measures in note for note in planned(bpw=10, imatrix=statistics / "imatrix.gguf").notes)
    assert not any(measures in note for note in planned().notes)
    known = planned(statistics=statistics)
    assert known.encoder is not None
    assert known.encoder.name == "gptq"
    assert known.imatrix is not None


@pytest.mark.slow
def test_what_is_measured_for_a_file_goes_when_it_is_done(
    model: str, calibrations: list[Path], statistics: Path, tmp_path: Path
) -> None:
    made = quantize(model, "Q4_0", tmp_path / "a.gguf", encoder="gptq", gate=FakeGate())
    assert calibrations == [tmp_path / "a.gguf.statistics"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "a.md"]
    known = quantize(model, "Q4_0", tmp_path / "b.gguf", statistics=statistics)
    assert read_header(known.path).keys["sprig.encoder"] == "gptq"
    assert made.path.read_bytes() == known.path.read_bytes()
    assert statistics.is_dir()


@pytest.mark.slow
def test_the_tuned_file_is_judged_and_published_and_its_card_says_so(
    model: str, calibrations: list[Path], fake_tuning: list[float], tmp_path: Path
) -> None:
    gate = FakeGate()
    made = quantize(model, "Q4_0", tmp_path / "a.gguf", encoder="tune", minutes=0.5, gate=gate)
    assert fake_tuning == [0.5]
    assert np.array_equal(gate.seen[0], 2 * norm(Path(model)))
    assert np.array_equal(norm(made.path), gate.seen[0])
    assert any("tuned on 1,000 tokens in 1 s: KL divergence on 8 windows 0.2000 -> 0.1000" in note for note in made.notes)
    card = made.card.read_text()
    assert "tuned on 1,000 tokens" in card
    assert gate.line in card
    assert read_header(made.path).keys["sprig.encoder"] == "tune"
    assert json.dumps(made.to_dict())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "a.md"]


@pytest.mark.slow
@pytest.mark.parametrize("who", ["tuning", "gate"])
def test_nothing_is_left_when_the_tuning_or_the_gate_refuses(
    who: str, model: str, calibrations: list[Path], fake_tuning: list[float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    no = SprigError("it is not near enough")
    if who == "tuning":
        monkeypatch.setattr(tuning, "tune", lambda *args, **options: (_ for _ in ()).throw(no))
    with pytest.raises(SprigError, match="not near enough"):
        quantize(model, "Q4_0", tmp_path / "a.gguf", encoder="tune", gate=FakeGate(no if who == "gate" else None))
    assert len(calibrations) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_what_was_measured_stays_for_resume_when_the_run_is_stopped(
    model: str, calibrations: list[Path], fake_tuning: list[float], tmp_path: Path
) -> None:
    unbroken = quantize(model, "Q4_0", tmp_path / "a.gguf", encoder="tune")
    with pytest.raises(KeyboardInterrupt, match="--resume"):
        quantize(model, "Q4_0", tmp_path / "b.gguf", encoder="tune", gate=FakeGate(KeyboardInterrupt()))
    assert (tmp_path / "b.gguf.statistics" / "statistics.json").is_file()
    again = quantize(model, "Q4_0", tmp_path / "b.gguf", encoder="tune", gate=FakeGate(), resume=True)
    assert [folder.name for folder in calibrations] == ["a.gguf.statistics", "b.gguf.statistics"]
    assert again.resumed > 0
    assert again.path.read_bytes() == unbroken.path.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.gguf", "a.md", "b.gguf", "b.md"]


@pytest.mark.parametrize(
    ("recipe", "options", "says"),
    [
        ("F16", {"encoder": "gptq"}, "F16 has none of them"),
        ("Q4_0", {"encoder": "best", "minutes": 1}, "there is no encoder 'best'"),
        ("Q4_0", {"minutes": 1}, "--tune-minutes is for --encoder tune, and this is ggml"),
    ],
)
def test_what_would_fail_is_told_before_anything_is_measured(
    recipe: str, options: dict[str, Any], says: str, model: str, calibrations: list[Path], tmp_path: Path
) -> None:
    for call in (dry_run, quantize):
        with pytest.raises(SprigError, match=says):
            call(model, recipe, tmp_path / "a.gguf", **options)
    assert calibrations == []
    assert list(tmp_path.iterdir()) == []
