"""Which system calls a confined process may make: a filter in the kernel (seccomp), by ctypes.

A filter sees numbers and not what pointers point to. So a path can never be judged here; that is for Landlock and namespaces.

Sources: seccomp(2), the kernel's userspace-api document on seccomp filters, <linux/audit.h>, <linux/bpf_common.h>,
<asm/unistd_64.h>, <asm-generic/unistd.h>.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_LOAD, _EQUAL, _AT_LEAST, _BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _AUDIT, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data; an argument has eight bytes, the lowest first
_AUDITS = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_X32 = 0x40000000  # the same calls again
_NEW_USER_NAMESPACE = 0x10000000
# Typing into the terminal of somebody else (TIOCSTI, TIOCLINUX); attributes of files (FS_IOC_SETFLAGS, FS_IOC_FSSETXATTR).
_TERMINAL, _FILE_FLAGS = (0x5412, 0x541C), (0x40086602, 0x401C5820)

# Name: number on x86-64, on aarch64; None where it does not exist.
_Numbers = dict[str, tuple[int | None, int | None]]
_ALWAYS_REFUSED: _Numbers = {
    # other processes
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_send_signal": (424, 424), "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "process_mrelease": (448, 448), "migrate_pages": (256, 238), "move_pages": (279, 239),
    # the box
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "setns": (308, 268),
    "unshare": (272, 97), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431),
    "fsmount": (432, 432), "fspick": (433, 433), "mount_setattr": (442, 442), "open_tree_attr": (467, 467),
    "open_by_handle_at": (304, 265), "personality": (135, 92),
    # the kernel
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "fanotify_init": (300, 262),
    "lookup_dcookie": (212, 18), "lsm_set_self_attr": (460, 460),
    # the machine
    "sethostname": (170, 161), "setdomainname": (171, 162), "swapon": (167, 224), "swapoff": (168, 225), "syslog": (103, 116),
    "reboot": (169, 142), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171), "acct": (163, 89), "quotactl": (179, 60), "quotactl_fd": (443, 443), "vhangup": (153, 58),
    "iopl": (172, None), "ioperm": (173, None), "nfsservctl": (180, 42), "uselib": (134, None),
}  # fmt: skip
_SOCKETS: _Numbers = {"socket": (41, 198)}
_PROGRAMS: _Numbers = {"execve": (59, 221), "execveat": (322, 281)}
# Memory, semaphores and messages that processes of one user share by a number or a name.
_SHARED: _Numbers = {
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191),
    "semtimedop": (220, 192), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "mq_open": (240, 180), "mq_unlink": (241, 181),
}  # fmt: skip
_OWNERSHIP: _Numbers = {  # modes, owners, times and attributes of a file that is named
    "chmod": (90, None), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, None), "lchown": (94, None),
    "fchownat": (260, 54), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "setxattr": (188, 5),
    "lsetxattr": (189, 6), "removexattr": (197, 14), "lremovexattr": (198, 15), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "file_setattr": (469, 469),
}  # fmt: skip
_OWNERSHIP_OF_OPEN: _Numbers = {"fchmod": (91, 52), "fchown": (93, 55), "fsetxattr": (190, 7), "fremovexattr": (199, 16)}
_UTIMENSAT: tuple[int, int] = (280, 88)  # with no path, the times of an open file
# Calls that are only for the calling process: the arguments that must have this value.
_ON_ITSELF: dict[str, tuple[tuple[int, int], dict[int, int]]] = {
    "prlimit64": ((302, 261), {0: 0}), "sched_setparam": ((142, 118), {0: 0}), "sched_setscheduler": ((144, 119), {0: 0}),
    "sched_setaffinity": ((203, 122), {0: 0}), "sched_setattr": ((314, 274), {0: 0}),
    "setpriority": ((141, 140), {0: 0, 1: 0}), "ioprio_set": ((251, 30), {0: 1, 1: 0}),
}  # fmt: skip
_IOCTL, _CLONE, _CLONE3, _IO_URING = (16, 29), (56, 220), 435, (425, 426, 427)


@dataclass(frozen=True, slots=True)
class Strictness:
    """What a filter refuses beside what no confined process needs."""

    network: bool = False  # whether sockets may be opened
    programs: bool = True  # whether programs may be run
    alone: bool = False  # in namespaces of its own, where there is nobody else to harm
    walled: bool = False  # kept by Landlock alone from writing files outside, which does not cover who owns them


def program(strict: Strictness) -> bytes:
    """The filter as the kernel takes it (an array of ``struct sock_filter``); empty on an unknown architecture."""
    machine = os.uname().machine
    if machine not in _AUDITS or struct.calcsize("P") != 8:
        return b""
    return b"".join(_steps(strict, machine, root=os.geteuid() == 0))


def install(strict: Strictness) -> bool:
    """Put this process under the filter, for good. False on an unknown architecture or without the feature.

    With no network not even AF_UNIX may be opened: a session bus or a container daemon would run commands for the asking.
    ``socketpair`` stays.
    """
    steps = program(strict)
    if not steps:
        return False
    code = ctypes.create_string_buffer(steps, len(steps))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(steps) // 8, ctypes.addressof(code)))
    with suppress(AttributeError, OSError):
        return bool(ctypes.CDLL(None).prctl(ctypes.c_int(_PR_SET_SECCOMP), ctypes.c_ulong(_MODE_FILTER), header) == 0)
    return False


def _step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
    return struct.pack("<HBBI", code, yes, no, k)


def _refuse(numbers: Iterable[int | None], answer: int = _EPERM) -> list[bytes]:
    return [s for n in numbers if n is not None for s in (_step(_EQUAL, n, 0, 1), _step(_RETURN, answer))]


def _allow_only(number: int, arguments: dict[int, int]) -> list[bytes]:
    """Refuse a call unless these arguments (32 bits of them) have these values."""
    checks: list[bytes] = []
    for i, (argument, value) in enumerate(arguments.items()):
        left = 2 * (len(arguments) - 1 - i)
        checks += [_step(_LOAD, _ARGUMENTS + argument), _step(_EQUAL, value, 0, left + 1)]
    return [_step(_EQUAL, number, 0, len(checks) + 2), *checks, _step(_RETURN, _ALLOW), _step(_RETURN, _EPERM)]


def _steps(strict: Strictness, machine: str, *, root: bool) -> list[bytes]:
    arm = machine == "aarch64"

    def numbers(*tables: _Numbers) -> list[int | None]:
        return [pair[arm] for table in tables for pair in table.values()]

    steps = [_step(_LOAD, _AUDIT), _step(_EQUAL, _AUDITS[machine], 1, 0), _step(_RETURN, _EPERM), _step(_LOAD, _NUMBER)]
    if not arm:
        steps += [_step(_AT_LEAST, _X32, 0, 1), _step(_RETURN, _EPERM)]
    # An io_uring opens sockets without the call; clone3 hides its flags in memory, and libc falls back to clone.
    steps += _refuse((_CLONE3, *_IO_URING), _ENOSYS)
    steps += _refuse(numbers(_ALWAYS_REFUSED))
    steps += [] if strict.network else _refuse(numbers(_SOCKETS))
    steps += [] if strict.programs else _refuse(numbers(_PROGRAMS))
    flags: tuple[int, ...] = _TERMINAL
    if not strict.alone:
        steps += _refuse(numbers(_SHARED))
        for pair, arguments in _ON_ITSELF.values():
            # The lower half of an argument is all that the kernel takes of these.
            steps += _allow_only(pair[arm], {8 * argument: value for argument, value in arguments.items()})
        if strict.walled:
            # Landlock lets a file outside be opened for reading. Its owner could then still change it, and root owns them all.
            steps += _refuse(numbers(_OWNERSHIP, _OWNERSHIP_OF_OPEN if root else {}))
            steps += _refuse([_UTIMENSAT[arm]]) if root else _allow_only(_UTIMENSAT[arm], {8: 0, 12: 0})
            flags += _FILE_FLAGS
    steps += [_step(_EQUAL, _IOCTL[arm], 0, 2 * len(flags) + 2), _step(_LOAD, _ARGUMENTS + 8)]
    steps += [*_refuse(flags), _step(_RETURN, _ALLOW)]
    steps += [_step(_EQUAL, _CLONE[arm], 0, 3), _step(_LOAD, _ARGUMENTS), _step(_BITS, _NEW_USER_NAMESPACE, 0, 1)]
    return [*steps, _step(_RETURN, _EPERM), _step(_RETURN, _ALLOW)]
