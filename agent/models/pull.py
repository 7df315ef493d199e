"""A ready GGUF comes from the Hub into the store: fitted, downloaded, proved and checked before it gets its name.

A cut download goes on where it was, in this run and the next. The parts of a split GGUF are written behind one another into
one file, so that a model is one file everywhere on the device; each part is proved by its own hash on the way.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from agent.errors import GGUFError, OutputError, SprigError
from agent.files import exclusive, free_disk, human_size, publish, write_error
from agent.gguf.check import check, check_header
from agent.gguf.join import joined_head
from agent.gguf.reader import MAX_HEADER_BYTES, Header, parse_header
from agent.home import models
from agent.hub.client import WeightFile
from agent.hub.download import Digest, fetch_into, git_sha1, wrong_hash
from agent.models.origin import Origin, origin_path, read_origin, write_origin
from agent.models.remote import RemoteModel, Repository, forget_headers
from agent.models.store import StoreError, may_be_a_name
from agent.progress import OnProgress, Progress


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is in the store now.

    Attributes:
        name: in the store; path: of its file; size: in bytes.
        origin: where it comes from.
        new: False when it was there already, and nothing was downloaded.
    """

    name: str
    path: Path
    size: int
    origin: Origin
    new: bool

    def to_dict(self) -> dict[str, Any]:
        """For a script."""
        origin = self.origin
        return {
            "name": self.name, "path": str(self.path), "size": self.size, "new": self.new, "repo": origin.repo_id,
            "revision": origin.revision, "commit": origin.commit, "files": list(origin.files), "sha256": list(origin.sha256),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Piece:
    """One file of the Hub in the model: its first bytes, which are not kept, and where the others lie."""

    file: WeightFile
    head: bytes
    at: int


@dataclass(frozen=True, slots=True)
class _Plan:
    """What a model in the store is made of: ``head``, and the pieces behind it, ``size`` bytes in all."""

    head: bytes
    pieces: tuple[_Piece, ...]
    size: int


def pull(
    repository: Repository, model: RemoteModel, *, name: str | None = None,
    on_progress: OnProgress = lambda step: None,
) -> Pulled:  # fmt: skip
    """Bring a model into the store.

    Args:
        name: in the store; by default that of its file.
        on_progress: what it raises ends the pull; what came until then is gone on with the next time.

    Raises:
        SourceError: the Hub fails, or sends something else than it lists.
        GGUFError: llama.cpp must not be given this model.
        OutputError: there is no room for it, or it cannot be written.
        StoreError: it cannot have this name in the store.
    """
    name = (name or model.name).removesuffix(".gguf")
    final = _place(name)
    where = f"{model.files[0].name} of {repository.hub.repo_id}"
    if any(file.etag is None for file in model.files):
        raise SprigError(f"the Hub tells no hash of {where}, so it could not be proved; take another file")
    try:
        there = _there(final, repository, model)
    except OSError as e:
        raise write_error(e, final) from None
    if there is not None:
        return Pulled(name, final, there.size, there, new=False)
    plan = _plan(repository, model, where)
    forget_headers()
    origin = Origin(
        repository.hub.repo_id, repository.revision, repository.commit, tuple(file.name for file in model.files),
        tuple(str(file.etag) for file in model.files), plan.size,
    )  # fmt: skip
    part = final.with_name(f"{final.name}.part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(part) as fd:
            _fill(fd, part, plan, origin, repository, on_progress)
            try:
                check(part)
            except GGUFError:
                _forget(part)
                raise
            publish(part, final)
            origin_path(part).replace(origin_path(final))
    except OSError as e:
        raise write_error(e, final) from None
    return Pulled(name, final, plan.size, origin, new=True)


def _place(name: str) -> Path:
    if not may_be_a_name(name) or not name.isprintable():
        raise StoreError(f"{name!r} cannot be the name of a stored model; `sprig pull ... --name NAME` gives another one")
    return models().absolute() / f"{name}.gguf"


def _there(final: Path, repository: Repository, model: RemoteModel) -> Origin | None:
    """The origin of what has this name already, if it is this very model. StoreError if it is another one."""
    if not final.exists():
        return None
    part = final.with_name(f"{final.name}.part")
    if not part.exists() and (left := read_origin(part)) and left.size == final.stat().st_size:
        origin_path(part).replace(origin_path(final))  # an earlier run was killed right before this
    had, hub = read_origin(final), repository.hub
    names = tuple(file.name for file in model.files)
    if had is not None and had.repo_id == hub.repo_id and had.files == names:
        # The same file of another commit is the new version, which takes its place.
        return had if had.sha256 == tuple(str(file.etag) for file in model.files) else None
    whose = f"which was pulled from {had.reference}" if had else "which did not come from there"
    raise StoreError(
        f"the store has another {final.name}, {whose}: `sprig pull {shlex.quote(hub.repo_id)} --name NAME` gives this one "
        f"another name, or `sprig models remove {shlex.quote(final.stem)}` makes room for it"
    )


def _plan(repository: Repository, model: RemoteModel, where: str) -> _Plan:
    """Read the headers on the Hub, so that what could not be used is refused before it is downloaded."""
    if len(model.files) == 1:
        (file,) = model.files
        header, _ = repository.header(file)
        check_header(header, where)
        return _Plan(b"", (_Piece(file, b"", 0),), file.size)
    parts: list[tuple[Header, bytes]] = []
    for file in model.files:
        parts.append(repository.header(file))
        if sum(len(first) for _, first in parts) > MAX_HEADER_BYTES:
            raise GGUFError(f"the headers of {where} and its other parts are larger than any model's; take another one")
    head = joined_head([header for header, _ in parts], where)
    pieces, end = [], len(head)
    for file, (_, first) in zip(model.files, parts, strict=True):
        pieces.append(_Piece(file, first, end))
        end += file.size - len(first)
    check_header(parse_header(lambda start, stop: head[start:stop], where, end), where)
    return _Plan(head, tuple(pieces), end)


def _fill(fd: int, part: Path, plan: _Plan, origin: Origin, repository: Repository, on_progress: OnProgress) -> None:
    """Write the whole model into the part file, going on with what an earlier run left of this very model."""
    if not origin.same_bytes(read_origin(part)):
        os.ftruncate(fd, 0)
    if os.fstat(fd).st_size > plan.size:
        os.ftruncate(fd, 0)
    missing, free = plan.size - os.fstat(fd).st_size, free_disk(part)
    if missing > free:
        _forget_empty(fd, part, plan)
        raise OutputError(
            f"{part.stem} needs {human_size(missing)} more, {human_size(free)} free on {part.parent}: make room, or name "
            "another place with SPRIG_HOME"
        )
    write_origin(part, origin)
    try:
        with os.fdopen(os.dup(fd), "r+b") as out:
            out.write(plan.head)
            for piece in plan.pieces:
                _fill_piece(out, piece, plan, repository, on_progress)
    finally:
        _forget_empty(fd, part, plan)


def _fill_piece(out: BinaryIO, piece: _Piece, plan: _Plan, repository: Repository, on_progress: OnProgress) -> None:
    file, kept = piece.file, len(piece.head)

    def show(done: int) -> None:
        on_progress(Progress("download", piece.at + done - kept, plan.size, "bytes"))

    held = out.seek(0, os.SEEK_END) > piece.at
    for _ in range(2 if held else 1):  # what an earlier run left may have been spoiled since
        digest = _fresh_digest(file)
        got = fetch_into(out, repository.hub, repository.commit, file, digest, show, at=piece.at, head=piece.head)
        if got == file.etag:
            return
        out.truncate(piece.at)
    where = f"{file.name} from {repository.hub.endpoint}/{repository.hub.repo_id}"
    raise wrong_hash(where, file, got, "nothing of it was kept; try again later")


def _fresh_digest(file: WeightFile) -> Digest:
    return hashlib.sha256() if file.sha256 else git_sha1(file.size)


def _forget_empty(fd: int, part: Path, plan: _Plan) -> None:
    """A part that holds no weights is no unfinished model."""
    if os.fstat(fd).st_size <= len(plan.head):
        _forget(part)


def _forget(part: Path) -> None:
    for path in (part, origin_path(part)):
        with contextlib.suppress(OSError):
            path.unlink()
