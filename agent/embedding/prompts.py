"""What embedding models want in front of a query and of a document: as the file says, else as the makers of known ones advise."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.models.file import ModelFile

KINDS = ("query", "document")

_BGE = ("Represent this sentence for searching relevant passages: ", "")
# A part of the model's name -> (query, document), from the models' cards. What comes first is more special.
_KNOWN: tuple[tuple[str, tuple[str, str]], ...] = (
    (r"nomic-embed-text", ("search_query: ", "search_document: ")),
    (r"modernbert-embed", ("search_query: ", "search_document: ")),
    (r"embedding-?gemma", ("task: search result | query: ", "title: none | text: ")),
    (
        r"qwen3-embedding|e5-.*instruct",
        ("Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:", ""),
    ),
    (r"\be5-(small|base|large)", ("query: ", "passage: ")),
    (r"arctic-embed-.*v2", ("query: ", "")),
    (r"bge-(small|base|large)-en|arctic-embed|mxbai-embed", _BGE),
)


def prompts_of(file: ModelFile) -> Mapping[str, str]:
    """Text to put before a "query" and before a "document"; empty where nothing is known."""
    if file.prompts:
        return {**dict.fromkeys(KINDS, ""), **file.prompts}
    names = re.sub(r"[ _]", "-", f"{file.name} {file.source}").casefold()
    return dict(zip(KINDS, next((pair for pattern, pair in _KNOWN if re.search(pattern, names)), ("", "")), strict=True))
