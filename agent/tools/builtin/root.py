"""A folder that file tools never leave: every component is opened by itself, and no symbolic link is followed.

This is ``openat`` with ``O_NOFOLLOW`` step by step (openat(2)), which holds against a folder that is swapped for a link in
between. ``openat2`` would do it in one call, but Android kills a process that makes it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

from agent.children.protected import OF_REPOSITORY, is_named_by_git, is_protected, is_repository
from agent.errors import SprigError
from agent.text import display, shortened

# What nobody looks for when they look for files.
_PASSED_OVER = frozenset({".git", "node_modules", "__pycache__", ".venv", ".sprig"})
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY  # a FIFO must not make us wait
MAX_COMPONENTS = 64
_MAX_PATH = 4095  # bytes that the kernel takes at once (PATH_MAX); beyond, nobody could ask whose a folder is


class RootError(SprigError):
    """A path is outside the root, is not a regular file, or cannot be opened; the message is for the model."""


class MissingError(RootError):
    """Nothing lies at a path."""


class Root:
    """The folder and what may be done below it.

    Args:
        path: an existing folder; symbolic links on the way to it are its owner's business and are followed once, now.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(os.path.realpath(path))
        self._given = Path(os.path.abspath(path))  # noqa: PTH100  (lexically)
        if not self.path.is_dir():
            raise RootError(f"{display(str(path))} is no folder: the file tools need an existing one as their root")

    def parts(self, path: str) -> tuple[str, ...]:
        """The components of a model's path below the root; () for the root itself.

        Raises:
            RootError: it leads outside, or is no path.
        """
        if "\0" in path:
            raise RootError("this is no path")
        with contextlib.suppress(UnicodeError):
            path.encode()
            pure = PurePosixPath(path or ".")
            if pure.is_absolute():
                for base in (self.path, self._given):
                    if pure.is_relative_to(base):
                        pure = PurePosixPath(pure.relative_to(base))
                        break
                else:
                    raise self._outside(path)
            found = path_parts(str(pure))
            if found is None:
                raise self._outside(path)
            whole = os.fsencode(self.path.joinpath(*found))
            if len(found) > MAX_COMPONENTS or any(len(p) > 255 for p in whole.split(b"/")) or len(whole) > _MAX_PATH:
                raise RootError("the path is too long")
            return found
        raise RootError("this is no path")

    def _outside(self, path: str) -> RootError:
        return RootError(f"{_shown(path)} is outside the folder {_shown(str(self.path))}: only what lies in it can be reached")

    @contextlib.contextmanager
    def folder(self, parts: Sequence[str], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder. ``make`` creates what is missing. Raises RootError."""
        try:
            fd = os.open(self.path, _FOLDER)
        except OSError as e:
            raise _refusal(e, str(self.path)) from None
        try:
            for i, part in enumerate(parts, 1):
                fd = self._step(fd, part, "/".join(parts[:i]), make)
            yield fd
        finally:
            os.close(fd)

    def _step(self, fd: int, part: str, shown: str, make: bool) -> int:
        try:
            if make:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o777, dir_fd=fd)
            inner = os.open(part, _FOLDER, dir_fd=fd)
        except OSError as e:
            raise _refusal(e, shown) from None
        os.close(fd)
        return inner

    @contextlib.contextmanager
    def file(self, path: str) -> Iterator[int]:
        """A descriptor of a regular file, for reading. Raises RootError."""
        parts = self.parts(path)
        if not parts:
            raise RootError(f"{_shown(path)} is a folder, not a file")
        with self.folder(parts[:-1]) as folder:
            try:
                fd = os.open(parts[-1], _FILE, dir_fd=folder)
            except OSError as e:
                raise _refusal(e, "/".join(parts)) from None
        try:
            mode = os.fstat(fd).st_mode
            if not stat.S_ISREG(mode):
                raise RootError(f"{_shown(path)} is {_kind(mode)}, not a file")
            yield fd
        finally:
            os.close(fd)

    def files(self, path: str = ".") -> Iterator[tuple[str, int]]:
        """The regular files at a path and below it, by their paths, each with a descriptor that is open until the next one. What
        programs keep for themselves is passed over, and no link is followed. Raises RootError."""
        parts = self.parts(path)
        try:
            with self.folder(parts) as folder:
                yield from _below(folder, "/".join(parts))
        except RootError:
            if not parts:
                raise
            with self.file(path) as fd:
                yield "/".join(parts), fd

    def check_writable(self, path: str) -> tuple[str, ...]:
        """The components of a path that a tool may write. Raises RootError."""
        parts = self.parts(path)
        if not parts or path.endswith("/"):
            raise RootError(f"{_shown(path)} is a folder, not a file")
        named = is_protected((self.path.name, *parts)) or parts[-1].casefold() == "head"
        if named or self._is_of_git(parts) or self._is_own(parts):
            raise RootError(f"{_shown(path)} may not be written: it decides what runs here, so it is yours to change")
        return parts

    def _is_own(self, parts: tuple[str, ...]) -> bool:
        """Whether it lies in Sprig's home, which is below the root: settings there decide what may run."""
        from agent.home import home  # a confined child, which imports this module too, has no other packages

        own = Path(os.path.realpath(home()))
        return own.is_relative_to(self.path) and self.path.joinpath(*parts).is_relative_to(own)

    def _is_of_git(self, parts: tuple[str, ...]) -> bool:
        """Whether it lies in a repository without a work tree, or where git is told to look for its configuration and hooks."""
        named = is_named_by_git(str(self.path), str(self.path.joinpath(*parts)))
        own = parts[0].casefold() in map(str.casefold, OF_REPOSITORY) and is_repository(str(self.path))
        folders = (self.path.joinpath(*parts[:i]) for i in range(1, len(parts)))
        return named or own or any(is_repository(str(folder)) for folder in folders)

    def write(self, path: str, data: bytes) -> None:
        """Write a file in one step: a reader sees the old content or the new; missing folders are made. Raises RootError."""
        parts = self.check_writable(path)
        name, shown = parts[-1], "/".join(parts)
        with self.folder(parts[:-1], make=True) as folder:
            mode = 0o666 & ~_umask()
            with contextlib.suppress(FileNotFoundError):
                before = os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode
                if not stat.S_ISREG(before):
                    raise RootError(f"{_shown(path)} is {_kind(before)}, not a file")
                mode = stat.S_IMODE(before) & 0o777
            part = f".{secrets.token_hex(8)}.part"
            try:
                fd = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
                with os.fdopen(fd, "wb") as f:
                    f.write(data)
                    f.flush()
                    os.fchmod(fd, mode)
                    os.fsync(fd)
                os.rename(part, name, src_dir_fd=folder, dst_dir_fd=folder)
            except OSError as e:
                raise _refusal(e, shown) from None
            finally:
                with contextlib.suppress(OSError):
                    os.unlink(part, dir_fd=folder)
            with contextlib.suppress(OSError):  # a folder on FUSE cannot be synced
                os.fsync(folder)


def _below(folder: int, prefix: str) -> Iterator[tuple[str, int]]:
    for where, folders, names, here in os.fwalk(".", dir_fd=folder, follow_symlinks=False):
        folders[:] = sorted(name for name in folders if name not in _PASSED_OVER)
        for name in sorted(names):
            try:
                fd = os.open(name, _FILE, dir_fd=here)
            except OSError:
                continue
            try:
                if stat.S_ISREG(os.fstat(fd).st_mode):
                    yield os.path.normpath(os.path.join(prefix, where, name)), fd  # noqa: PTH118
            finally:
                os.close(fd)


def path_parts(path: str) -> tuple[str, ...] | None:
    """The components of a path below a root, without ``..``; None if it leads out of it."""
    parts: list[str] = []
    for part in PurePosixPath(path).parts:
        if part != "..":
            parts.append(part)
        elif not parts:
            return None
        else:
            parts.pop()  # as no link is ever followed, a/.. is where a lies
    return tuple(parts)


def _umask() -> int:
    """This process's umask, read where that changes nothing for other threads (proc(5), Linux 4.7)."""
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Umask:")).split()[1], 8)
    return 0o022


def _shown(path: str) -> str:
    return shortened(display(path), 200)


def _kind(mode: int) -> str:
    kinds = (
        (stat.S_ISDIR, "a folder"), (stat.S_ISLNK, "a symbolic link"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"),
    )  # fmt: skip
    return next((name for test, name in kinds if test(mode)), "a device")


_REFUSALS: dict[int | None, str] = {
    errno.ELOOP: "is a symbolic link: links are not followed", errno.EMLINK: "is a symbolic link: links are not followed",
    errno.ENOENT: "does not exist", errno.ENOTDIR: "is no folder, or a symbolic link",  # a link to a folder says this as well
    errno.ENXIO: "is a socket or pipe, not a file",
}  # fmt: skip


def _refusal(error: OSError, path: str) -> RootError:
    said = _REFUSALS.get(error.errno)
    kind = MissingError if error.errno == errno.ENOENT else RootError
    return kind(f"{_shown(path)} {said}" if said else f"{_shown(path)}: {error.strerror}")
