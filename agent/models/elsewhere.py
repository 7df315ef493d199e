"""GGUFs that other programs have on this machine: in Hugging Face's cache, Ollama's and LM Studio's folders.

They are used where they lie, by a name that says whose they are: "org/name:FILE" in the Hub's cache, "ollama:NAME:TAG",
"lmstudio:PUBLISHER/NAME/FILE". Names and files come from strangers: a file counts only where that program keeps its models.
Layouts: https://huggingface.co/docs/huggingface_hub/guides/manage-cache; Ollama's manifest/paths.go and its image manifests;
LM Studio's folders are PUBLISHER/NAME/FILE.gguf.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from agent.hub.environment import cache_root
from agent.models.reference import HubReference
from agent.models.selector import is_later_part, is_model, select

_OLLAMA_HOST, _OLLAMA_USER, _OLLAMA_TAG = "registry.ollama.ai", "library", "latest"  # what its own names leave out
_OLLAMA_LAYER = "application/vnd.ollama.image.model"
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
_MOST_MANIFEST_BYTES = 1 << 20
_LMSTUDIO = (".lmstudio/models", ".cache/lm-studio/models")


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A GGUF of another program.

    Attributes:
        name: what finds it; untrusted text.
        path: where it lies.
        place: whose it is, in words.
    """

    name: str
    path: Path
    place: str


def foreign_models() -> list[ForeignModel]:
    """All that are found. What cannot be read is left out; nothing is raised."""
    return [*_hub_cache(), *_ollama(), *_lmstudio()]


def elsewhere() -> dict[str, Path]:
    """The name of each, and where it lies."""
    return {model.name: model.path for model in foreign_models()}


def find_elsewhere(name: str) -> Path | None:
    """The model of this name, whatever its case; Ollama's tag "latest" and a ``.gguf`` may be left out."""
    wanted = {name.lower(), f"{name}.gguf".lower()}
    if name.lower().startswith("ollama:"):
        wanted.add(f"{name}:{_OLLAMA_TAG}".lower())
    return next((path for known, path in elsewhere().items() if known.lower() in wanted), None)


def in_hub_cache(reference: HubReference) -> list[Path]:
    """The GGUFs in Hugging Face's cache that a reference means."""
    folder = next((f for f in _folders(cache_root()) if f.name.lower() == _folder_name(reference.repo_id).lower()), None)
    files = [] if folder is None else _snapshot_files(folder, reference.revision)
    if reference.selector is not None:
        files = select(files, reference.selector, lambda pair: pair[0])
    return [path for _, path in files]


# The Hub's cache.


def _folder_name(repo_id: str) -> str:
    return f"models--{repo_id.replace('/', '--')}"


def _hub_cache() -> Iterator[ForeignModel]:
    for folder in _folders(cache_root()):
        kind, *parts = folder.name.split("--")
        if kind == "models" and parts:
            for name, path in _snapshot_files(folder, None):
                yield ForeignModel(f"{'/'.join(parts)}:{name}", path, "Hub cache")


def _snapshot_files(folder: Path, revision: str | None) -> list[tuple[str, Path]]:
    """Name in the repository and path of each model; of several commits that of ``main``, or else the newest, counts."""
    commits = sorted(_folders(folder / "snapshots"), key=_age)
    known = _ref(folder, revision or "main")
    if revision is not None:
        commits = [commit for commit in commits if commit.name in (revision, known)]
    found: dict[str, Path] = {}
    for commit in sorted(commits, key=lambda commit: commit.name == known):  # the last one wins
        found.update({path.relative_to(commit).as_posix(): path for path in _ggufs(commit)})
    return sorted(found.items())


def _ref(folder: Path, revision: str) -> str | None:
    if ".." in revision or revision.startswith("/"):
        return None
    with suppress(OSError, ValueError):
        return (folder / "refs" / revision).read_text()[:40]
    return None


def _age(path: Path) -> float:
    with suppress(OSError):
        return path.stat().st_mtime
    return 0.0


# Ollama.


def _ollama() -> Iterator[ForeignModel]:
    chosen = os.environ.get("OLLAMA_MODELS")
    places = [Path(chosen).expanduser()] if chosen else [_home() / ".ollama/models", Path("/usr/share/ollama/.ollama/models")]
    for top in places:
        for host in _folders(top / "manifests"):
            for user in _folders(host):
                for name in _folders(user):
                    yield from _ollama_tags(top, name, (host.name, user.name, name.name))


def _ollama_tags(top: Path, folder: Path, parts: tuple[str, str, str]) -> Iterator[ForeignModel]:
    host, user, name = parts
    shown = name if (host, user) == (_OLLAMA_HOST, _OLLAMA_USER) else f"{user}/{name}"
    shown = shown if host == _OLLAMA_HOST else f"{host}/{shown}"
    for tag in _entries(folder):
        blob = _ollama_blob(top, tag)
        if blob is not None:
            yield ForeignModel(f"ollama:{shown}:{tag.name}", blob, "Ollama")


def _ollama_blob(top: Path, manifest: Path) -> Path | None:
    """The weights that a manifest names, if they are there."""
    with suppress(OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        if not manifest.is_file() or manifest.stat().st_size > _MOST_MANIFEST_BYTES:
            return None
        for layer in json.loads(manifest.read_bytes())["layers"]:
            digest = _DIGEST.fullmatch(str(layer["digest"]))
            if layer["mediaType"] == _OLLAMA_LAYER and digest:
                blob = top / "blobs" / f"sha256-{digest[1]}"
                return blob if blob.is_file() else None
    return None


# LM Studio.


def _lmstudio() -> Iterator[ForeignModel]:
    for top in (_home() / place for place in _LMSTUDIO):
        for path in _ggufs(top):
            yield ForeignModel(f"lmstudio:{path.relative_to(top).as_posix()}", path, "LM Studio")


def _ggufs(top: Path) -> list[Path]:
    """The models in a folder and those below it; of one in parts the first."""
    found = []
    for folder, _, names in os.walk(top):  # follows no links to folders
        for name in names:
            path = Path(folder, name)
            wanted = is_model(path.relative_to(top).as_posix()) and not is_later_part(name)
            if wanted and os.path.isfile(path):  # noqa: PTH113 - as below
                found.append(path)
    return sorted(found)


def _entries(folder: Path) -> Iterable[Path]:
    with suppress(OSError):
        return sorted(folder.iterdir())
    return ()


def _folders(folder: Path) -> Iterable[Path]:
    return (path for path in _entries(folder) if os.path.isdir(path))  # noqa: PTH112 - what may not be looked at is no error to it


def _home() -> Path:
    with suppress(RuntimeError):  # no home at all
        return Path.home()
    return Path("/nonexistent")
