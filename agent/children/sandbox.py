"""Confinement of a process that runs what a model asked for: Landlock, seccomp and resource limits, by ctypes.

Everything here acts on the calling process, for good, and on what it starts. Call it in a child of one thread only. It must
load with nothing but the standard library, because the child starts for every call.

Sources: the kernel's userspace-api documents on Landlock, seccomp filters and no_new_privs; landlock(7), seccomp(2),
getrlimit(2); <linux/landlock.h>, <linux/audit.h>, <linux/bpf_common.h>.
"""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_PR_SET_SECCOMP, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 22, 36, 38
_SECCOMP_MODE_FILTER = 2
# The same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446


UNLIMITED = -1  # of a limit: what the system sets


@dataclass(frozen=True, slots=True)
class ResourceLimits:
    """What one process and what it starts may take."""

    memory: int = 1 << 30  # bytes of address space
    cpu: int = 60  # seconds of processor time
    file_size: int = 1 << 28  # bytes of one written file
    processes: int = 64  # how many more than this user has already (the kernel does not hold root to it)
    files: int = 256  # open at once


@dataclass(frozen=True, slots=True)
class Rules:
    """What a confined process may reach."""

    read: tuple[str, ...] = ()  # files and folders that may be read and executed, with all below them
    write: tuple[str, ...] = ()  # folders that may be read and written, with all below them
    network: bool = False  # whether it may open sockets
    limits: ResourceLimits = ResourceLimits()

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Rules:
        return cls(tuple(data["read"]), tuple(data["write"]), data["network"], ResourceLimits(**data["limits"]))


_SYSTEM = (
    "/usr", "/lib", "/lib32", "/lib64", "/bin", "/sbin", "/etc", "/opt", "/nix/store", "/run/current-system", "/sys",
    "/run/systemd/resolve", "/proc/cpuinfo", "/proc/meminfo", "/proc/loadavg", "/proc/uptime", "/proc/stat", "/proc/version",
    "/proc/filesystems", "/dev/urandom", "/dev/random", "/dev/zero", "/system", "/apex", "/vendor", "/linkerconfig",
)  # fmt: skip


_PRIVATE = ("shadow", "gshadow", "sudoers", "ssh", "ssl", "wpa_supplicant", "NetworkManager", "netplan", "wireguard", "krb5")


def system_paths() -> tuple[str, ...]:
    """Where programs and what they need to run lie; nothing that belongs to a user, except the Python that runs now."""
    termux = os.environ.get("PREFIX", "") if "com.termux" in os.environ.get("PREFIX", "") else ""
    places = [*_SYSTEM, termux]
    if os.geteuid() == 0:  # to anybody else the kernel refuses these files anyway
        places.remove("/etc")
        places += ["/etc/ssl/certs", "/etc/ssl/openssl.cnf", "/etc/ssl/cert.pem"]
        places += [entry.path for entry in os.scandir("/etc") if not entry.name.startswith(_PRIVATE)]
    homes = {Path.home(), *Path.home().parents}
    places += [p for p in (sys.prefix, sys.base_prefix) if Path(p) not in homes]
    return tuple(dict.fromkeys(p for p in places if p and Path(p).exists()))


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, argument: int, pointer: Any = None) -> bool:
    with suppress(AttributeError, OSError):
        rest = (ctypes.c_ulong(0), ctypes.c_ulong(0))
        return bool(_libc().prctl(ctypes.c_int(option), ctypes.c_ulong(argument), pointer, *rest) == 0)
    return False


def become_subreaper() -> bool:
    """Let orphaned descendants become children of this process, so that it can end them. Linux 3.4."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def no_new_privileges() -> bool:
    """No program that this process starts gains rights, as setuid programs do. Linux 3.5."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_limits(limits: ResourceLimits) -> None:
    """Resource limits; what the system already limits further stays."""
    wanted = {
        "RLIMIT_AS": limits.memory, "RLIMIT_CPU": limits.cpu, "RLIMIT_FSIZE": limits.file_size,
        "RLIMIT_NOFILE": limits.files, "RLIMIT_NPROC": _own_processes() + limits.processes, "RLIMIT_CORE": 0,
    }  # fmt: skip
    for name, value in wanted.items():
        number = getattr(resource, name, None)
        if number is None or value == UNLIMITED:
            continue
        _, hard = resource.getrlimit(number)
        most = value if hard == resource.RLIM_INFINITY else min(value, hard)
        # SIGXCPU may be ignored; one second above it the kernel kills.
        top = most + 1 if name == "RLIMIT_CPU" and (hard == resource.RLIM_INFINITY or most < hard) else most
        with suppress(ValueError, OSError):
            resource.setrlimit(number, (most, top))


def _own_processes() -> int:
    """Threads that this user has now: RLIMIT_NPROC counts them all."""
    count, me = 0, os.getuid()
    with suppress(OSError):
        for entry in os.scandir("/proc"):
            if not entry.name.isdigit():
                continue
            with suppress(OSError):
                if entry.stat().st_uid == me:
                    count += len(os.listdir(f"/proc/{entry.name}/task"))  # noqa: PTH208  (one count, no paths)
    return count


# ---- Landlock ----

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_TRUNCATE, _IOCTL_DEV, _REFER = 1 << 14, 1 << 15, 1 << 13
_READ = _EXECUTE | _READ_FILE | _READ_DIR
_ON_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV


def _path_rights(abi: int) -> int:
    rights = (1 << 13) - 1
    for since, right in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEV)):
        rights |= right if abi >= since else 0
    return rights


def landlock(rules: Rules) -> bool:
    """Reach no file but those that the rules name. False where the kernel has no Landlock (below 5.13, or switched off).

    On Android the call itself may kill the process with SIGSYS: try it in a process that may die.
    """
    libc = _libc()
    libc.syscall.restype = ctypes.c_long
    abi = libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    if abi < 1:
        return False
    rights = _path_rights(abi)
    no_tcp = 0b11 if abi >= 4 and not rules.network else 0
    alone = 0b11 if abi >= 6 else 0  # no abstract sockets of, and no signals to, the world outside
    attributes = struct.pack("=QQQ", rights, no_tcp, alone)[: 8 if abi < 4 else 16 if abi < 6 else 24]
    ruleset = libc.syscall(ctypes.c_long(_LANDLOCK_CREATE), attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint32(0))
    if ruleset < 0:
        return False
    try:
        for path in rules.read:
            _allow(libc, ruleset, path, _READ & rights)
        for path in rules.write:
            _allow(libc, ruleset, path, rights & ~_IOCTL_DEV)
        _allow(libc, ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
        return bool(libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: Any, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    try:
        if not os.path.isdir(f"/proc/self/fd/{fd}"):  # noqa: PTH112
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, fd)
        libc.syscall(ctypes.c_long(_LANDLOCK_ADD_RULE), ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
    finally:
        os.close(fd)


# ---- seccomp ----

_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C  # typing into the terminal of somebody else
_NEW_USER_NAMESPACE = 0x10000000


@dataclass(frozen=True, slots=True)
class _Machine:
    """System call numbers of one architecture (its ``unistd.h``)."""

    audit: int
    socket: int
    ioctl: int
    clone: int
    refused: tuple[int, ...]


# ptrace, process_vm_readv, process_vm_writev, add_key, request_key, keyctl, mount, umount2, pivot_root, chroot, setns, unshare,
# bpf, perf_event_open, userfaultfd, open_by_handle_at, kexec_load, init_module, finit_module, delete_module, personality
_MACHINES = {
    "x86_64": _Machine(0xC000003E, 41, 16, 56, (
        101, 310, 311, 248, 249, 250, 165, 166, 155, 161, 308, 272, 321, 298, 323, 304, 246, 175, 313, 176, 135,
    )),
    "aarch64": _Machine(0xC00000B7, 198, 29, 220, (
        117, 270, 271, 217, 218, 219, 40, 39, 41, 51, 268, 97, 280, 241, 282, 265, 104, 105, 273, 106, 92,
    )),
}  # fmt: skip
_CLONE3, _IO_URING = 435, (425, 426, 427)  # the newer calls have one number everywhere
_NEWER_REFUSED = (428, 429, 430, 431, 432, 433, 438, 442)  # the mount family from 5.2 on, pidfd_getfd, mount_setattr


def seccomp_program(network: bool) -> bytes:
    """The filter as the kernel and bubblewrap take it (an array of ``struct sock_filter``); empty on an unknown architecture."""
    machine = _MACHINES.get(platform.machine()) if struct.calcsize("P") == 8 and sys.byteorder == "little" else None
    return b"".join(_filter(machine, network)) if machine else b""


def seccomp(network: bool) -> bool:
    """Refuse sockets (unless ``network``) and the calls with which a process reaches into others or out of its box.

    With no network not even AF_UNIX may be opened: a session bus or a container daemon would run commands for the asking.
    ``socketpair`` stays. False on an unknown architecture or without the feature.
    """
    program = seccomp_program(network)
    if not program:
        return False
    code = ctypes.create_string_buffer(program, len(program))
    header = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(code)))
    return _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, header)


def _filter(machine: _Machine, network: bool) -> list[bytes]:
    def step(code: int, k: int, yes: int = 0, no: int = 0) -> bytes:
        return struct.pack("<HBBI", code, yes, no, k)

    load, equal, at_least, bits, give = 0x20, 0x15, 0x35, 0x45, 0x06
    number, audit, first, second = 0, 4, 16, 24

    def refuse(numbers: Iterable[int], answer: int) -> list[bytes]:
        return [s for n in numbers for s in (step(equal, n, 0, 1), step(give, answer))]

    program = [step(load, audit), step(equal, machine.audit, 1, 0), step(give, _EPERM), step(load, number)]
    if machine.audit == _MACHINES["x86_64"].audit:
        program += [step(at_least, 0x40000000, 0, 1), step(give, _EPERM)]  # the x32 numbers are the same calls again
    # An io_uring opens sockets without the call; clone3 hides its flags in memory, and libc falls back to clone.
    program += refuse((_CLONE3, *_IO_URING), _ENOSYS)
    program += refuse((*machine.refused, *_NEWER_REFUSED), _EPERM)
    if not network:
        program += refuse((machine.socket,), _EPERM)
    program += [step(equal, machine.ioctl, 0, 4), step(load, second)]
    program += [step(equal, _TIOCSTI, 1, 0), step(equal, _TIOCLINUX, 0, 1), step(give, _EPERM)]
    program += [step(load, number), step(equal, machine.clone, 0, 3), step(load, first)]
    program += [step(bits, _NEW_USER_NAMESPACE, 0, 1), step(give, _EPERM)]
    return [*program, step(give, _ALLOW)]


def confine(rules: Rules, layers: Iterable[str] = ("landlock", "seccomp")) -> str:
    """Put this process under the rules, for good; returns which of the layers are in force: "landlock+seccomp" ... "none"."""
    set_limits(rules.limits)
    no_new_privileges()
    wanted = set(layers)
    held = ["landlock"] if "landlock" in wanted and landlock(rules) else []
    held += ["seccomp"] if "seccomp" in wanted and seccomp(rules.network) else []
    return "+".join(held) or "none"


def bubblewrap(program: str, rules: Rules, folder: str, filter_fd: int | None) -> list[str]:
    """The command line that puts a command into bubblewrap's namespaces (bwrap(1)), under the same rules."""
    line = [program, "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL"]
    line += ["--share-net"] if rules.network else []
    line += ["--tmpfs", "/", "--proc", "/proc", "--dev", "/dev"]
    for path in rules.read:
        if not path.startswith(("/proc/", "/dev/")):
            line += ["--ro-bind-try", path, path]
    for path in rules.write:
        line += ["--bind", path, path]
    line += ["--seccomp", str(filter_fd)] if filter_fd is not None else []
    return [*line, "--chdir", folder, "--"]
