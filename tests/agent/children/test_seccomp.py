"""The filter itself, read as the kernel reads it: on both architectures, whatever this machine is."""

from __future__ import annotations

import errno
import itertools
import os
import struct
from collections.abc import Callable, Iterable

import pytest

from agent.children import seccomp
from agent.children.seccomp import Strictness
from tests.fixtures.forked import forked
from tests.fixtures.system_calls import NUMBERS

ALL = [Strictness(*flags) for flags in itertools.product((False, True), repeat=4)]
MACHINES = ("x86_64", "aarch64")
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_...
ALLOWED, REFUSED, MISSING = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS


def words(text: str) -> list[str]:
    return text.split()


# What is refused, by name. A name that an architecture does not have is left out there.
ALWAYS = words("""
ptrace process_vm_readv process_vm_writev kcmp pidfd_open pidfd_send_signal pidfd_getfd process_madvise process_mrelease
migrate_pages move_pages
mount umount2 pivot_root chroot setns unshare open_tree open_tree_attr move_mount fsopen fsconfig fsmount fspick mount_setattr
open_by_handle_at personality
bpf perf_event_open userfaultfd kexec_load kexec_file_load init_module finit_module delete_module add_key request_key keyctl
fanotify_init lookup_dcookie lsm_set_self_attr
sethostname setdomainname swapon swapoff syslog reboot settimeofday clock_settime clock_adjtime adjtimex acct quotactl quotactl_fd
vhangup iopl ioperm nfsservctl uselib
""")
SHARED = words("shmget shmat shmctl semget semop semctl semtimedop msgget msgsnd msgrcv msgctl mq_open mq_unlink")
NAMED_FILES = words("""
chmod fchmodat fchmodat2 chown lchown fchownat utime utimes futimesat setxattr lsetxattr setxattrat removexattr lremovexattr
removexattrat file_setattr
""")
OPEN_FILES = words("fchmod fchown fsetxattr fremovexattr")
ABSENT = words("clone3 io_uring_setup io_uring_enter io_uring_register")
# The arguments with which a call is about the calling process alone: no process, PRIO_PROCESS (0), IOPRIO_WHO_PROCESS (1).
ON_ITSELF = {
    **dict.fromkeys(words("prlimit64 sched_setparam sched_setscheduler sched_setaffinity sched_setattr"), (0,)),
    "setpriority": (0, 0),
    "ioprio_set": (1, 0),
}


class Filter:
    """The rules of a filter, and what they say of a call (bpf(4)); they must end, and stay inside themselves."""

    def __init__(self, raw: bytes, machine: str) -> None:
        self.steps = list(struct.iter_unpack("<HBBI", raw))
        self.machine = machine

    def __call__(self, call: str | int, *arguments: int, audit: int = 0) -> int:
        number = NUMBERS[self.machine][call] if isinstance(call, str) else call
        data = struct.pack("<IIQ6Q", number, audit or AUDIT[self.machine], 0, *(*arguments, 0, 0, 0, 0, 0, 0)[:6])
        place = value = 0
        while True:
            code, yes, no, k = self.steps[place]
            place += 1
            if code == 0x15:  # BPF_JMP | BPF_JEQ
                place += yes if value == k else no
            elif code == 0x20:  # BPF_LD | BPF_W | BPF_ABS
                (value,) = struct.unpack_from("<I", data, k)
            elif code == 0x06:  # BPF_RET
                return int(k)
            else:
                place += yes if {0x35: value >= k, 0x45: bool(value & k)}[code] else no


Make = Callable[..., Filter]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes the filter of a machine, for root or another user."""

    def new(strict: Strictness, machine: str, *, root: bool = False) -> Filter:
        monkeypatch.setattr(os, "uname", lambda: os.uname_result(("Linux", "x", "6", "1", machine)))
        monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
        return Filter(seccomp.program(strict), machine)

    return new


def refused_by_name(strict: Strictness, root: bool) -> set[str]:
    """What a filter says no to where all arguments are nothing."""
    names = {*ALWAYS}
    names |= set() if strict.network else {"socket"}
    names |= set() if strict.programs else {"execve", "execveat"}
    if not strict.alone:
        names |= {*SHARED, "ioprio_set"}  # for ioprio_set, nothing names nobody
        if strict.walled:
            names |= {*NAMED_FILES, *([*OPEN_FILES, "utimensat"] if root else [])}
    return names


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize(
    ("strict", "root"),
    [(Strictness(), False), (Strictness(network=True), False), (Strictness(programs=False), False),
     (Strictness(alone=True), True), (Strictness(walled=True), False), (Strictness(walled=True), True),
     (Strictness(walled=True, alone=True), True)],
)  # fmt: skip
def test_of_all_the_kernels_calls_those_are_refused_that_reach_out_and_no_other(
    strict: Strictness, root: bool, machine: str, make: Make
) -> None:
    says = make(strict, machine, root=root)
    expected = dict.fromkeys(refused_by_name(strict, root), REFUSED) | dict.fromkeys(ABSENT, MISSING)
    names = {number: name for name, number in NUMBERS[machine].items()}
    for number in range(600):
        name = names.get(number, "a number that no call has")
        assert says(number) == expected.get(name, ALLOWED), f"{name} ({number})"


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("strict", ALL)
def test_calls_of_another_architecture_are_refused_whatever_else_passes(strict: Strictness, machine: str, make: Make) -> None:
    says = make(strict, machine)
    for audit in (
        0x40000003,
        0x40000028,
        *(other for name, other in AUDIT.items() if name != machine),
    ):  # i386, arm, the other one
        assert says("getpid", audit=audit) == REFUSED
    for x32 in (0x40000000, 0x40000000 | NUMBERS[machine]["getpid"], 0x7FFFFFFF, 0xFFFFFFFF):  # on x86-64, the same calls again
        assert (says(x32) == REFUSED) == (machine == "x86_64")


def _ioc(group: str, number: int, size: int) -> int:
    """_IOW of <asm-generic/ioctl.h>."""
    return 1 << 30 | size << 16 | ord(group) << 8 | number


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("strict", ALL)
def test_a_request_to_a_device_passes_unless_it_types_for_somebody_or_changes_a_files_attributes(
    strict: Strictness, machine: str, make: Make
) -> None:
    says = make(strict, machine)
    typing, attributes = (0x5412, 0x541C), (_ioc("f", 2, 8), _ioc("X", 32, 28))  # FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR
    guarded = {*typing, *(attributes if strict.walled and not strict.alone else ())}
    for request in {near for number in (*typing, *attributes, 0x5401) for near in (number - 1, number, number + 1)}:
        for above in (0, 1 << 32):  # the kernel takes 32 bits of it
            assert says("ioctl", 0x5412, request | above, 0x5412) == (REFUSED if request in guarded else ALLOWED), hex(request)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("strict", ALL)
def test_processes_and_threads_are_made_and_user_namespaces_are_not(strict: Strictness, machine: str, make: Make) -> None:
    says = make(strict, machine)
    for bit in range(32):
        assert says("clone", 1 << bit, 0x10000000) == (REFUSED if 1 << bit == 0x10000000 else ALLOWED)  # CLONE_NEWUSER
    for fork_or_thread in (17, 0x01200011, 0x003D0F00):  # as the C library calls it
        assert says("clone", fork_or_thread) == ALLOWED
        assert says("clone", fork_or_thread | 0x10000000) == REFUSED


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("strict", ALL)
def test_calls_on_other_processes_pass_only_where_there_are_none(strict: Strictness, machine: str, make: Make) -> None:
    says = make(strict, machine)
    for call, itself in ON_ITSELF.items():
        rest = (77,) * (6 - len(itself))
        assert says(call, *itself, *rest) == ALLOWED, call
        assert says(call, itself[0] | 1 << 32, *itself[1:], *rest) == ALLOWED, "the kernel takes 32 bits of it"
        for place, wrong in itertools.product(range(len(itself)), (2, 77, 0x7FFFFFFF, (1 << 64) - 1)):
            others = [*itself[:place], wrong, *itself[place + 1 :]]
            assert (says(call, *others, *rest) == ALLOWED) == strict.alone, (call, others)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("root", [False, True])
@pytest.mark.parametrize("strict", ALL)
def test_the_times_of_an_open_file_may_be_set_and_of_one_by_name_where_something_else_holds_them(
    strict: Strictness, root: bool, machine: str, make: Make
) -> None:
    says = make(strict, machine, root=root)
    guarded = strict.walled and not strict.alone
    assert (says("utimensat", 5, 0, 99, 99) == REFUSED) == (guarded and root)
    for path in (1, 1 << 31, 1 << 32, 1 << 63, 0x7FFF00000000):
        assert (says("utimensat", 5, path) == REFUSED) == guarded


def test_every_jump_lands_inside_and_an_unknown_machine_has_no_filter(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    for machine, strict in itertools.product(MACHINES, ALL):
        steps = make(strict, machine).steps
        assert 100 < len(steps) < 4096
        for place, (code, yes, no, _) in enumerate(steps):
            if code & 0x07 == 0x05:
                assert place + 1 + max(yes, no) < len(steps)
        assert steps[-1][0] == 0x06
    assert make(Strictness(), "riscv64").steps == []
    assert not seccomp.install(Strictness())
    monkeypatch.setattr(struct, "calcsize", lambda kind: 4)  # a program of 32 bits on a kernel of 64 makes other calls
    for machine in MACHINES:
        assert make(Strictness(), machine).steps == []


def outcomes(calls: Iterable[tuple[str, int]]) -> dict[str, str]:
    """What this machine's kernel says to calls without arguments that could do anything."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    nothing = [ctypes.c_long(-1)] * 6
    said = {}
    for name, number in calls:
        ctypes.set_errno(0)
        done = libc.syscall(ctypes.c_long(number), *nothing)
        said[name] = errno.errorcode[ctypes.get_errno()] if done == -1 else "done"
    return said


@pytest.mark.skipif(os.uname().machine not in MACHINES, reason="there is no filter for this machine")
def test_the_kernel_reads_the_filter_in_the_same_way() -> None:
    numbers = NUMBERS[os.uname().machine]
    refused = [name for name in (*ALWAYS, *SHARED, *NAMED_FILES, "socket", "execve", "execveat") if name in numbers]
    harmless = ["fstat", "lseek", "dup", "fchdir", "getsockname", "utimensat" if os.geteuid() else "readlinkat"]

    def tried() -> dict[str, str]:
        import ctypes

        assert ctypes.CDLL(None).prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS, without which only root may
        assert seccomp.install(Strictness(programs=False, walled=True))
        return outcomes((name, numbers[name]) for name in (*refused, *ABSENT, *harmless))

    said = forked(tried)
    assert {name: said[name] for name in refused} == dict.fromkeys(refused, "EPERM")
    assert {name: said[name] for name in ABSENT} == dict.fromkeys(ABSENT, "ENOSYS")
    assert not {said[name] for name in harmless} & {"EPERM", "ENOSYS"}
