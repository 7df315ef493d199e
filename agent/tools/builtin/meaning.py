"""The tool that finds by meaning: passages of files below the root, or of earlier conversations. An embedding model compares."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from agent.embedding.index import Index, Match, Refreshed, Searchable
from agent.embedding.vectors import VectorStore
from agent.tools.builtin.root import Root, RootError
from agent.tools.result import ToolContext, ToolError, ToolResult, clean

if TYPE_CHECKING:
    from agent.embedding.embedder import Embedder

MAX_FILE = 1 << 19  # bytes of a file that is taken in
MAX_FOUND = 5
_SHOWN = 500  # characters of a passage
_LOAD_SECONDS = 60.0
_INDEX_SECONDS = 20.0  # of one call; the rest is for the next


def search_by_meaning(
    root: Root,
    vectors: VectorStore,
    embedder: Embedder,
    query: str,
    *,
    most: int = MAX_FOUND,
    seconds: float | None = None,
    cancelled: threading.Event | None = None,
    on_document: Callable[[int, int], None] = lambda seen, embedded: None,
) -> tuple[list[Match], Refreshed]:
    """The passages of the text files below a root that are nearest to a query, the best first, and what the index took in.

    Args:
        seconds, cancelled, on_document: as in ``Index.refresh``.

    Raises:
        SprigError: the model or the index cannot be used.
    """
    index = Index(vectors, embedder, f"files {root.path}")
    done = index.refresh(_documents(root), seconds=seconds, cancelled=cancelled, on_document=on_document)
    return index.search(query, partial(_text, root), most=most, cancelled=cancelled), done


def _documents(root: Root) -> Iterator[Searchable]:
    for path, fd in root.files():
        try:
            path.encode()
        except UnicodeEncodeError:  # a name that no text can hold
            continue
        status = os.fstat(fd)
        stamp = f"{status.st_size} {status.st_mtime_ns} {status.st_ino}"
        yield Searchable(path, stamp, partial(_text, root, path))


def _text(root: Root, path: str) -> str | None:
    """The text of a file; None if it is none, is larger than is taken in, or cannot be read."""
    try:
        with root.file(path) as fd, os.fdopen(os.dup(fd), "rb") as f:
            raw = f.read(MAX_FILE + 1)
        return raw.decode("utf-8") if len(raw) <= MAX_FILE and b"\0" not in raw else None
    except (RootError, OSError, UnicodeDecodeError):
        return None


class MeaningTool:
    """Searches below one root, and in the conversations of one home, with one embedding model; "" is none."""

    def __init__(self, root: Root, home: Path, model: str) -> None:
        self._root, self._home, self._model = root, home, model

    def search_meaning(self, query: str, context: ToolContext, where: Literal["files", "conversations"] = "files") -> ToolResult:
        """Find passages that mean something like the query."""
        if not query.strip():
            raise ToolError("the query is empty")
        if not self._model:
            raise ToolError("no embedding model is named; the option embedding_model does it")
        from agent.embedding.embedder import Embedder

        with Embedder(self._model) as embedder, VectorStore(self._home / "cache" / "vectors.db") as vectors:
            embedder.wait(_LOAD_SECONDS, context.cancelled)
            search = self._in_files if where == "files" else self._in_conversations
            found, done = search(vectors, embedder, query, context)
        texts = [text for text, _ in found] or ["nothing is there to be found"]
        if not done.complete:
            texts.append(
                f"[{done.documents} {where} were looked at in {_INDEX_SECONDS:.0f} s; the same search goes on with the rest]"
            )
        return ToolResult(True, "\n\n".join(texts), data=[data for _, data in found])

    def _in_files(
        self, vectors: VectorStore, embedder: Embedder, query: str, context: ToolContext
    ) -> tuple[list[tuple[str, dict[str, object]]], Refreshed]:
        found, done = search_by_meaning(
            self._root, vectors, embedder, query, seconds=_INDEX_SECONDS, cancelled=context.cancelled
        )  # fmt: skip
        return [
            (
                f"{clean(m.key)}:{m.first} ({m.score:.2f})\n{_shown(m.text)}",
                {"path": m.key, "line": m.first, "last": m.last, "score": round(m.score, 4)},
            )
            for m in found
        ], done

    def _in_conversations(
        self, vectors: VectorStore, embedder: Embedder, query: str, context: ToolContext
    ) -> tuple[list[tuple[str, dict[str, object]]], Refreshed]:
        from agent.embedding.conversations import search_conversations
        from agent.sessions.store import Store

        with Store(self._home / "sessions.db") as store:
            found, done = search_conversations(
                store, vectors, embedder, query,
                most=MAX_FOUND, without=context.session, seconds=_INDEX_SECONDS, cancelled=context.cancelled,
            )  # fmt: skip
        return [
            (
                f"{time.strftime('%Y-%m-%d', time.localtime(s.created))} {s.role} ({s.score:.2f})\n{_shown(s.text)}",
                {"session": s.session, "message": s.message, "role": s.role, "score": round(s.score, 4)},
            )
            for s in found
        ], done


def _shown(text: str) -> str:
    text = clean(text).strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
