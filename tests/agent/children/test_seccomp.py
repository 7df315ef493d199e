"""The filter itself, read as the kernel reads it: on both architectures, whatever this machine is."""

from __future__ import annotations

import itertools
import os
import struct

import pytest

from agent.children import seccomp
from agent.children.seccomp import Strictness

ALL = [Strictness(*flags) for flags in itertools.product((False, True), repeat=4)]
MACHINES = ("x86_64", "aarch64")
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOWED, REFUSED, MISSING = 0x7FFF0000, 0x00050001, 0x00050026
# From the kernel's tables (unistd_64.h, asm-generic/unistd.h), on x86-64 and on aarch64.
EVERYDAY = {
    "read": (0, 63), "write": (1, 64), "openat": (257, 56), "mmap": (9, 222), "fork or clone": (56, 220), "exit": (60, 93),
    "wait4": (61, 260), "pipe2": (293, 59), "futex": (202, 98), "renameat2": (316, 276), "getdents64": (217, 61),
    "ioctl": (16, 29), "kill": (62, 129), "setsid": (112, 157), "socketpair": (53, 199), "rt_sigaction": (13, 134),
}  # fmt: skip
NEVER = {
    "ptrace": (101, 117), "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "bpf": (321, 280), "keyctl": (250, 219),
    "sethostname": (170, 161), "swapoff": (168, 225), "syslog": (103, 116), "reboot": (169, 142), "clock_settime": (227, 112),
    "pidfd_open": (434, 434), "process_vm_writev": (311, 271), "perf_event_open": (298, 241), "init_module": (175, 105),
}  # fmt: skip


def on(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "x", "6", "1", machine)))


def answer(
    monkeypatch: pytest.MonkeyPatch, strict: Strictness, machine: str, number: int, *arguments: int, audit: int = 0
) -> int:
    """What the filter says, by its own rules (bpf(4)); it must end, and stay inside itself."""
    on(monkeypatch, machine)
    raw = seccomp.program(strict)
    steps = list(struct.iter_unpack("<HBBI", raw))
    data = struct.pack(
        "<IIQ6Q", number, audit or AUDIT[machine], 0, *(a & (1 << 64) - 1 for a in (*arguments, 0, 0, 0, 0, 0, 0)[:6])
    )
    place = value = 0
    while True:
        code, yes, no, k = steps[place]
        place += 1
        if code == 0x20:
            (value,) = struct.unpack_from("<I", data, k)
        elif code == 0x06:
            return int(k)
        else:
            true = {0x15: value == k, 0x35: value >= k, 0x45: bool(value & k)}[code]
            place += yes if true else no


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("strict", ALL)
def test_everyday_calls_pass_and_dangerous_ones_do_not(strict: Strictness, machine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    arm = machine == "aarch64"
    for calls, expected in ((EVERYDAY, ALLOWED), (NEVER, REFUSED)):
        for name, pair in calls.items():
            assert answer(monkeypatch, strict, machine, pair[arm]) == expected, name
    for number in (425, 426, 427, 435):  # io_uring, clone3
        assert answer(monkeypatch, strict, machine, number) == MISSING
    assert (answer(monkeypatch, strict, machine, (41, 198)[arm], 2) == ALLOWED) == strict.network
    assert (answer(monkeypatch, strict, machine, (59, 221)[arm]) == ALLOWED) == strict.programs
    assert answer(monkeypatch, strict, machine, (56, 220)[arm], 0x10000000 | 17) == REFUSED  # a user namespace
    assert answer(monkeypatch, strict, machine, 0, audit=0x40000003) == REFUSED  # of another architecture
    if not arm:
        assert answer(monkeypatch, strict, machine, 0x40000000 | 41) == REFUSED
    for request, expected in ((0x5412, REFUSED), (0x541C, REFUSED), (0x5401, ALLOWED)):
        assert answer(monkeypatch, strict, machine, (16, 29)[arm], 0, request) == expected
    guarded = strict.walled and not strict.alone
    assert (answer(monkeypatch, strict, machine, (16, 29)[arm], 3, 0x40086602) == REFUSED) == guarded


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("strict", ALL)
def test_calls_on_other_processes_pass_only_where_there_are_none(
    strict: Strictness, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arm = machine == "aarch64"
    for pair in ((302, 261), (142, 118), (144, 119), (203, 122), (314, 274)):  # prlimit64, sched_set...: the process comes first
        assert answer(monkeypatch, strict, machine, pair[arm], 0, 5) == ALLOWED
        assert (answer(monkeypatch, strict, machine, pair[arm], 77, 5) == ALLOWED) == strict.alone
    for pair, which in (((141, 140), 0), ((251, 30), 1)):  # setpriority, ioprio_set: what kind of number, then which
        assert answer(monkeypatch, strict, machine, pair[arm], which, 0, 9) == ALLOWED
        for arguments in ((which, 77), (2, 0), (which + 1, 0)):
            assert (answer(monkeypatch, strict, machine, pair[arm], *arguments) == ALLOWED) == strict.alone
    for number in ((29, 194), (68, 186), (240, 180)):  # shmget, msgget, mq_open
        assert (answer(monkeypatch, strict, machine, number[arm]) == ALLOWED) == strict.alone


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("strict", ALL)
def test_modes_owners_and_times_by_name_pass_where_something_else_holds_them(
    strict: Strictness, root: bool, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    arm = machine == "aarch64"
    guarded = strict.walled and not strict.alone
    for pair in ((268, 53), (452, 452), (260, 54), (188, 5), (189, 6), (197, 14), (463, 463)):
        assert (answer(monkeypatch, strict, machine, pair[arm]) == REFUSED) == guarded
    if not arm:
        for number in (90, 92, 94, 132, 235, 261):  # the old calls, which aarch64 never had
            assert (answer(monkeypatch, strict, machine, number) == REFUSED) == guarded
    for pair in ((91, 52), (93, 55), (190, 7)):  # of an open file
        assert (answer(monkeypatch, strict, machine, pair[arm]) == REFUSED) == (guarded and root)
    utimensat = (280, 88)[arm]
    assert (answer(monkeypatch, strict, machine, utimensat, 5, 0) == REFUSED) == (guarded and root)
    for path in (1, 1 << 32, 0x7FFF00000000):
        assert (answer(monkeypatch, strict, machine, utimensat, 5, path) == REFUSED) == guarded


def test_every_jump_lands_inside_and_an_unknown_machine_has_no_filter(monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, strict in itertools.product(MACHINES, ALL):
        on(monkeypatch, machine)
        steps = list(struct.iter_unpack("<HBBI", seccomp.program(strict)))
        assert 100 < len(steps) < 4096
        for place, (code, yes, no, _) in enumerate(steps):
            if code & 0x07 == 0x05:
                assert place + 1 + max(yes, no) < len(steps)
        assert steps[-1][0] == 0x06
    on(monkeypatch, "riscv64")
    assert seccomp.program(Strictness()) == b""
    assert not seccomp.install(Strictness())
