"""A process that sees its own files, processes and network only: Linux namespaces, by ctypes, without any rights.

The file system that it sees holds what the rules name and nothing else, read-only but for the folders that it may write. That
holds what Landlock does not cover: modes, owners, times and attributes of files outside, and places below a writable folder
that may not be written.

Sources: user_namespaces(7), mount_namespaces(7), pid_namespaces(7), pivot_root(2), mount_setattr(2), capabilities(7).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
from pathlib import Path
from typing import Any

from agent.children.rules import Rules

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW_MOUNTS, _NEW_CGROUPS, _NEW_NAMES, _NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
_NEW_USERS, _NEW_PIDS, _NEW_NETWORK = 0x10000000, 0x20000000, 0x40000000
_NOSUID, _NODEV, _NOEXEC, _BIND, _REC = 0x2, 0x4, 0x8, 0x1000, 0x4000
_DETACH = 2  # umount2(2)
_MOUNT_SETATTR = 442  # the number of the call on every architecture; Linux 5.12
_HERE, _RECURSIVE = -100, 0x8000
_RDONLY_ATTR, _NOSUID_ATTR, _NODEV_ATTR = 0x1, 0x2, 0x4
_BASE, _OLD = "/tmp", "/.old"
_STREAMS = {"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2"}


def separate(network: bool) -> None:
    """Take a user namespace, and namespaces of processes (for the children), IPC, names and, without ``network``, sockets.

    Raises:
        OSError: the system does not allow it.
    """
    user, group = os.geteuid(), os.getegid()
    kinds = _NEW_USERS | _NEW_PIDS | _NEW_IPC | _NEW_NAMES | _NEW_CGROUPS
    _call("unshare", ctypes.c_int(kinds | (0 if network else _NEW_NETWORK)))
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
    Path("/proc/self/gid_map").write_text(f"{group} {group} 1")


def enter_view(rules: Rules) -> None:
    """See only the files that the rules name; for a process after ``separate``, which needs the rights that it has there.

    Raises:
        OSError: the system does not allow it, or a folder that may be written is not there.
    """
    _call("unshare", ctypes.c_int(_NEW_MOUNTS))  # what is mounted now is not seen outside, since the user namespace is another
    # Resolved now: afterwards an absolute link would lead somewhere else.
    writable = {path: os.path.realpath(path) for path in rules.write}
    kept = {path: path for path in rules.kept if not os.path.islink(path)}  # noqa: PTH114  (nothing can be mounted on a link)
    read = {path: os.path.realpath(path) for path in (*rules.read, "/dev/null", "/dev/full")}
    _mount("tmpfs", _BASE, "tmpfs", _NOSUID | _NODEV, "mode=0755,size=1m")
    os.mkdir(_BASE + _OLD)  # noqa: PTH102
    _call("pivot_root", _BASE.encode(), (_BASE + _OLD).encode())
    os.chdir("/")
    os.mkdir("/proc")  # noqa: PTH102
    with contextlib.suppress(OSError):  # a container may hide parts of it, and then it cannot be mounted anew
        _mount("proc", "/proc", "proc", _NOSUID | _NODEV | _NOEXEC)
        read = {path: real for path, real in read.items() if not path.startswith("/proc/")}
    for path in sorted({**read, **writable, **kept}):  # what lies in a folder after it
        try:
            _bind(_OLD + {**read, **writable, **kept}[path], path)
        except OSError:
            if path in writable or path in kept:
                raise
    for name, target in _STREAMS.items():
        os.symlink(target, f"/dev/{name}")  # noqa: PTH211
    _call("umount2", _OLD.encode(), ctypes.c_int(_DETACH))
    os.rmdir(_OLD)  # noqa: PTH106
    _set_attributes("/", _RDONLY_ATTR | _NOSUID_ATTR)
    for path in writable:
        try:
            _set_attributes(path, _NOSUID_ATTR | _NODEV_ATTR, _RDONLY_ATTR)
        except PermissionError:  # what is mounted below it may have to stay read-only
            _set_attributes(path, _NOSUID_ATTR | _NODEV_ATTR, _RDONLY_ATTR, 0)
    below = [path for path in (*read, *kept) if any(path.startswith(folder + "/") for folder in writable)]
    for path in below:
        with contextlib.suppress(FileNotFoundError):  # it could not be bound, and is not there
            _set_attributes(path, _RDONLY_ATTR)


def _bind(source: str, path: str) -> None:
    if os.path.isdir(source):  # noqa: PTH112  (pathlib would double the start-up time)
        os.makedirs(path, 0o755, exist_ok=True)  # noqa: PTH103
    elif not os.path.exists(source):  # noqa: PTH110
        raise FileNotFoundError(f"{path} is not there")
    else:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)  # noqa: PTH103, PTH120
        if not os.path.lexists(path):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    _mount(source, path, "", _BIND | _REC)


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    arguments = (os.fsencode(source), os.fsencode(target), kind.encode() or None, ctypes.c_ulong(flags), options.encode() or None)
    _call("mount", *arguments)


def _set_attributes(path: str, added: int, removed: int = 0, flags: int = _RECURSIVE) -> None:
    attributes = struct.pack("=QQQQ", added, removed, 0, 0)
    arguments = (ctypes.c_int(_HERE), os.fsencode(path), ctypes.c_uint(flags), attributes, ctypes.c_size_t(len(attributes)))
    _call("syscall", ctypes.c_long(_MOUNT_SETATTR), *arguments)


def _call(name: str, *arguments: Any) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
