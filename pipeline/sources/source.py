"""MODEL as a person types it: where its files are, which of them are needed, and how they get here verified.

A Hub id is pinned to one commit at once, and every later request names that commit. Only the files that a conversion needs
are ever asked for; code is not among them. What the Hub says (file names, sizes, shard lists) is checked before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from agent.errors import SourceError, UnsupportedError
from agent.hub.client import Hub, WeightFile
from agent.hub.download import OnBytes, safe_name
from agent.hub.environment import current_endpoint, is_offline
from agent.models.find import expanded, find_model
from agent.models.reference import cached_snapshot, hub_reference
from agent.text import one_line
from pipeline.sources.adapter import CONFIG, STEM, Change, find_changes, merged_tensors, read_lora_config
from pipeline.sources.cache import RepoCache, obtain, silent
from pipeline.sources.checkpoint import (
    MAX_HEADER_BYTES,
    Checkpoint,
    MappedCheckpoint,
    TensorInfo,
    merge_headers,
    parse_safetensors_header,
    read_safetensors_header,
    refuse_pointer,
)
from pipeline.sources.json_object import json_object
from pipeline.sources.merged import MergedCheckpoint, MergedStream
from pipeline.sources.packed.find import SETTINGS_FILES, find_packing
from pipeline.sources.packed.shared.view import Packing, UnpackedCheckpoint
from pipeline.sources.shards import complete, series, some, weight_map
from pipeline.sources.stream import StreamCheckpoint
from pipeline.sources.torch_bin import TorchCheckpoint
from pipeline.sources.unread import no_checkpoint

# Everything that a conversion reads beside the weights. The last six say what an embedding model does around its layers.
SMALL_FILES = (
    "config.json", "generation_config.json", "tokenizer*.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.*", "merges.txt", "chat_template.*", "additional_chat_templates/*", "README.md",
    "modules.json", "sentence_bert_config.json", "config_sentence_transformers.json", "*_Pooling/config.json",
    "*_Dense/config.json", "*_Dense/model.safetensors",
    CONFIG, *SETTINGS_FILES,
)  # fmt: skip
OTHER_TOKENIZERS = ("tekken.json", "sentencepiece.bpe.model", "*.tiktoken", "tiktoken.model")  # read, or named as unread
MAX_SMALL_BYTES = 200_000_000
FIRST_READ_BYTES = 128 * 1024  # holds the header of most shards
CONNECTIONS = 4

_TRAINER = re.compile(r"checkpoint-\d+")
_REVISION = re.compile(r"(?!-)(?!.*(?:\.\.|//|@\{))[\w./+#-]{1,200}(?<![/.])", re.ASCII)

Format = Literal["safetensors", "bin", "gguf"]
T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Source:
    """A model and where its files are.

    Attributes:
        kind: where it is.
        name: "org/name", or the name of the folder or file.
        repo_id, revision, commit, endpoint: for a Hub model; the revision is the one asked for, the commit the pinned one.
        path: the folder or the GGUF file.
        format: of the weights.
        files: the small files by name.
        weights: the weight files that are needed, sorted by name; sizes in bytes. Empty for a GGUF.
        index: tensor -> weight file, from the checkpoint's index when it is sharded.
        token, offline: how to reach the Hub. The token is never shown.
        adapter: the LoRA adapter that is merged into this model when its weights are read; its tokenizer is among ``files``.
    """

    kind: Literal["hub", "folder", "gguf"]
    name: str
    repo_id: str | None
    revision: str | None
    commit: str | None
    endpoint: str | None
    path: Path | None
    format: Format
    files: Mapping[str, bytes]
    weights: tuple[WeightFile, ...]
    index: Mapping[str, str] | None
    token: str | None = field(default=None, repr=False, compare=False)
    offline: bool = field(default=False, compare=False)
    adapter: Source | None = None

    @property
    def is_adapter(self) -> bool:
        """Whether the weights are those of an adapter and no model."""
        return any(w.name.startswith(f"{STEM}.") for w in self.weights)

    @property
    def named(self) -> Source:
        """What a file made of this is called after: the adapter, where there is one."""
        return self.adapter or self


def open_source(model: str, *, revision: str | None = None, token: str | None = None, offline: bool = False) -> Source:
    """Find a model, or an adapter by itself, and read its small files. No weight is fetched.

    Args:
        model: a folder, a .gguf file, a model of the Hub as ``agent.models.reference`` reads it, or a name in the store.
        revision: branch, tag or commit; the same as behind the "@".
        token: for the Hub, instead of HF_TOKEN or the stored one.
        offline: use nothing but the local cache (as with HF_HUB_OFFLINE).

    Raises:
        SourceError: there is no such model, it cannot be reached, or it is not complete.
    """
    if not model.strip() or "\0" in model:
        raise SourceError("no model was named: give a folder, a .gguf file, or the id of a Hub model such as org/name")
    if (local := _open_local(model.strip(), revision)) is not None:
        return local
    reference = hub_reference(model)
    if reference is None:
        if revision is not None:
            raise SourceError(f"{one_line(repr(model))} is no model of the Hub, so it has no revision {revision!r}")
        return _open_file(find_model(model), model.strip().partition(":")[2])
    behind = reference.revision
    if behind is not None and revision is not None and behind != revision:
        raise SourceError(f"two revisions were asked for, {behind!r} and {revision!r}; give one")
    revision = behind or revision
    if revision is not None and not _REVISION.fullmatch(revision):
        raise SourceError(f"{one_line(repr(revision))} cannot be a revision: give a branch, a tag or a commit")
    return _open_hub(reference.repo_id, revision, token, offline or is_offline())


def read_config(source: Source) -> dict[str, Any]:
    """The parsed config.json. Raises SourceError when there is none, CheckpointError when it is broken."""
    raw = source.files.get("config.json")
    if raw is None:
        raise SourceError(f"{source.name} has no config.json; it is not a Hugging Face checkpoint")
    return json_object(raw, f"config.json of {source.name}")


def headers(source: Source) -> dict[str, TensorInfo]:
    """Every tensor of a checkpoint, from the files' headers alone; packed weights as the plain ones that they stand for.

    What headers do not say is fetched with the weights: all of a .bin checkpoint, and the shapes of bitsandbytes.

    Raises:
        SourceError: a header cannot be read from the Hub.
        CheckpointError: a header is broken, or the shards do not hold what the index promises.
        UnsupportedError: the weights are packed in a way that Sprig does not read.
    """
    if source.adapter is not None:
        base, adapter = headers(replace(source, adapter=None)), headers(source.adapter)
        return merged_tensors(base, adapter, changes_by(source.adapter, adapter, base))
    stored = _stored_headers(source)
    packing = _packing(source, stored)
    return packing.shown(stored) if packing else stored


def _stored_headers(source: Source) -> dict[str, TensorInfo]:
    _refuse_gguf(source)
    if source.format == "bin":
        with TorchCheckpoint(fetch(source), source.index) as checkpoint:
            return dict(checkpoint.tensors)
    if source.kind == "folder":
        return _local_headers(source, _folder_paths(source))
    cache, commit, _ = _places(source)
    held = {w.name: cache.found(commit, w) for w in source.weights}
    heads = _heads(source, [w for w in source.weights if held[w.name] is None])
    tables = _tables(source, heads)
    tables |= {name: read_safetensors_header(path, name) for name, path in held.items() if path is not None}
    return merge_headers({w.name: tables[w.name] for w in source.weights}, source.index)


def cached_bytes(source: Source) -> int:
    """Bytes of the weights that need not be downloaded any more, an unfinished download included."""
    if source.kind != "hub":
        return sum(w.size for w in source.weights)
    cache, commit, _ = _places(source)
    return sum(cache.bytes_held(commit, w) for w in source.weights)


def fetch(source: Source, on_progress: OnBytes = silent) -> dict[str, Path]:
    """All weight files on this disk, each proved against the Hub's hash; a download that was cut goes on where it was.

    Args:
        on_progress: called with a file's name, its bytes so far and its size.

    Raises:
        SourceError: a file cannot be had, or is not the one that the Hub lists.
    """
    if source.kind != "hub":
        return _folder_paths(source)
    _, commit, hub = _places(source)
    return {w.name: obtain(hub, commit, w, offline=source.offline, on_progress=on_progress) for w in source.weights}


def open_checkpoint(source: Source, *, stream: bool = False, on_progress: OnBytes = silent) -> Checkpoint:
    """The tensors of a model, ready to be read.

    Args:
        stream: read from the Hub as it goes, with nothing on this disk; only for safetensors on the Hub.
        on_progress: as for ``fetch``.

    Raises:
        SourceError, CheckpointError, UnsupportedError: as for ``fetch`` and ``headers``.
    """
    _refuse_gguf(source)
    if source.adapter is not None:
        if stream:
            return _open_stream(source)
        base = open_checkpoint(replace(source, adapter=None), on_progress=on_progress)
        adapter = open_checkpoint(source.adapter, on_progress=on_progress)
        return MergedCheckpoint(base, adapter, changes_by(source.adapter, adapter.tensors, base.tensors))
    stored = _open_stream(source) if stream else _open_stored(source, on_progress)
    packing = _packing(source, stored.tensors)
    return UnpackedCheckpoint(stored, packing) if packing else stored


def _open_stored(source: Source, on_progress: OnBytes = silent) -> Checkpoint:
    """The tensors as the files have them."""
    paths = fetch(source, on_progress)
    if source.format == "bin":
        return TorchCheckpoint(paths, source.index)
    return MappedCheckpoint(Path(), _local_headers(source, paths), paths)


def changes_by(adapter: Source, theirs: Mapping[str, TensorInfo], base: Mapping[str, TensorInfo]) -> dict[str, Change]:
    """What an adapter with these tensors makes of the base's. Raises CheckpointError or UnsupportedError."""
    return find_changes(read_lora_config(adapter.files.get(CONFIG), adapter.name), theirs, base, adapter.name)


def _packing(source: Source, stored: Mapping[str, TensorInfo]) -> Packing | None:
    """How the weights are packed, or None when they are plain."""
    if "config.json" not in source.files:
        return None
    with ExitStack() as stack:
        opened = cache(lambda: stack.enter_context(_open_stored(source)))
        content = lambda name: opened().rows(name, 0, opened().tensors[name].n_rows).tobytes()  # noqa: E731
        return find_packing(read_config(source), source.files, stored, content)


# Local files.


def _open_local(model: str, revision: str | None) -> Source | None:
    """The model at a path, or None when there is nothing at it."""
    try:
        path = expanded(model)
        if not path.is_dir() and not path.is_file():
            return None
        if revision is not None:
            raise SourceError(f"{model} is a local path, which has no revision {revision!r}; leave the revision out")
        return _open_folder(path) if path.is_dir() else _open_file(path)
    except OSError as e:
        raise SourceError(f"cannot read {one_line(model)}: {e.strerror or one_line(e)}") from None


def _open_file(path: Path, tag: str = "") -> Source:
    with path.open("rb") as f:
        head = f.read(64)
    refuse_pointer(str(path), head)
    if not head.startswith(b"GGUF"):
        raise SourceError(f"{path} is not a GGUF file; for a checkpoint give the folder that it lies in")
    name = path.name if path.suffix.lower() == ".gguf" else tag or path.name  # Ollama's files are called by their hash
    return Source("gguf", name, None, None, None, None, path, "gguf", {}, (), None)


def _open_folder(folder: Path) -> Source:
    snapshot = cached_snapshot(folder)
    folder, name = (snapshot.path, snapshot.repo_id) if snapshot else (folder, _name_of(folder))
    inside = [p for p in (*folder.glob("*"), *folder.glob("*/*")) if p.is_file()]
    listed = [WeightFile(p.relative_to(folder).as_posix(), p.stat().st_size, None, None) for p in inside]
    kind, files, weights, index = _contents(listed, name, str(folder), lambda file: (folder / file.name).read_bytes())
    if kind == "gguf":
        if len(weights) == 1:
            return _open_file(folder / weights[0].name)
        names = some([w.name for w in weights])
        raise SourceError(f"{folder} holds {len(weights)} GGUF files and no checkpoint; name one of them: {names}")
    repo, commit = (snapshot.repo_id, snapshot.commit) if snapshot else (None, None)
    return Source("folder", name, repo, None, commit, None, folder, kind, files, weights, index)


def _name_of(folder: Path) -> str:
    """A folder's name; for what a Trainer saves now and then, like ``checkpoint-500``, with the name of the folder around it."""
    folder = folder.resolve()
    return f"{folder.parent.name}-{folder.name}" if _TRAINER.fullmatch(folder.name) and folder.parent.name else folder.name


def _folder_paths(source: Source) -> dict[str, Path]:
    assert source.path is not None
    return {w.name: source.path / w.name for w in source.weights}


def _local_headers(source: Source, paths: Mapping[str, Path]) -> dict[str, TensorInfo]:
    return merge_headers({name: read_safetensors_header(path, name) for name, path in paths.items()}, source.index)


# The Hub.


def _open_hub(repo_id: str, revision: str | None, token: str | None, offline: bool) -> Source:
    hub, cache, asked = Hub(repo_id, current_endpoint(), token), RepoCache(repo_id), revision or "main"
    if offline:
        commit = cache.commit_of(asked)
        listed = cache.snapshot_files(commit) if commit is not None else []
        if commit is None or not listed:
            raise SourceError(f"{repo_id}@{asked} is not in the cache ({cache.folder}); go online to get it")
    else:
        commit, listed = hub.listing(revision)
        cache.remember_ref(asked, commit)
    pinned = commit
    where = f"the cache of {repo_id}, which is used offline," if offline else repo_id
    kind, files, weights, index = _contents(
        listed, repo_id, where, lambda file: obtain(hub, pinned, file, offline=offline).read_bytes()
    )
    if kind == "gguf":
        names = some([w.name for w in weights])
        raise SourceError(f"{repo_id} holds only GGUF files ({names}): `sprig pull {repo_id}` brings one")
    return Source("hub", repo_id, repo_id, revision, commit, hub.endpoint, None, kind, files, weights, index, token, offline)


def _places(source: Source) -> tuple[RepoCache, str, Hub]:
    assert source.repo_id is not None
    assert source.commit is not None
    assert source.endpoint is not None
    return RepoCache(source.repo_id), source.commit, Hub(source.repo_id, source.endpoint, source.token)


def _heads(source: Source, weights: Iterable[WeightFile]) -> dict[str, bytes]:
    """The first bytes of each file, up to its first tensor."""
    _, commit, hub = _places(source)
    wanted = list(weights)
    if wanted and source.offline:
        raise SourceError(f"{wanted[0].name} of {source.name} is not in the cache; go online to get it")

    def read(file: WeightFile) -> bytes:
        head = hub.read(commit, file, 0, min(file.size, FIRST_READ_BYTES))
        end = 8 + int.from_bytes(head[:8], "little")
        if len(head) < end <= min(file.size, 8 + MAX_HEADER_BYTES):
            head += hub.read(commit, file, len(head), end)
        return head[:end]

    return dict(zip((w.name for w in wanted), _at_once(read, wanted), strict=True))


def _tables(source: Source, heads: Mapping[str, bytes]) -> dict[str, dict[str, TensorInfo]]:
    return {w.name: parse_safetensors_header(w.name, heads[w.name], w.size) for w in source.weights if w.name in heads}


def _open_stream(source: Source) -> StreamCheckpoint:
    if source.kind != "hub":
        raise SourceError(f"--stream reads from the Hub, and {source.name} is on this disk already; leave it out")
    if source.format != "safetensors":
        raise SourceError(f"{source.name} is a .bin checkpoint, which cannot be streamed; leave --stream out")
    unproved = [w.name for w in source.weights if w.etag is None]
    if unproved or source.offline:
        raise SourceError(f"--stream needs the Hub, and {source.name} is used offline; leave one of the two out")
    _, commit, hub = _places(source)
    heads = _heads(source, source.weights)
    tensors = merge_headers(_tables(source, heads), source.index)
    if source.adapter is None:
        return StreamCheckpoint(hub, commit, source.weights, heads, tensors)
    adapter = open_checkpoint(source.adapter)
    changes = changes_by(source.adapter, adapter.tensors, tensors)
    return MergedStream(hub, commit, source.weights, heads, tensors, adapter, changes)


# Which files.


def _is_small(name: str, patterns: Sequence[str] = (*SMALL_FILES, *OTHER_TOKENIZERS)) -> bool:
    """Whether a conversion reads this file. A pattern reaches no deeper than it is written."""
    return any(
        fnmatchcase(name, pattern) and (name.count("/") == pattern.count("/") or ".." in name or "\\" in name)
        for pattern in patterns
    )


def _contents(
    listed: Iterable[WeightFile], name: str, where: str, read: Callable[[WeightFile], bytes]
) -> tuple[Format, dict[str, bytes], tuple[WeightFile, ...], dict[str, str] | None]:
    """What ``Source`` calls format, files, weights and index; of GGUF files only the weights. Raises as ``_choose``."""
    by_name = {file.name: file for file in listed}

    def read_small(name: str) -> bytes:
        if by_name[name].size > MAX_SMALL_BYTES:
            what = f"{name} has {by_name[name].size} bytes, which is no honest size for such a file"
            raise SourceError(f"{what}; do not use this model")
        raw = read(by_name[name])
        refuse_pointer(f"{name} of {where}", raw)
        return raw

    kind, weights, index_name = _choose(by_name, where, read_small)
    patterns = SMALL_FILES if "tokenizer.json" in by_name else (*SMALL_FILES, *OTHER_TOKENIZERS)
    wanted = [n for n in sorted(by_name) if _is_small(n, patterns)] + ([index_name] if index_name else [])
    small = [] if kind == "gguf" else wanted
    files = dict(zip(small, _at_once(read_small, small), strict=True))
    index = weight_map(files[index_name], index_name, name) if index_name else None
    return kind, files, tuple(by_name[n] for n in weights), index


def _choose(names: Iterable[str], where: str, read: Callable[[str], bytes]) -> tuple[Format, list[str], str | None]:
    """The best format there is, its weight files, and the index file if it has one.

    Raises:
        SourceError: no weights, a shard is missing, or a name is not safe.
    """
    there = set(names)
    for name in filter(_is_small, there):
        safe_name(name, where)
    kinds: tuple[tuple[Format, str, str], ...] = (("safetensors", "model", ".safetensors"), ("bin", "pytorch_model", ".bin"))
    for kind, stem, suffix in kinds:
        index = f"{stem}{suffix}.index.json"
        if f"{stem}{suffix}" in there:
            return kind, [f"{stem}{suffix}"], None
        if index in there:
            shards = sorted(set(weight_map(read(index), index, where).values()))
            return kind, complete(shards, there, where, suffix), index
        if shards := series(there, stem, suffix):
            return kind, complete(shards, there, where, suffix), None
    for kind, _, suffix in kinds:
        if f"{STEM}{suffix}" in there:
            return kind, [f"{STEM}{suffix}"], None
    if ggufs := sorted(n for n in there if "/" not in n and n.lower().endswith(".gguf")):
        return "gguf", ggufs, None
    raise no_checkpoint(there, where)


def _refuse_gguf(source: Source) -> None:
    if source.format == "gguf":
        raise UnsupportedError(f"{source.name} is a GGUF file, not a checkpoint")


def _at_once(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return list(pool.map(function, items))
