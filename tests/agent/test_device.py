"""What the machine says it has. Trees in a folder stand for /proc and /sys of machines that are not here."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.device import available_memory, cores

GB = 1 << 30


def machine(root: Path, files: dict[str, str]) -> Path:
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
    assert available_memory(machine(tmp_path, {})) == 8 * GB


def test_the_tightest_enclosing_group_decides_and_cache_counts_as_free(tmp_path: Path) -> None:
    root = machine(tmp_path, {
        "proc/self/cgroup": "0::/user/app\n",
        "sys/fs/cgroup/user/app/memory.max": "max\n",
        "sys/fs/cgroup/user/app/memory.current": f"{GB}\n",
        "sys/fs/cgroup/user/memory.max": f"{3 * GB}\n",
        "sys/fs/cgroup/user/memory.current": f"{2 * GB}\n",
        "sys/fs/cgroup/user/memory.stat": f"anon 5\ninactive_file {GB // 2}\n",
    })  # fmt: skip
    assert available_memory(root) == GB + GB // 2


def test_groups_of_the_first_version_too_also_when_only_the_top_is_mounted(tmp_path: Path) -> None:
    root = machine(tmp_path, {
        "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/abc\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{2 * GB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{GB}\n",
        "sys/fs/cgroup/memory/memory.stat": "total_inactive_file 4096\n",
    })  # fmt: skip
    assert available_memory(root) == GB + 4096


def test_a_group_that_is_over_its_limit_has_nothing_left(tmp_path: Path) -> None:
    root = machine(tmp_path, {
        "proc/self/cgroup": "0::/\n",
        "sys/fs/cgroup/memory.max": "100\n",
        "sys/fs/cgroup/memory.current": "200\n",
    })  # fmt: skip
    assert available_memory(root) == 0
