"""How this machine is measured: with stand-ins that llama.cpp takes, from times to figures, remembered and given away."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.device.processor import Threads
from agent.errors import SprigError
from agent.fit import calibrate, machine
from agent.fit.bench import BenchResult, Way, bench_file
from agent.fit.calibrate import TYPES, _measure, measure_machine
from agent.fit.machine import recall_machine, remember_machine, save_profile
from agent.fit.profile import DeviceProfile, find_profile
from agent.fit.stand_in import StandIn
from agent.gguf.reader import read_header

LAYER, PACKED, PLAIN, ATTENTION, EACH, BANDWIDTH = 0.2e-3, 40e9, 20e9, 15e9, 50e-9, 5e9


def fake_bench(shape: StandIn, prompt: int, generate: int) -> BenchResult:
    """A machine that is as fast as the constants say, and has a slow run among its three."""
    rate = PLAIN if shape.type in ("Q5_0", "F16") else PACKED
    read = 2 * shape.weights / rate + 4 * shape.layers * shape.width * prompt / 2 / ATTENTION + shape.layers * shape.width * EACH
    write = shape.layers * LAYER + shape.nbytes / BANDWIDTH
    return BenchResult((1 / read, 0.5 / read, 1 / read), (0.6 / write, 1 / write) if generate else (), 0.1, 1)


@pytest.fixture
def measured() -> DeviceProfile:
    return _measure(fake_bench, lambda line: None)


def test_figures_are_found_again_in_the_times(measured: DeviceProfile) -> None:
    decode, prefill = measured.decode, measured.prefill
    assert decode.layer.value == pytest.approx(1e3 * LAYER, rel=0.01)
    assert {k: round(v.value, 2) for k, v in decode.types.items()} == {kind: pytest.approx(5.0, rel=0.01) for kind in TYPES}
    assert prefill.types["Q4_0"].value == pytest.approx(PACKED / 1e9, rel=0.01)
    assert prefill.types["Q5_0"].value == pytest.approx(PLAIN / 1e9, rel=0.01)
    assert prefill.attention.value == pytest.approx(ATTENTION / 1e9, rel=0.01)
    assert prefill.elementwise is not None
    assert prefill.elementwise.value == pytest.approx(1e-9 / EACH, rel=0.01)
    assert decode.layer.basis == "measured"


def test_noise_never_makes_a_figure_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    def noisy(shape: StandIn, prompt: int, generate: int) -> BenchResult:
        slow = 50.0 if shape.layers == 6 else 1.0  # the wide ones were disturbed, and a longer prompt was not slower
        return BenchResult((1 / slow,), (1 / slow,) if generate else (), 0.1, 1)

    found = _measure(noisy, lambda line: None)
    assert found.decode.layer.value >= 0
    assert all(
        figure.value > 0 for figure in (*found.decode.types.values(), *found.prefill.types.values(), found.prefill.attention)
    )


@pytest.mark.usefixtures("home")
def test_what_was_measured_is_remembered_for_this_machine(measured: DeviceProfile, home: Path) -> None:
    assert recall_machine() is None
    remember_machine(measured)
    found = recall_machine()
    assert found is not None
    assert (found.decode, found.prefill, found.processor) == (measured.decode, measured.prefill, measured.processor)
    (kept,) = (home / "cache" / "machine").iterdir()
    kept.write_text("title = 1")
    assert recall_machine() is None


@pytest.mark.usefixtures("home")
def test_another_machine_is_not_this_one(measured: DeviceProfile, monkeypatch: pytest.MonkeyPatch) -> None:
    remember_machine(measured)
    monkeypatch.setattr(machine.features, "features", lambda: frozenset({"dotprod"}))
    assert recall_machine() is None


def test_a_profile_is_kept_under_a_name_and_is_then_a_device(measured: DeviceProfile, home: Path) -> None:
    path = save_profile(measured, "kitchen-pi")
    assert path == home / "devices" / "kitchen-pi.toml"
    assert find_profile("kitchen-pi").decode == measured.decode
    for name in ("", "../x", "A", "a b", ".x"):
        with pytest.raises(SprigError, match="cannot be the name of a device"):
            save_profile(measured, name)


@pytest.mark.parametrize("kind", TYPES)
def test_a_stand_in_is_a_file_of_the_size_that_it_says(kind: str, tmp_path: Path) -> None:
    shape = StandIn(kind, width=256, ffn=512, layers=2, vocab=64)
    header = read_header(shape.write(tmp_path / "x.gguf"))
    assert sum(entry.nbytes for entry in header.tensors.values()) == shape.nbytes
    assert header.keys["llama.block_count"] == 2
    assert {entry.type.name for entry in header.tensors.values()} == {kind, "F32"}


@pytest.mark.slow
def test_llama_cpp_computes_with_a_stand_in(tmp_path: Path) -> None:
    path = StandIn("Q4_K", width=256, ffn=512, layers=2, vocab=64).write(tmp_path / "x.gguf")
    way = Way(Threads(1, 1, (), ""), 256, "f16", repack=True)
    found = bench_file(str(path), "a stand-in", way, prompt=16, generate=4, repeat=2, own_time=True)
    assert len(found.prefill) == len(found.decode) == 2
    assert min(*found.prefill, *found.decode) > 0


@pytest.mark.slow
def test_a_machine_is_measured_for_real_and_nothing_is_left(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "TYPES", ("Q8_0", "Q4_0"))
    monkeypatch.setattr(calibrate, "_WIDE", StandIn("Q8_0", 512, 1024, 2, 256))
    monkeypatch.setattr(calibrate, "_DEEP", StandIn("Q8_0", 256, 256, 4, 256))
    monkeypatch.setattr(calibrate, "_LONG_PROMPT", 128)
    said: list[str] = []
    found = measure_machine(said.append)
    assert [line.split(":")[0] for line in said] == ["Q8_0", "Q4_0"]
    assert set(found.decode.types) == {"Q8_0", "Q4_0"}
    assert list((home / "cache").iterdir()) == []


def test_a_machine_that_cannot_be_written_on_is_one_line(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / "cache").write_text("in the way")
    with pytest.raises(SprigError, match="this machine cannot be measured"):
        measure_machine(lambda line: None)
