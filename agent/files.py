"""The one way to publish a file or a folder: written beside its place, synced, renamed. Complete or absent, also after kill -9.

The steps and their order are those of Pillai et al., "All File Systems Are Not Created Equal" (OSDI 2014): the data must
be on the disk before the name points to it, and the name must be on the disk before anybody is told.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.errors import OutputError

# What a file system without these features answers; the work goes on without the lock, or without the reservation.
_CANNOT = frozenset({errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL, errno.ENOLCK, errno.ENODEV})
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def human_size(n: float) -> str:
    """A size for a person, in decimal units: "512 bytes", "14 kB", "386 MB", "1.23 GB"."""
    for factor, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        # 999.5 MB and above reads better, and rounds to, 1.00 GB.
        if abs(n) >= factor * 0.9995:
            value = n / factor
            return f"{value:.2f} {unit}" if abs(value) < 9.995 and factor >= 1e9 else f"{value:.0f} {unit}"
    return "1 byte" if n == 1 else f"{n:.0f} bytes"


_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30, "ti": 1 << 40}


def parse_size(text: str) -> int:
    """Bytes that a person means: "1.5 GB", "700M", "2GiB", "123456". ValueError when it is no size."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?)?(?:b|bytes?)?", text.strip().lower())
    if found is None:
        raise ValueError(text)
    return int(float(found[1]) * _UNITS[found[2] or ""])


def make_folder(folder: Path) -> None:
    """Make a folder, and those above it, where they are not there. OutputError when that cannot be done."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise OutputError(f"cannot make the folder {folder}: {e.strerror}") from None


def free_disk(path: Path) -> int:
    """Bytes that this user may still write where ``path`` lies or will lie. OutputError when that cannot be read."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    try:
        stat = os.statvfs(place)
    except OSError as e:
        raise OutputError(f"cannot read the free space of {place}: {e.strerror}") from None
    return stat.f_bavail * stat.f_frsize


def reserve(fd: int, size: int, path: Path) -> None:
    """Give the open file its final size, and its blocks where the file system can, before the first byte of work.

    Bytes that are already in the file stay. OutputError, and the file as it was, when ``size`` bytes do not fit.
    """
    try:
        stat = os.fstat(fd)
        held, before = stat.st_blocks * 512, stat.st_size
        if size - held > free_disk(path):
            raise _no_room(size, path)
        if not _allocate(fd, size, before, path) and before < size:
            os.ftruncate(fd, size)
    except OSError as e:
        raise write_error(e, path, size) from None


def _allocate(fd: int, size: int, before: int, path: Path) -> bool:
    """Whether the file system reserved the blocks itself."""
    if size == 0 or not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(fd, 0, size)
    except OSError as e:
        if e.errno in _CANNOT:
            return False
        # Some file systems keep what they could allocate; the next try must find that space free.
        with contextlib.suppress(OSError):
            os.ftruncate(fd, before)
        raise
    return True


def _no_room(size: int, path: Path) -> OutputError:
    return OutputError(
        f"{path.name} needs {human_size(size)}, {human_size(free_disk(path))} free on {path.absolute().parent}: "
        "make room or name another place"
    )


def write_error(e: OSError, path: Path, size: int | None = None) -> OutputError:
    """What an error of the system while ``path`` was written means for a person; ``size`` is what it was to hold."""
    if e.errno in FULL:
        if size is not None:
            return _no_room(size, path)
        return OutputError(f"the disk is full while writing {path}: make room and run it again")
    if e.errno == errno.EFBIG:
        what = human_size(size) if size is not None else "this size"
        return OutputError(f"{path}: the file system or ulimit -f allows no file of {what}; name another place")
    return OutputError(f"cannot write {path}: {e.strerror or e}")


@contextlib.contextmanager
def exclusive(part: Path) -> Iterator[int]:
    """The file under work, open for reading and writing and locked against every other run; made when it is not there.

    The kernel drops the lock with the process that holds it, however that ends. The file itself stays, so that a next run
    can go on with it. OutputError when another run holds it or it cannot be opened.
    """
    fd = _open_locked(part)
    try:
        yield fd
    finally:
        os.close(fd)


@contextlib.contextmanager
def scratch_folder(folder: Path) -> Iterator[Path]:
    """A folder of this run alone for the time of a block, empty at first, whatever a killed run has left in it.

    OutputError when another run holds it or it cannot be made.
    """
    lock = folder.with_name(f"{folder.name}.lock")
    with exclusive(lock):
        try:
            shutil.rmtree(folder, ignore_errors=True)
            try:
                folder.mkdir(mode=0o700)
            except OSError as e:
                raise write_error(e, folder) from None
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            lock.unlink(missing_ok=True)


def _open_locked(part: Path) -> int:
    while True:
        try:
            fd = os.open(part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        except OSError as e:
            raise write_error(e, part) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as e:
            holder = _holder(fd)
            os.close(fd)
            if e.errno in (errno.EWOULDBLOCK, errno.EACCES):
                raise OutputError(
                    f"{part} is being written by another run{f' (process {holder})' if holder else ''}: "
                    "wait for it, or name another output"
                ) from None
            if e.errno not in _CANNOT:
                raise write_error(e, part) from None
            return os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        # Between open and lock the run before us may have published the file: then what we hold is no longer the part.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(fd), os.stat(part, follow_symlinks=False)):  # noqa: PTH116
                return fd
        os.close(fd)


def _holder(fd: int) -> int | None:
    """The process that holds the lock on this file, where the kernel says so (proc(5), /proc/locks)."""
    stat = os.fstat(fd)
    wanted = f"{os.major(stat.st_dev):02x}:{os.minor(stat.st_dev):02x}:{stat.st_ino}"
    try:
        for line in Path("/proc/locks").read_text().splitlines():
            fields = line.split()
            if len(fields) >= 6 and fields[1] == "FLOCK" and fields[5] == wanted and int(fields[4]) > 0:
                return int(fields[4])
    except (OSError, ValueError):
        pass
    return None


def publish(part: Path, final: Path) -> None:
    """Give a finished file its name: sync it, rename it over ``final``, sync the folder.

    Both must lie in the same folder. When the sync fails the part is removed: the kernel may have dropped its dirty pages
    and call them clean, so neither a second sync nor a resumed run could be believed. OutputError in one line.
    """
    if part.absolute().parent != final.absolute().parent:
        raise OutputError(f"cannot publish {part}: it must lie beside {final}")
    try:
        fd = os.open(part, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as e:
        raise write_error(e, part) from None
    try:
        os.fsync(fd)
    except OSError as e:
        with contextlib.suppress(OSError):
            part.unlink()
        if e.errno in FULL:
            raise write_error(e, final) from None
        raise OutputError(
            f"{final} was not written: the disk did not take it ({e.strerror}); check the disk before you run it again"
        ) from None
    finally:
        os.close(fd)
    try:
        part.replace(final)
        _sync_folder(final.absolute().parent)
    except OSError as e:
        raise write_error(e, final) from None


def publish_folder(part: Path, final: Path) -> None:
    """Give a finished folder its name: sync all that lies in it, rename it, sync the folder around it.

    OutputError in one line if the disk does not take it, or something lies at ``final`` already that is no empty folder.
    """
    try:
        for folder, _, names in os.walk(part, topdown=False):
            for name in names:
                with Path(folder, name).open("rb") as file:
                    os.fsync(file.fileno())
            _sync_folder(Path(folder))
        part.rename(final)
        _sync_folder(final.absolute().parent)
    except OSError as e:
        raise write_error(e, final) from None


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as e:
        # FUSE and Android's shared storage cannot sync a folder; there the rename is as durable as it gets.
        if e.errno not in _CANNOT and e.errno != errno.EBADF:
            raise
    finally:
        os.close(fd)


def atomic_write(path: Path, data: bytes | str, *, mode: int | None = None) -> None:
    """Write a small file in one step: a reader sees the old content or the new. Text is UTF-8. Raises OutputError.

    With ``mode``, these are its permissions before the first byte is in it.
    """
    raw = data.encode("utf-8", "surrogateescape") if isinstance(data, str) else data
    part = path.with_name(f".{path.name[:100]}.{secrets.token_hex(4)}.part")
    try:
        with part.open("xb") as f:
            if mode is not None:
                os.fchmod(f.fileno(), mode)
            f.write(raw)
        publish(part, path)
    except OSError as e:
        raise write_error(e, path) from None
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
