"""Which cores a model gets: the big ones of boards and phones that are not here, and what groups and masks leave of them."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.device.features import features, repacked_types
from agent.device.processor import Threads, choose_threads, cores, ranges
from agent.engine.handle import EndStep, Engine
from agent.engine.sampling import Sampling
from agent.gguf.types import ARM_REPACKED
from tests.agent.device.boards import BOARDS, board, write
from tests.fixtures.chat_ggufs import chat_model

ALL = {
    "Raspberry Pi Zero 2 W": 4,
    "Raspberry Pi 3": 4,
    "Raspberry Pi 4": 4,
    "Raspberry Pi 5": 4,
    "RK3566": 4,
    "Jetson Orin Nano": 6,
}
BIG = {
    "RK3399": (4, 5),
    "RK3588": (4, 5, 6, 7),
    "Odroid N2": (2, 3, 4, 5),
    "Snapdragon 8 Gen 2": (3, 4, 5, 6, 7),
    "Snapdragon 8 Gen 3": (2, 3, 4, 5, 6, 7),
    "Pixel 9": (4, 5, 6, 7),
    "Dimensity 9500s": (4, 5, 6, 7),
}
assert {*ALL, *BIG} == {*BOARDS}


@pytest.mark.parametrize(("name", "count"), ALL.items())
def test_where_all_cores_are_alike_all_compute_and_may_move(tmp_path: Path, name: str, count: int) -> None:
    assert choose_threads(board(tmp_path, name)) == Threads(count, count, (), f"{count} cores")


@pytest.mark.parametrize(("name", "big"), BIG.items())
def test_little_cores_are_left_out_whatever_the_kernel_hides(tmp_path: Path, name: str, big: tuple[int, ...]) -> None:
    hidden = [{}, {"capacity": False}, {"capacity": False, "frequency": False}]
    if name == "Dimensity 9500s":
        hidden.pop()  # its slow cores are no little ones: only their clock tells
    count = sum(cluster.count for cluster in BOARDS[name])
    for n, files in enumerate(hidden):
        found = choose_threads(board(tmp_path / str(n), name, **files))
        assert found == Threads(len(big), len(big), big, f"{len(big)} of {count} cores are fast ({ranges(big)})")


def test_a_phone_keeps_one_big_core_for_its_apps_while_tokens_are_written(tmp_path: Path) -> None:
    """28 tokens a second with three threads and 24 with four, and the same time for a prompt (llama.cpp #21763)."""
    found = choose_threads(board(tmp_path, "Dimensity 9500s"), phone=True)
    assert (found.decode, found.prefill, found.cores) == (3, 4, (4, 5, 6, 7))
    assert found.why == "4 of 8 cores are fast (4-7), one left to other apps while tokens are written"


def test_a_core_is_spared_for_the_screen_where_there_are_more_than_three(tmp_path: Path) -> None:
    found = choose_threads(board(tmp_path / "pi", "Raspberry Pi 5"), spare=True)
    assert (found.decode, found.prefill) == (3, 3)
    assert choose_threads(board(tmp_path / "rk", "RK3588"), spare=True).prefill == 4  # the screen has the little ones
    few = write(board(tmp_path / "few", "Raspberry Pi 5"), {"proc/self/status": "Cpus_allowed_list:\t0,2-3\n"})
    assert choose_threads(few, spare=True).prefill == 3


def test_what_a_person_asks_for_is_done_and_kept_on_the_big_cores_if_it_fits_there(tmp_path: Path) -> None:
    root = board(tmp_path, "RK3588")
    assert choose_threads(root, wanted=2) == Threads(2, 2, (4, 5, 6, 7), "2 threads as asked; 4 of 8 cores are fast (4-7)")
    assert choose_threads(root, wanted=6).cores == ()


def test_a_mask_and_an_absent_core_leave_the_rest(tmp_path: Path) -> None:
    root = write(board(tmp_path, "RK3588"), {"proc/self/status": "Cpus_allowed_list:\t0-5\n"})
    assert choose_threads(root).cores == (4, 5)
    write(root, {"sys/devices/system/cpu/cpu4/online": "0\n"})
    assert choose_threads(root).cores == (5,)
    write(root, {"proc/self/status": "Cpus_allowed_list:\t0-3\n"})  # as Android does to what is not on the screen
    assert choose_threads(root) == Threads(4, 4, (), "4 cores")


GROUPS = [
    {"": "0::/app", "app/cpu.max": "250000 100000", "cpu.max": "max 100000"},
    {"": "0::/a/app", "a/app/cpu.max": "max 100000", "a/cpu.max": "200000 100000"},
    {"": "4:cpu,cpuacct:/docker/x", "cpu/cpu.cfs_quota_us": "200000", "cpu/cpu.cfs_period_us": "100000"},
]


@pytest.mark.parametrize("group", GROUPS)
def test_a_groups_share_of_time_is_no_more_threads_than_it_pays_for(tmp_path: Path, group: dict[str, str]) -> None:
    root = write(
        board(tmp_path, "RK3588"), {f"sys/fs/cgroup/{name}" if name else "proc/self/cgroup": said for name, said in group.items()}
    )
    assert choose_threads(root) == Threads(
        2, 2, (4, 5, 6, 7), "4 of 8 cores are fast (4-7), and a limit on this process of 2 cores"
    )
    assert cores(root) == 2


@pytest.mark.parametrize("said", ["max 100000", "-1 100000", "", "100000 0", "x y", "50000 100000"])
def test_no_limit_is_none_and_less_than_a_core_is_one(tmp_path: Path, said: str) -> None:
    root = write(board(tmp_path, "Raspberry Pi 5"), {"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": said})
    assert choose_threads(root).prefill == (1 if said.startswith("50000") else 4)


def test_two_threads_of_one_core_read_a_prompt_and_one_writes(tmp_path: Path) -> None:
    files = {f"sys/devices/system/cpu/cpu{n}/topology/thread_siblings_list": f"{n % 4},{n % 4 + 4}\n" for n in range(8)}
    root = write(tmp_path, {"proc/self/status": "Cpus_allowed_list:\t0-7\n", **files})
    assert choose_threads(root) == Threads(4, 8, (), "8 cores, 4 of them physical")


CPU = "sys/devices/system/cpu/cpu0"
NONSENSE = st.dictionaries(
    st.sampled_from(["proc/self/status", "proc/self/cgroup", "proc/cpuinfo", "sys/fs/cgroup/cpu.max", f"{CPU}/online",
                     f"{CPU}/cpu_capacity", f"{CPU}/topology/thread_siblings_list"]),
    st.text("0123456789-,: \nxcpuCpus_allowed_list\t/processor"),
)  # fmt: skip


@given(NONSENSE)
def test_nonsense_in_these_files_is_one_core_at_least(tmp_path_factory: pytest.TempPathFactory, files: dict[str, str]) -> None:
    found = choose_threads(write(tmp_path_factory.mktemp("root"), files))
    assert found.decode >= 1
    assert found.prefill >= 1


def auxv(root: Path, hwcap: int, hwcap2: int = 0) -> Path:
    root.joinpath("proc/self").mkdir(parents=True)
    root.joinpath("proc/self/auxv").write_bytes(struct.pack("=8Q", 16, hwcap, 26, hwcap2, 6, 4096, 0, 0) + b"odd")
    return root


def test_what_arm_processors_say_of_themselves_decides_what_is_repacked(tmp_path: Path) -> None:
    old, middle, new = (
        auxv(tmp_path / "a72", 0x8FF),
        auxv(tmp_path / "a76", 1 << 20 | 1 << 10),
        auxv(tmp_path / "sd", 1 << 20, 1 << 13),
    )
    assert features(old, "aarch64") == repacked_types(old, "aarch64") == frozenset()
    assert features(middle, "aarch64") == {"dotprod", "fp16"}
    assert features(new, "arm64") == {"dotprod", "i8mm"}
    assert repacked_types(middle, "aarch64") == repacked_types(new, "aarch64") == ARM_REPACKED
    assert features(tmp_path / "nowhere", "aarch64") == frozenset()


def test_what_x86_processors_say_of_themselves_decides_what_is_repacked(tmp_path: Path) -> None:
    new = write(tmp_path / "new", {"proc/cpuinfo": "processor\t: 0\nflags\t\t: fpu sse2 avx avx2 avx512f\nbugs\t\t: spectre\n"})
    assert features(new, "x86_64") == {"avx", "avx2", "avx512f"}
    assert repacked_types(new, "x86_64") == {"Q4_0", "Q4_K", "IQ4_NL", "MXFP4", "Q2_K"}
    old = write(tmp_path / "old", {"proc/cpuinfo": "flags\t\t: fpu sse2 avx\n"})
    assert repacked_types(old, "x86_64") == frozenset()


def test_numbers_are_written_as_the_kernel_writes_them() -> None:
    assert [ranges(n) for n in ([], [3], [0, 1, 2], [0, 1, 2, 5, 7, 8])] == ["", "3", "0-2", "0-2,5,7-8"]


def test_the_threads_of_a_model_stay_on_its_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real worker: whatever it computes with runs where it was told to."""
    last = max(os.sched_getaffinity(0))
    monkeypatch.setattr("agent.engine.handle.choose_threads", lambda **_: Threads(1, 2, (last,), "a test"))
    with Engine(chat_model(tmp_path / "hermes.gguf", "hermes"), context=512) as engine:
        steps = list(engine.generate("c", [1, *range(3, 60)], sampling=Sampling(temperature=0), max_tokens=2))
        threads = list(Path(f"/proc/{engine._connection.child.pid}/task").iterdir())
        assert {frozenset(os.sched_getaffinity(int(thread.name))) for thread in threads} == {frozenset({last})}
    assert isinstance(steps[-1], EndStep)
