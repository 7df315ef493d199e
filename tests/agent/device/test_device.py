"""What the machine says it has. Trees in a folder stand for /proc and /sys of machines that are not here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.device import machine
from agent.device.machine import Battery, Load, available_memory
from agent.device.processor import cores

GB = 1 << 30
COOLER = "sys/class/thermal/cooling_device0"


def system(root: Path, files: dict[str, str]) -> Path:
    for name, content in {"proc/meminfo": f"MemTotal: 1\nMemAvailable: {8 * GB // 1024} kB\n", **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_this_machine_has_memory_and_cores() -> None:
    assert 1 << 20 < available_memory() < 1 << 50
    assert 1 <= cores() <= (os.cpu_count() or 1)


def test_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(before)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, before)


def test_without_a_group_it_is_what_the_kernel_says(tmp_path: Path) -> None:
    assert available_memory(system(tmp_path, {})) == 8 * GB


def test_the_tightest_enclosing_group_decides_and_cache_counts_as_free(tmp_path: Path) -> None:
    root = system(tmp_path, {
        "proc/self/cgroup": "0::/user/app\n",
        "sys/fs/cgroup/user/app/memory.max": "max\n",
        "sys/fs/cgroup/user/app/memory.current": f"{GB}\n",
        "sys/fs/cgroup/user/memory.max": f"{3 * GB}\n",
        "sys/fs/cgroup/user/memory.current": f"{2 * GB}\n",
        "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GB // 2}\n",
    })  # fmt: skip
    assert available_memory(root) == GB + GB // 2


def test_groups_of_the_first_version_too_also_when_only_the_top_is_mounted(tmp_path: Path) -> None:
    root = system(tmp_path, {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 4096\n",
    })  # fmt: skip
    assert available_memory(root) == GB + 4096


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    root = system(tmp_path, {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "100\n",
        "sys/fs/cgroup/memory.current": "200\n",
    })  # fmt: skip
    assert available_memory(root) == 0


def test_load_is_read_or_unknown(tmp_path: Path) -> None:
    assert machine.load(system(tmp_path, {"proc/loadavg": "0.50 1.25 2.00 1/100 4242\n"})) == Load(0.5, 1.25, 2.0)
    assert machine.load(system(tmp_path, {"proc/loadavg": "garbage\n"})) is None
    assert machine.load(tmp_path / "nowhere") is None


def test_the_hottest_processor_sensor_counts_and_broken_ones_do_not(tmp_path: Path) -> None:
    zones = "sys/class/thermal/thermal_zone"
    root = system(tmp_path, {
        f"{zones}0/type": "battery\n", f"{zones}0/temp": "90000\n",
        f"{zones}1/type": "cpu-0-0\n", f"{zones}1/temp": "61500\n",
        f"{zones}2/type": "cpu-0-1\n", f"{zones}2/temp": "58000\n",
        f"{zones}3/type": "cpu-broken\n", f"{zones}3/temp": "-273000\n",
        f"{zones}4/type": "soc-stuck\n", f"{zones}4/temp": "0\n",
        f"{zones}5/type": "cpu-odd\n", f"{zones}5/temp": "hot\n",
        f"{zones}6/temp": "70000\n",
    })  # fmt: skip
    assert machine.temperature(root) == 61.5
    assert machine.temperature(system(tmp_path / "b", {f"{zones}0/type": "skin\n", f"{zones}0/temp": "33000\n"})) == 33.0
    assert machine.temperature(system(tmp_path / "c", {f"{zones}0/type": "cpu\n", f"{zones}0/temp": "\n"})) is None
    assert machine.temperature(system(tmp_path / "d", {})) is None


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "0\n"}, ()),
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"}, ("under-voltage", "throttled")),
        (
            {"sys/devices/platform/soc@1/soc@1:firmware/get_throttled": "0xe\n"},
            ("frequency capped", "throttled", "soft temperature limit"),
        ),
        (
            {f"{COOLER}/type": "thermal-cpufreq-0\n", f"{COOLER}/cur_state": "2\n"},
            ("slowed by heat",),
        ),
        ({f"{COOLER}/type": "Processor\n", f"{COOLER}/cur_state": "0\n"}, ()),
        ({f"{COOLER}/type": "pwm-fan\n", f"{COOLER}/cur_state": "4\n"}, None),
        ({"sys/devices/platform/soc/soc:firmware/get_throttled": "garbage\n"}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_why_the_processor_is_slow(tmp_path: Path, files: dict[str, str], told: tuple[str, ...] | None) -> None:
    assert machine.throttling(system(tmp_path, files)) == told


def test_the_battery_is_the_devices_own(tmp_path: Path) -> None:
    supplies = "sys/class/power_supply"
    mouse = {
        f"{supplies}/a-mouse/type": "Battery\n",
        f"{supplies}/a-mouse/scope": "Device\n",
        f"{supplies}/a-mouse/capacity": "7\n",
    }
    mains = {f"{supplies}/ac/type": "Mains\n", f"{supplies}/ac/online": "1\n"}
    own = {
        f"{supplies}/battery/type": "Battery\n",
        f"{supplies}/battery/capacity": "83\n",
        f"{supplies}/battery/status": "Discharging\n",
    }
    found = machine.battery(system(tmp_path / "a", {**mouse, **mains, **own}))
    assert found == Battery(83, "Discharging")
    assert str(found) == "83 %, discharging"
    assert machine.battery(system(tmp_path / "b", {**mouse, **mains})) is None
    broken = {**own, f"{supplies}/battery/capacity": "300\n"}
    assert machine.battery(system(tmp_path / "c", broken)) is None
    unknown = {**own, f"{supplies}/battery/status": "Unknown\n"}
    assert str(machine.battery(system(tmp_path / "d", unknown))) == "83 %"


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ('echo \'{"percentage": 64, "status": "NOT_CHARGING"}\'', Battery(64, "Not charging")),
        ("echo garbage", None),
        ("exit 1", None),
        ("echo '[]'", None),
    ],
)
def test_termux_tells_the_battery_where_android_hides_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str, told: Battery | None
) -> None:
    program = tmp_path / "termux-battery-status"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert machine._termux_battery() == told
