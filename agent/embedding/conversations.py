"""Kept conversations searched by what they mean: what users and models said, without thoughts, calls and results."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from agent.embedding.embedder import Embedder
from agent.embedding.index import Index, Refreshed, Searchable
from agent.embedding.vectors import VectorStore
from agent.messages import Role
from agent.sessions.store import Store


@dataclass(frozen=True, slots=True)
class Said:
    """What somebody said: in which session and message of it, when (seconds since 1970), and the cosine with the query."""

    session: str
    message: int
    role: Role
    created: float
    text: str
    score: float


def search_conversations(
    store: Store,
    vectors: VectorStore,
    embedder: Embedder,
    query: str,
    *,
    most: int = 5,
    without: str = "",
    seconds: float | None = None,
    cancelled: threading.Event | None = None,
    on_document: Callable[[int, int], None] = lambda seen, embedded: None,
) -> tuple[list[Said], Refreshed]:
    """What was said that is nearest to a query, the best first, and what the index took in for that.

    Args:
        without: id of a session that is left out, such as the one that asks.
        seconds, cancelled, on_document: as in ``Index.refresh``.

    Raises:
        SprigError: the model, the store or the index cannot be used.
    """
    places = {f"{place.session}/{place.message}": place for place in store.texts()}

    def read(key: str) -> str | None:
        return store.text(places[key].message) if key in places else None

    index = Index(vectors, embedder, f"sessions {store.path}")
    documents = (Searchable(key, str(place.size), partial(read, key)) for key, place in places.items())
    done = index.refresh(documents, seconds=seconds, cancelled=cancelled, on_document=on_document)
    found = index.search(
        query, read, most=most, wanted=lambda key: not without or not key.startswith(f"{without}/"), cancelled=cancelled
    )
    told = [(places[match.key], match) for match in found]
    return [Said(p.session, p.message, p.role, p.created, match.text, match.score) for p, match in told], done
