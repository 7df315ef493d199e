"""The GGUFs of a repository on the Hub: which there are, how large they are, and which of them this machine can hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from agent.errors import GGUFError, SourceError
from agent.gguf.reader import Header, parse_header
from agent.hub.client import Hub, WeightFile
from agent.hub.download import safe_name
from agent.hub.environment import current_endpoint
from agent.models.choices import context_here
from agent.models.file import NOT_FACTS, ModelFile, model_facts
from agent.models.memory import MemoryBudget
from agent.models.reference import HubReference
from agent.models.selector import is_model, quantization, select, split_part, stem


@dataclass(frozen=True, slots=True)
class RemoteModel:
    """One GGUF of a repository.

    Attributes:
        files: in their order; several for a model that is split.
    """

    files: tuple[WeightFile, ...]

    @property
    def name(self) -> str:
        """What it is called in the store: the file's own name without ``.gguf``."""
        return stem(self.files[0].name)

    @property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(file.size for file in self.files)

    @property
    def selector(self) -> str:
        """What names it behind "org/name:": its file."""
        return self.files[0].name

    @property
    def type(self) -> str:
        """The quantization that its name tells; "" where it tells none."""
        return quantization(self.files[0].name)


@dataclass(frozen=True, slots=True)
class Offer:
    """A remote model, and whether this machine can hold it.

    Attributes:
        context: tokens of context that it would get here; 0 when it does not fit or nothing is known.
        need: bytes of memory that it takes, or at least; 0 when nothing is known.
        why: why it cannot be used here; "" when it can, or nothing is known.
    """

    model: RemoteModel
    context: int = 0
    need: int = 0
    why: str = ""

    @property
    def fits(self) -> bool | None:
        """None when nothing is known."""
        return None if not (self.need or self.why) else not self.why


@dataclass(frozen=True, slots=True)
class Repository:
    """What a reference led to.

    Attributes:
        hub: where it is.
        revision: as it was asked for; commit: what that is now.
        models: its GGUFs, the smallest first.
    """

    hub: Hub
    revision: str
    commit: str
    models: tuple[RemoteModel, ...]

    def meant(self, selector: str | None) -> list[RemoteModel]:
        """The models that a selector means; all where there is none. SourceError when it means none."""
        if selector is None:
            return list(self.models)
        found = select(self.models, selector, lambda model: model.selector)
        if not found:
            there = ", ".join(model.type or model.name for model in self.models[:20])
            raise SourceError(f"{self.hub.repo_id} has no GGUF {selector!r}: it has {there}")
        return found

    def offers(self, models: Iterable[RemoteModel], budget: MemoryBudget | None = None) -> list[Offer]:
        """Whether each fits. One header is read for all: files of one model differ in the size of their weights only."""
        models, budget = list(models), budget or MemoryBudget.of(None)
        facts = self._facts(min(models, key=lambda model: model.size)) if models else None
        return [Offer(model) if facts is None else _offer(model, facts, budget) for model in models]

    def header(self, file: WeightFile) -> tuple[Header, bytes]:
        """The header of a file on the Hub, and the bytes before its first weight. Raises SourceError, GGUFError."""
        return _header(self.hub, self.commit, file)

    def _facts(self, model: RemoteModel) -> ModelFile | None:
        """What the header tells; None where it cannot be read, or tells of one part only."""
        first = model.files[0]
        try:
            header, _ = self.header(first)
            return model_facts(header.keys, header.tensors, path=Path(first.name), size=first.size, identity="")
        except (GGUFError, SourceError, *NOT_FACTS):
            return None


@lru_cache(maxsize=2)  # whether it fits is asked first, then it is pulled
def _header(hub: Hub, commit: str, file: WeightFile) -> tuple[Header, bytes]:
    data = bytearray()

    def read(start: int, stop: int) -> bytes:
        got = hub.read(commit, file, start, stop)
        data.extend(got)
        return got

    header = parse_header(read, f"{file.name} of {hub.repo_id}", file.size)
    end = min(header.data_offset, file.size)
    if len(data) < end:
        read(len(data), end)
    return header, bytes(data[:end])


def forget_headers() -> None:
    """Let the memory go that the last headers take: a large vocabulary is tens of megabytes."""
    _header.cache_clear()


def open_repository(reference: HubReference) -> Repository:
    """Look a repository up.

    Raises:
        SourceError: it cannot be reached or read, or has no GGUF; says what to do.
    """
    hub = Hub(reference.repo_id, current_endpoint())
    commit, files = hub.listing(reference.revision)
    models = _models(hub.repo_id, files)
    if not models:
        raise SourceError(
            f"{hub.repo_id} has no GGUF: `sprig quantize {hub.repo_id}` makes one of it, or look for a repository whose name "
            "ends in -GGUF"
        )
    return Repository(hub, reference.revision or "main", commit, models)


def _models(repo_id: str, files: Iterable[WeightFile]) -> tuple[RemoteModel, ...]:
    grouped: dict[str, list[WeightFile]] = {}
    for file in files:
        if is_model(file.name):
            part = split_part(safe_name(file.name, repo_id))
            grouped.setdefault(part[0] if part else file.name, []).append(file)
    found = [RemoteModel(tuple(sorted(parts, key=lambda f: f.name))) for parts in grouped.values()]
    return tuple(sorted(found, key=lambda model: (model.size, model.name)))


def _offer(model: RemoteModel, facts: ModelFile, budget: MemoryBudget) -> Offer:
    """As if the weights were mapped: of which types they are, only the file's own header would tell."""
    weights = max(0, facts.weights + model.size - facts.size)
    near = replace(facts, weights=weights, matrices={}, tied={}, size=model.size, name=model.name)
    if not near.causal:
        return Offer(model, why="an embedding model; it writes no text")
    context, need, why = context_here(near, budget)
    return Offer(model, context, need, why)
