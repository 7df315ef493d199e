"""Where a model of the store was pulled from: a small file beside it, NAME.gguf.origin."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass
from pathlib import Path

from agent.files import atomic_write
from agent.home import models
from agent.models.reference import HubReference
from agent.models.selector import select, stem

SUFFIX = ".origin"
_MOST_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a GGUF comes from.

    Attributes:
        repo_id: "org/name" on the Hub.
        revision: the branch, tag or commit that was asked for.
        commit: what that was then.
        files: its files in the repository; several for a model that was split.
        sha256: of each of these files, or git's SHA-1 of a small one.
        size: bytes of the GGUF in the store; a file of another size is not this one any more.
    """

    repo_id: str
    revision: str
    commit: str
    files: tuple[str, ...]
    sha256: tuple[str, ...]
    size: int

    def same_bytes(self, other: Origin | None) -> bool:
        """Whether both stand for the very same content."""
        return other is not None and (self.sha256, self.size) == (other.sha256, other.size)

    @property
    def reference(self) -> str:
        """What pulls it: "org/name:FILE"."""
        return f"{self.repo_id}:{self.files[0]}"


def origin_path(path: Path) -> Path:
    """Where the origin of a model, or of its unfinished download, is written down."""
    return path.with_name(path.name + SUFFIX)


def write_origin(path: Path, origin: Origin) -> None:
    """Note where the file at ``path`` comes from. Raises OutputError."""
    atomic_write(origin_path(path), json.dumps(asdict(origin), indent=1))


def read_origin(path: Path) -> Origin | None:
    """Where a model, or an unfinished download, comes from; None where nothing sound says so."""
    try:
        if origin_path(path).stat().st_size > _MOST_BYTES:
            return None
        data = json.loads(origin_path(path).read_bytes())
        files, hashes = tuple(map(str, data["files"])), tuple(map(str, data["sha256"]))
        origin = Origin(str(data["repo_id"]), str(data["revision"]), str(data["commit"]), files, hashes, int(data["size"]))
        whole = path.suffix == ".part" or path.stat().st_size == origin.size
    except (OSError, ValueError, TypeError, KeyError, OverflowError, RecursionError):
        return None
    return origin if whole and files and len(files) == len(hashes) else None


def how_to_finish(part: Path) -> str:
    """The command that goes on with an unfinished model: that of its pull, or the quantization that it must be."""
    origin, name = read_origin(part), part.name.removesuffix(".part").removesuffix(".gguf")
    if origin is None:
        return "the same `sprig quantize` with --resume goes on"
    other = "" if name == stem(origin.files[0]) else f" --name {shlex.quote(name)}"
    revision = "" if origin.revision == "main" else f" --revision {shlex.quote(origin.revision)}"
    return f"`sprig pull {shlex.quote(origin.reference)}{revision}{other}` goes on"


def by_origin(reference: HubReference) -> list[Path]:
    """The models of the store that were pulled from this repository, and are what its selector and revision mean."""
    try:
        beside = sorted(models().absolute().glob(f"*.gguf{SUFFIX}"))
    except OSError:
        return []
    found = []
    for path in (file.with_name(file.name.removesuffix(SUFFIX)) for file in beside):
        origin = read_origin(path)
        if origin is None or origin.repo_id.lower() != reference.repo_id.lower():
            continue
        if reference.revision in (None, origin.revision, origin.commit):
            found.append((path, origin))
    if reference.selector is not None:
        found = select(found, reference.selector, lambda pair: pair[1].files[0])
    return [path for path, _ in found]
