"""Confinement of a process that runs what a model asked for: Landlock, capabilities and resource limits, by ctypes.

Everything here acts on the calling process, for good, and on what it starts. Call it in a child of one thread only. It must
load with nothing but the standard library, because the child starts for every call.

Sources: the kernel's userspace-api documents on Landlock and no_new_privs; landlock(7), capabilities(7), getrlimit(2);
<linux/landlock.h>. The two other layers are agent.children.seccomp and agent.children.namespaces.
"""

from __future__ import annotations

import ctypes
import functools
import os
import resource
import stat
import struct
import sys
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.children import seccomp
from agent.children.rules import UNLIMITED, ResourceLimits, Rules

_PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER, _PR_SET_NO_NEW_PRIVS = 4, 36, 38
# The same numbers on every architecture.
_LANDLOCK_CREATE, _LANDLOCK_ADD_RULE, _LANDLOCK_RESTRICT = 444, 445, 446


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
    return tuple(dict.fromkeys(p for p in places if p and os.access(p, os.F_OK)))  # 160 of them, for every child


@functools.cache
def _libc() -> Any:
    return ctypes.CDLL(None)


def _prctl(option: int, argument: int) -> bool:
    with suppress(AttributeError, OSError):
        return bool(_libc().prctl(ctypes.c_int(option), ctypes.c_ulong(argument), *[ctypes.c_ulong(0)] * 3) == 0)
    return False


def become_subreaper() -> bool:
    """Let orphaned descendants become children of this process, so that it can end them. Linux 3.4."""
    return _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def hide_from_others() -> bool:
    """Keep other processes of this user from this one's memory and open files."""
    return _prctl(_PR_SET_DUMPABLE, 0)


def no_new_privileges() -> bool:
    """No program that this process starts gains rights, as setuid programs do. Linux 3.5."""
    return _prctl(_PR_SET_NO_NEW_PRIVS, 1)


def set_limits(limits: ResourceLimits) -> None:
    """Resource limits; what the system already limits further stays."""
    processes = UNLIMITED if limits.processes == UNLIMITED else _own_processes() + limits.processes
    wanted = {
        "RLIMIT_AS": limits.memory, "RLIMIT_CPU": limits.cpu, "RLIMIT_FSIZE": limits.file_size,
        "RLIMIT_NOFILE": limits.files, "RLIMIT_NPROC": processes, "RLIMIT_CORE": 0,
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
        for folder in rules.write:
            _allow(libc, ruleset, folder, _READ & rights)
            for path in _open_parts(folder, rules.kept):
                _allow(libc, ruleset, path, rights & ~_IOCTL_DEV)
        _allow(libc, ruleset, "/dev/null", (_READ_FILE | _WRITE_FILE | _TRUNCATE) & rights)
        return bool(libc.syscall(ctypes.c_long(_LANDLOCK_RESTRICT), ctypes.c_int(ruleset), ctypes.c_uint32(0)) == 0)
    finally:
        os.close(ruleset)


def _open_parts(folder: str, kept: Iterable[str]) -> Iterator[str]:
    """The folder; or where something below it is kept, all that lies beside that and beside the folders on the way to it.

    A right holds for all below a folder and nothing can be taken out of it again, so that nothing can be made or removed in
    those folders themselves.
    """
    below = [path for path in kept if path.startswith(folder.rstrip("/") + "/")]
    if not below:
        yield folder
        return
    for entry in os.scandir(folder):
        if entry.path not in below and not entry.is_symlink():
            yield from _open_parts(entry.path, below)


def _allow(libc: Any, ruleset: int, path: str, rights: int) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # what is not there needs no right
    try:
        if not stat.S_ISDIR(os.fstat(fd).st_mode):
            rights &= _ON_FILES
        rule = struct.pack("=Qi", rights, fd)
        libc.syscall(ctypes.c_long(_LANDLOCK_ADD_RULE), ctypes.c_int(ruleset), ctypes.c_int(1), rule, ctypes.c_uint32(0))
    finally:
        os.close(fd)


_CAPSET_VERSION = 0x20080522
_PR_CAPBSET_DROP, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 24, 47, 4
_CAP_DAC_READ_SEARCH = 1 << 2
_CAPABILITIES = 64  # there are 41 of them today


def drop_capabilities(*, reads_all: bool = False) -> None:
    """Give up what root can do beyond its own files, for this process and all that it starts (capabilities(7)).

    Without the bounding set no program that it runs can get anything back. With ``reads_all`` root may still read what
    belongs to others, as far as nothing else forbids it.
    """
    for number in range(_CAPABILITIES):
        if not _prctl(_PR_CAPBSET_DROP, number):
            break  # there is none of this number, or this user may not, and has none
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    kept = _CAP_DAC_READ_SEARCH if reads_all and os.geteuid() == 0 else 0
    with suppress(AttributeError):
        _libc().capset(struct.pack("=Ii", _CAPSET_VERSION, 0), struct.pack("=6I", kept, kept, 0, 0, 0, 0))


LAYERS = ("namespaces", "landlock", "seccomp")


def confine(rules: Rules, layers: Iterable[str] = LAYERS, *, programs: bool = True, reads_all: bool = False) -> str:
    """Put this process under the rules, for good; returns which of the layers are in force: "landlock+seccomp" ... "none".

    Args:
        layers: to be tried. "namespaces" says that the process is in agent.children.namespaces' already.
        programs: whether it may run programs.
        reads_all: as for ``drop_capabilities``.
    """
    wanted = set(layers)
    set_limits(rules.limits)
    drop_capabilities(reads_all=reads_all)
    no_new_privileges()
    held = ["namespaces"] if "namespaces" in wanted else []
    if held:  # the view has what may not be written, and holds nothing else of these two
        rules = replace(rules, read=(*rules.read, "/proc", "/dev"), kept=())
    held += ["landlock"] if "landlock" in wanted and landlock(rules) else []
    strict = seccomp.Strictness(rules.network, programs, alone="namespaces" in held, walled="landlock" in held)
    held += ["seccomp"] if "seccomp" in wanted and seccomp.install(strict) else []
    return "+".join(held) or "none"


def confine_itself(rules: Rules, *, reads_all: bool = False) -> str:
    """Put this process of one thread, which runs no programs, under the rules as far as the kernel can; returns as ``confine``.

    On Android the trying may kill, and so it is tried in a fork there.
    """
    for layers in (("landlock", "seccomp"), ("seccomp",)):
        if "ANDROID_ROOT" not in os.environ or _survives(rules, layers):
            return confine(rules, layers, programs=False, reads_all=reads_all)
    return "none"


def _survives(rules: Rules, layers: Iterable[str]) -> bool:
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            confine(rules, layers, programs=False)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
