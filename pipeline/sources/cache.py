"""Verified files in Hugging Face's own cache, so that other tools share every download.

Layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): a blob is named by its hash, the snapshot of a
commit is links to blobs. Sprig downloads into ``<blob>.sprig-part``, which a later run goes on with; the blob gets its
name only when size and hash are right and it is on the disk. What another tool put there is hashed before its first use.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

from agent.errors import OutputError, SourceError
from agent.files import atomic_write, free_disk, human_size, publish
from agent.home import home
from pipeline.sources.digest import Digest, git_sha1, sha256
from pipeline.sources.hub import Hub, WeightFile, one_line

OnBytes = Callable[[str, int, int], None]  # a file or tensor, bytes so far, bytes in all
_STEP = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def silent(name: str, done: int, total: int) -> None:
    """For whoever need not know."""


def cache_root() -> Path:
    """Hugging Face's cache: HF_HUB_CACHE or HF_HOME as they are now, or huggingface_hub's default."""
    chosen = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    if chosen:
        return Path(os.path.expandvars(chosen)).expanduser()
    if top := os.environ.get("HF_HOME"):
        return Path(os.path.expandvars(top)).expanduser() / "hub"
    return Path(constants.HF_HUB_CACHE)


def safe_name(name: str, where: str) -> str:
    """``name`` if it can only mean a file below the folder it is joined to.

    Raises:
        SourceError: absolute, climbing, with a backslash or control character, or longer than a file system takes.
    """
    parts = name.split("/")
    good = all(p not in ("", ".", "..") and len(p.encode("utf-8", "replace")) <= 255 for p in parts)
    if not good or len(name) > 1000 or "\\" in name or ":" in name or not name.isprintable():
        raise SourceError(f"{where} names the file {one_line(repr(name))}, which no honest model does; do not use it")
    return name


def fresh_digest(file: WeightFile) -> Digest:
    """The hash that proves ``file``: SHA-256 of a large file, git's SHA-1 of a small one."""
    return sha256() if file.sha256 else git_sha1(file.size)


@dataclass(frozen=True, slots=True)
class RepoCache:
    """One repository's corner of the cache."""

    repo_id: str

    @property
    def folder(self) -> Path:
        return cache_root() / f"models--{self.repo_id.replace('/', '--')}"

    def blob(self, file: WeightFile) -> Path:
        return self.folder / "blobs" / str(file.etag)

    def part(self, file: WeightFile) -> Path:
        return self.folder / "blobs" / f"{file.etag}.sprig-part"

    def pointer(self, commit: str, name: str) -> Path:
        return self.folder / "snapshots" / commit / name

    def found(self, commit: str, file: WeightFile) -> Path | None:
        """Where ``file`` lies with its right size, or None. It is not verified yet."""
        for path in (self.pointer(commit, file.name), self.blob(file)):
            with suppress(OSError):
                if path.stat().st_size == file.size:
                    return path
        return None

    def bytes_held(self, commit: str, file: WeightFile) -> int:
        """How much of ``file`` need not be downloaded any more."""
        if self.found(commit, file) is not None:
            return file.size
        with suppress(OSError):
            return min(self.part(file).stat().st_size, file.size)
        return 0

    def remember_ref(self, revision: str, commit: str) -> None:
        """Note what a branch or tag is now, for a later run without a network."""
        if revision != commit:
            path = self.folder / "refs" / revision
            with suppress(OSError, OutputError):
                path.parent.mkdir(parents=True, exist_ok=True)
                atomic_write(path, commit)

    def commit_of(self, revision: str) -> str | None:
        """The commit that the cache knows for a revision."""
        if _SHA1.fullmatch(revision):
            return revision
        with suppress(OSError, UnicodeDecodeError):
            commit = (self.folder / "refs" / revision).read_text().strip()
            return commit if _SHA1.fullmatch(commit) else None
        return None

    def snapshot_files(self, commit: str) -> list[WeightFile]:
        """What the cache holds of a commit; the hashes are the names of the blobs that the links point to."""
        top = self.folder / "snapshots" / commit
        files = []
        for path in sorted(p for p in top.rglob("*") if p.is_file()):
            name = path.readlink().name if path.is_symlink() else ""
            large, small = _SHA256.fullmatch(name), _SHA1.fullmatch(name)
            sha = name if large else None if small else _recorded(path)
            size = path.stat().st_size
            files.append(WeightFile(path.relative_to(top).as_posix(), size, sha, name if small else None))
        return files

    @contextmanager
    def locked(self, file: WeightFile) -> Iterator[None]:
        """One process at a time, with the lock that huggingface_hub itself takes for this blob."""
        path = cache_root() / ".locks" / self.folder.name / f"{file.etag}.lock"
        path.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(path):
            yield

    def link(self, commit: str, file: WeightFile) -> Path:
        """The snapshot's link to a blob; where links cannot be made the blob moves there, as huggingface_hub does."""
        blob, pointer = self.blob(file), self.pointer(commit, file.name)
        if pointer.exists() and not (blob.exists() and not pointer.samefile(blob)):
            return pointer
        pointer.parent.mkdir(parents=True, exist_ok=True)
        beside = pointer.with_name(f".{pointer.name[:200]}.{os.getpid()}")
        try:
            beside.unlink(missing_ok=True)
            beside.symlink_to(os.path.relpath(blob, pointer.parent))
            beside.replace(pointer)
        except OSError:
            blob.replace(pointer)
        return pointer


def obtain(hub: Hub, commit: str, file: WeightFile, *, offline: bool, on_progress: OnBytes = silent) -> Path:
    """The verified local path of one file of the Hub, downloaded if need be.

    Raises:
        SourceError: it cannot be had, or what was had is not what the Hub lists; a wrong file is deleted.
    """
    cache = RepoCache(hub.repo_id)
    safe_name(file.name, hub.repo_id)
    if file.etag is None:
        where = cache.pointer(commit, file.name)
        raise SourceError(f"nothing says what {where} should hold, so it cannot be verified; go online once")
    try:
        pointer = cache.found(commit, file)
        if pointer == cache.pointer(commit, file.name) and _known_digest(pointer, file) == file.etag:
            on_progress(file.name, file.size, file.size)
            return pointer  # a cache that may only be read is enough for this
        with cache.locked(file):
            return _obtain(cache, hub, commit, file, offline, on_progress)
    except OSError as e:
        what = f"cannot keep {file.name} in {cache.folder}: {e.strerror or one_line(e)}"
        raise SourceError(f"{what}; make room there or set HF_HOME") from None


def _obtain(cache: RepoCache, hub: Hub, commit: str, file: WeightFile, offline: bool, on_progress: OnBytes) -> Path:
    here = cache.found(commit, file)
    if here is not None:
        got = _known_digest(here, file)
        if got == file.etag:
            on_progress(file.name, file.size, file.size)
            return cache.link(commit, file)
        if offline:
            raise _wrong(f"{file.name} in the cache ({here})", file, got, "go online to get it again")
        if here.resolve().is_relative_to(cache_root().resolve()):  # a link may lead to somebody's own file
            here.resolve().unlink(missing_ok=True)
        here.unlink(missing_ok=True)
    elif offline:
        raise SourceError(f"{file.name} of {hub.repo_id} is not in the cache ({cache.folder}); go online to get it")
    for _ in range(2):  # what an earlier run left may be of another file
        got = _download(cache, hub, commit, file, on_progress)
        if got == file.etag:
            break
        cache.part(file).unlink(missing_ok=True)
    else:
        raise _wrong(f"{file.name} from {hub.endpoint}/{hub.repo_id}", file, got, "it was deleted; try again later")
    publish(cache.part(file), cache.blob(file))
    path = cache.link(commit, file)
    _record(path, file, got)
    return path


def _download(cache: RepoCache, hub: Hub, commit: str, file: WeightFile, on_progress: OnBytes) -> str:
    """Complete the part file from where an earlier run left it; its hash as it is then."""
    part, digest, done = cache.part(file), fresh_digest(file), 0
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab+") as out:
        if out.tell() > file.size:
            out.truncate(0)
        free, need = free_disk(part.parent), file.size - out.tell()
        if need > free:
            what = f"{file.name} needs {human_size(need)} in {part.parent}, where {human_size(free)} are free"
            raise SourceError(f"{what}; make room there or set HF_HOME")
        out.seek(0)
        while block := out.read(_STEP):
            digest.update(block)
            done += len(block)
        on_progress(file.name, done, file.size)
        told = done
        for chunk in hub.chunks(commit, file, done):
            out.write(chunk)
            digest.update(chunk)
            done += len(chunk)
            if done - told >= _STEP or done == file.size:
                on_progress(file.name, done, file.size)
                told = done
    return digest.hexdigest()


def _wrong(what: str, file: WeightFile, got: str, then: str) -> SourceError:
    kind = "SHA-256" if file.sha256 else "git SHA-1"
    return SourceError(f"{what} is not what the Hub lists: expected {kind} {file.etag}, got {got}; {then}")


# Files that were hashed once: path -> [size, mtime in ns, inode, hash]. A changed file has another stamp.


def _register() -> Path:
    return home() / "verified.json"


def _stamp(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino]


def _read_register() -> Mapping[str, Any]:
    try:
        known = json.loads(_register().read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}


def _recorded(path: Path) -> str | None:
    """The hash of a file that was verified before and has not changed since."""
    real = path.resolve()
    entry = _read_register().get(str(real))
    return str(entry[3]) if isinstance(entry, list) and len(entry) == 4 and entry[:3] == _stamp(real) else None


def _known_digest(path: Path, file: WeightFile) -> str:
    if file.etag and _recorded(path) == file.etag:
        return file.etag
    digest = fresh_digest(file)
    with path.open("rb") as f:
        while block := f.read(_STEP):
            digest.update(block)
    got = digest.hexdigest()
    if got == file.etag:
        _record(path, file, got)
    return got


def _record(path: Path, file: WeightFile, digest: str) -> None:
    """Remember a verified file. A register that cannot be written costs only a second hashing."""
    if file.sha256 is None and path.is_symlink():
        return  # small, and the name of its blob says what it should hold
    with suppress(OSError, OutputError):
        real, register = path.resolve(), _register()
        register.parent.mkdir(parents=True, exist_ok=True)
        with WeakFileLock(register.with_suffix(".lock")):
            known = {p: entry for p, entry in _read_register().items() if Path(p).exists()}
            known[str(real)] = [*_stamp(real), digest]
            atomic_write(register, json.dumps(known, indent=0, sort_keys=True))
