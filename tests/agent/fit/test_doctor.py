"""What the doctor says of this machine, and of boards that are not well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from agent.device.features import features
from agent.errors import SprigError
from agent.fit import doctor, measure
from agent.fit.build import Build, read_build
from agent.fit.doctor import Finding, examine, judge_build
from agent.models.memory import MemoryBudget
from tests.agent.device.boards import board, write
from tests.fixtures.command import only_json, sprig


def findings(root: Path = Path("/")) -> dict[str, Finding]:
    return {one.about: one for one in examine(root)}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measured and tried elsewhere: here is what was found."""
    monkeypatch.setattr(measure, "memory_bandwidth", lambda threads: 11e9)
    monkeypatch.setattr(measure, "storage_speed", lambda folder: 90e6)
    monkeypatch.setattr(doctor, "read_build", lambda: Build("0.3.36", frozenset({"dotprod", "avx2"})))


@pytest.mark.slow
def test_this_machine_is_looked_at_in_text_and_in_json(home: Path) -> None:
    text = sprig("doctor", home=home)
    assert text.returncode == 0
    assert [line.split()[0] for line in text.stdout.splitlines() if line[:1].isalpha()][:4] == [
        "processor", "threads", "llama.cpp", "memory",
    ]  # fmt: skip
    told = only_json(sprig("doctor", "--json", home=home))
    assert {one["about"] for one in told["findings"]} >= {"processor", "threads", "llama.cpp", "memory", "bandwidth", "storage"}
    assert told["faults"] == sum(bool(one["costs"]) for one in told["findings"])
    assert all(one["mend"] for one in told["findings"] if one["costs"])


def test_the_library_says_what_it_was_built_for() -> None:
    build = read_build()
    assert build.version
    assert build.features <= features() | {"avx512_vnni", "avx_vnni"}


def test_a_library_that_cannot_be_loaded_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = tmp_path / "llama_cpp"
    broken.mkdir()
    (broken / "__init__.py").touch()
    (broken / "llama_cpp.py").write_text("import os; os.kill(os.getpid(), 4)")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(SprigError, match=r"llama\.cpp cannot be loaded: ") as error:
        read_build()
    assert "\n" not in str(error.value)


@pytest.mark.usefixtures("quick", "home")
def test_a_board_that_is_well_has_nothing_to_mend(tmp_path: Path) -> None:
    root = write(board(tmp_path, "RK3588"), {
        "proc/device-tree/model": "Radxa ROCK 5B\0", "sys/class/thermal/thermal_zone0/type": "soc-thermal\n",
        "sys/class/thermal/thermal_zone0/temp": "47000\n", "proc/meminfo": "MemAvailable: 6000000 kB\n",
        "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    })  # fmt: skip
    found = findings(root)
    assert [one for one in found.values() if one.costs and one.about != "sandbox"] == []
    assert found["processor"].found.startswith("Radxa ROCK 5B, 8 cores, ")
    assert found["threads"].found == "4 to write, 4 to read: 4 of 8 cores are fast (4-7)"
    assert found["bandwidth"].found == "memory is read at 11 GB/s: at most 11 tokens/s for a model of 1 GB"
    assert found["heat"].found.startswith("47 °C")


CLOCK = "sys/devices/system/cpu/cpu0/cpufreq"
ILL: dict[str, tuple[dict[str, str], str, str, str]] = {
    "clock": ({f"{CLOCK}/scaling_governor": "powersave"}, "clock", "half the speed", "scaling_governor"),
    "supply": ({"sys/devices/platform/soc/soc:firmware/get_throttled": "50005"}, "heat", "below its speed", "power supply"),
    "throttled": ({"sys/devices/platform/soc/soc:firmware/get_throttled": "4"}, "heat", "below its speed", "fan"),
    "hot": (
        {"sys/class/thermal/thermal_zone0/type": "cpu-thermal", "sys/class/thermal/thermal_zone0/temp": "84000"},
        "heat", "about to slow down", "fan",
    ),
}  # fmt: skip


@pytest.mark.usefixtures("quick", "home")
@pytest.mark.parametrize("ill", ILL)
def test_what_is_wrong_with_a_board_has_its_price_and_its_cure(tmp_path: Path, ill: str) -> None:
    files, about, costs, mend = ILL[ill]
    found = findings(write(board(tmp_path, "Raspberry Pi 5"), files))[about]
    assert costs in found.costs
    assert mend in found.mend


def test_a_governor_of_that_name_on_a_pc_is_no_fault(tmp_path: Path) -> None:
    steered = {f"{CLOCK}/scaling_governor": "powersave", f"{CLOCK}/scaling_driver": "intel_pstate"}
    root = write(board(tmp_path, "Raspberry Pi 5"), steered)
    assert [one.about for one in doctor._processor(root)] == ["processor", "threads"]


def test_a_build_that_leaves_a_feature_unused_says_what_that_costs() -> None:
    upstream = judge_build(Build("0.3.36", frozenset()), frozenset({"dotprod", "fp16"}), frozenset({"Q4_0"}))
    assert upstream.found.endswith("dotprod is not used")
    assert "half the speed" in upstream.costs
    assert "GGML_NATIVE=ON" in upstream.mend
    assert judge_build(Build("0.3.36", frozenset({"dotprod"})), frozenset({"dotprod"}), frozenset({"Q4_0"})).costs == ""


def test_too_little_memory_a_slow_card_and_no_sandbox(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MemoryBudget, "of", lambda memory: MemoryBudget(200_000_000, ""))
    assert "smallest models" in doctor._memory(Path("/")).costs
    slow: Callable[[Path], float] = lambda folder: 20e6  # noqa: E731
    monkeypatch.setattr(measure, "storage_speed", slow)
    assert doctor._storage().costs == "a model of 1 GB takes 50 s to load"
    monkeypatch.setattr(measure, "storage_speed", lambda folder: None)
    assert "no model can be kept there" in doctor._storage().costs
    for held, found in (("none", "nothing holds commands"), ("seccomp", "commands are held by seccomp alone")):
        monkeypatch.setattr(doctor.process, "report", lambda held=held: held)
        assert (doctor._sandbox().found, doctor._sandbox().mend) == (found, "allow user namespaces, see docs/approval.md")


@pytest.mark.slow
def test_memory_and_disk_are_measured_for_real(tmp_path: Path) -> None:
    assert 1e8 < measure.memory_bandwidth(1) < 1e12
    speed = measure.storage_speed(tmp_path / "not" / "made")
    assert speed is not None
    assert speed > 1e6
    assert list(tmp_path.iterdir()) == []
    assert measure.storage_speed(Path("/proc/self")) is None
