"""Verified files in Hugging Face's own cache, so that other tools share every download.

Layout (https://huggingface.co/docs/huggingface_hub/guides/manage-cache): a blob is named by its hash, the snapshot of a
commit is links to blobs. Sprig downloads into ``<blob>.sprig-part``, which a later run goes on with; the blob gets its
name only when size and hash are right and it is on the disk. What another tool put there is hashed before its first use.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import OutputError, SourceError
from agent.files import atomic_write, free_disk, human_size, publish
from agent.home import home
from agent.hub.client import Hub, WeightFile
from agent.hub.download import Digest, OnBytes, fetch_into, git_sha1, safe_name, wrong_hash
from agent.hub.environment import cache_root
from agent.text import one_line
from pipeline.sources.digest import sha256

_STEP = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SHA1 = re.compile(r"[0-9a-f]{40}")


def silent(name: str, done: int, total: int) -> None:
    """For whoever need not know."""


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
        with _lock(path):
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
            raise wrong_hash(f"{file.name} in the cache ({here})", file, got, "go online to get it again")
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
        raise wrong_hash(f"{file.name} from {hub.endpoint}/{hub.repo_id}", file, got, "it was deleted; try again later")
    publish(cache.part(file), cache.blob(file))
    path = cache.link(commit, file)
    _record(path, file, got)
    return path


def _download(cache: RepoCache, hub: Hub, commit: str, file: WeightFile, on_progress: OnBytes) -> str:
    """Complete the part file from where an earlier run left it; its hash as it is then."""
    part = cache.part(file)
    part.parent.mkdir(parents=True, exist_ok=True)
    with part.open("ab+") as out:
        if out.tell() > file.size:
            out.truncate(0)
        free, need = free_disk(part.parent), file.size - out.tell()
        if need > free:
            what = f"{file.name} needs {human_size(need)} in {part.parent}, where {human_size(free)} are free"
            raise SourceError(f"{what}; make room there or set HF_HOME")
        return fetch_into(out, hub, commit, file, fresh_digest(file), lambda done: on_progress(file.name, done, file.size))


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
        with _lock(register.with_suffix(".lock")):
            known = {p: entry for p, entry in _read_register().items() if Path(p).exists()}
            known[str(real)] = [*_stamp(real), digest]
            atomic_write(register, json.dumps(known, indent=0, sort_keys=True))


def _lock(path: Path) -> AbstractContextManager[object]:
    """A lock as huggingface_hub takes it; its import costs more than the rest of a start, and a folder needs no lock."""
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    return WeakFileLock(path)
