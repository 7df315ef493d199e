"""Documents found by what they mean: only what changed is embedded again, what is gone is forgotten, nothing is half done."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.embedding.conversations import search_conversations
from agent.embedding.embedder import Embedder
from agent.embedding.index import Index, Refreshed, Searchable
from agent.embedding.vectors import Fingerprint, VectorStore, VectorStoreError
from agent.errors import SprigError
from agent.messages import Message
from agent.sessions.store import Store
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def embedder(tmp_path_factory: pytest.TempPathFactory, module_home: None) -> Iterator[Embedder]:
    path = llama(tmp_path_factory.mktemp("m") / "mean.gguf", llama__pooling_type=1, llama__context_length=600)
    with Embedder(path, threads=1) as made:
        yield made


@pytest.fixture
def vectors(tmp_path: Path) -> Iterator[VectorStore]:
    with VectorStore(tmp_path / "vectors.db") as store:
        yield store


TEXTS = {"a": "the dog barks", "b/c": "cats sleep\n\n" + "z " * 600 + "\n\nquiet nights", "b/d": "", "e": "a quiet night"}


def documents(texts: dict[str, str], read: list[str] | None = None, stamp: str = "") -> list[Searchable]:
    def reader(key: str) -> str:
        if read is not None:
            read.append(key)
        return texts[key]

    return [Searchable(key, stamp and f"{stamp}{len(text)}", lambda key=key: reader(key)) for key, text in texts.items()]  # type: ignore[misc]


def test_the_nearest_piece_comes_first_with_its_lines(vectors: VectorStore, embedder: Embedder) -> None:
    index = Index(vectors, embedder, "here")
    assert index.refresh(documents(TEXTS)) == Refreshed(4, 4, True)
    best = index.search("the dog barks", TEXTS.get, most=2)
    assert (best[0].key, best[0].first, best[0].last, best[0].text) == ("a", 1, 1, "the dog barks")
    assert best[0].score == pytest.approx(1, abs=1e-4)
    assert best[0].score >= best[1].score
    assert all(m.key.startswith("b/") for m in index.search("dog", TEXTS.get, wanted=lambda key: key.startswith("b/")))
    assert index.search("dog", {}.get) == []


def test_only_what_changed_is_embedded_again(vectors: VectorStore, embedder: Embedder) -> None:
    index, read = Index(vectors, embedder, "here"), list[str]()
    assert index.refresh(documents(TEXTS, read, "s")).embedded == 4
    assert index.refresh(documents(TEXTS, read, "s")) == Refreshed(4, 0, True)
    assert len(read) == 4
    assert index.refresh(documents(TEXTS, read, "t")).embedded == 0  # other stamps, the same texts
    changed = {**TEXTS, "a": "the cow moos"}
    assert index.refresh(documents(changed, read, "t")).embedded == 0 + (len("the cow moos") != len(TEXTS["a"]))
    assert index.refresh(documents(changed, read)).embedded == 0
    del changed["e"]
    assert index.refresh(documents(changed)) == Refreshed(3, 0, True)
    assert set(vectors.known("here", index._model)) == {"a", "b/c", "b/d"}


def test_another_model_begins_anew_and_another_place_is_left_alone(
    vectors: VectorStore, embedder: Embedder, tmp_path: Path
) -> None:
    Index(vectors, embedder, "here").refresh(documents(TEXTS))
    Index(vectors, embedder, "there").refresh(documents(TEXTS))
    with Embedder(llama(tmp_path / "other.gguf", llama__pooling_type=3, llama__context_length=600), threads=1) as other:
        index = Index(vectors, other, "here")
        assert index.search("dog", TEXTS.get) == []
        assert index.refresh(documents(TEXTS)).embedded == 4
    assert Index(vectors, embedder, "here").refresh(documents(TEXTS)).embedded == 4
    assert Index(vectors, embedder, "there").refresh(documents(TEXTS)).embedded == 0


def test_what_was_done_before_time_was_up_stays(vectors: VectorStore, embedder: Embedder) -> None:
    index = Index(vectors, embedder, "here")
    assert index.refresh(documents(TEXTS), seconds=0) == Refreshed(0, 0, False)
    index.refresh(documents(TEXTS))
    assert index.refresh(documents({}), seconds=0).complete
    assert vectors.known("here", index._model) == {}
    cancelled = threading.Event()
    cancelled.set()
    with pytest.raises(SprigError, match="cancelled"):
        index.refresh(documents(TEXTS), cancelled=cancelled)


def test_the_store_holds_no_text_and_is_its_owners(tmp_path: Path, vectors: VectorStore, embedder: Embedder) -> None:
    Index(vectors, embedder, "here").refresh(documents(TEXTS))
    vectors.close()
    raw = b"".join(file.read_bytes() for file in tmp_path.glob("vectors.db*"))
    assert b"barks" not in raw
    assert (tmp_path / "vectors.db").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("content", [b"no database at all" * 100, b""])
def test_a_damaged_or_empty_store_is_made_again(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "v.db").write_bytes(content)
    mark = Fingerprint("", "d")
    with VectorStore(tmp_path / "v.db") as store:
        store.put("here", "m", [("a", mark, np.eye(2, dtype=np.float32))])
        assert store.known("here", "m") == {"a": mark}
        assert store.best("here", "m", np.array([0, 1], np.float32), 1, lambda key: True) == [("a", 1, 1.0)]


def test_a_store_that_cannot_be_made_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(VectorStoreError, match=r"v\.db cannot be used"):
        VectorStore(tmp_path / "file" / "v.db")


def test_a_damaged_row_is_passed_over(vectors: VectorStore, embedder: Embedder) -> None:
    index = Index(vectors, embedder, "here")
    index.refresh(documents(TEXTS))
    with sqlite3.connect(vectors.path) as other:
        other.execute("UPDATE documents SET vectors = x'0011223344' WHERE key = 'a'")
    other.close()
    found = index.search("the dog barks", TEXTS.get)
    assert found
    assert all(m.key != "a" for m in found)


def test_a_search_can_be_cancelled(vectors: VectorStore, embedder: Embedder) -> None:
    index, cancelled = Index(vectors, embedder, "here"), threading.Event()
    index.refresh(documents(TEXTS))
    cancelled.set()
    with pytest.raises(SprigError, match="it was cancelled"):
        index.search("dog", TEXTS.get, cancelled=cancelled)


def test_conversations_are_searched_by_what_was_said(tmp_path: Path, vectors: VectorStore, embedder: Embedder) -> None:
    with Store(tmp_path / "sessions.db") as store:
        for text in ("the heating of the bath", "a poem about snow"):
            session = store.create()
            session.append(Message("system", "be good"))
            session.append(Message("user", text))
            session.append(Message("assistant", f"so: {text}", thinking="hm"))
        found, done = search_conversations(store, vectors, embedder, "the heating of the bath", most=1)
        assert (found[0].role, found[0].text, done) == ("user", "the heating of the bath", Refreshed(4, 4, True))
        others, done = search_conversations(store, vectors, embedder, "the heating of the bath", without=found[0].session)
        assert {said.session for said in others} == {session.id}
        assert done.embedded == 0
        store.delete(session.id)
        assert {said.session for said in search_conversations(store, vectors, embedder, "snow")[0]} == {found[0].session}
