"""What each token of a tokenizer is made of, and what its loss would cost, for every kind of tokenizer alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from gguf import TokenType

from agent.errors import UnsupportedError
from pipeline.vocab.bpe import is_byte_level, read_merges
from pipeline.vocab.files import TokenizerSource, extra_tokens
from pipeline.vocab.reading import read_source
from pipeline.vocab.sentencepiece import BPE, SentencePiece, parse_model
from pipeline.vocab.simulate import SPACE, Priority, by_rank, by_score
from pipeline.vocab.tokenizer_json import all_tokens

_BYTE = re.compile(r"<0x[0-9A-F]{2}>")
_REWRITTEN = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Lexicon:
    """The tokens of a tokenizer.

    Attributes:
        texts: of every token, by id, as the tokenizer spells it.
        added: ids of the tokens that are found in a text before anything else is done with it.
        fixed: ids without which some text could not be written, or not be read back.
        parts: the two tokens that a token is merged of, where it is merged; each is merged of its own parts before.
        cost: by how many tokens a text grows for each use of a token that is gone, where that is not 1.
        spec: tokenizer.json, or what it would be; None for a tokenizer.model alone.
    """

    texts: Mapping[int, str]
    added: frozenset[int]
    fixed: frozenset[int]
    parts: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    cost: Mapping[int, int] = field(default_factory=dict)
    spec: dict[str, Any] | None = None


def read_lexicon(files: Mapping[str, bytes], n_rows: int) -> Lexicon:
    """The tokens of a checkpoint's tokenizer files.

    Raises:
        VocabError: broken files.
        UnsupportedError: a form of tokenizer that cannot be written again.
    """
    if not any(name in files for name in _REWRITTEN):
        raise UnsupportedError(
            "the vocabulary is cut in tokenizer.json, tokenizer.model, vocab.json with merges.txt, or vocab.txt, and the "
            "checkpoint has none of them; let transformers write a tokenizer.json (save_pretrained of its tokenizer)"
        )
    if "tokenizer.model" in files and "tokenizer.json" not in files:
        return _of_sentencepiece(parse_model(files["tokenizer.model"]), files, n_rows)
    source = read_source(files, n_rows)
    model = source.spec["model"]
    tokens, added = all_tokens(source)
    texts = {number: token.text for number, token in tokens.items() if number < n_rows}
    if "merges" in model:
        return _of_bpe(source, texts, frozenset(added))
    unknown = model.get("unk_id")
    if not isinstance(unknown, int):
        named = model.get("unk_token")
        unknown = next((number for number, text in texts.items() if text == named), -1)
    return Lexicon(
        texts, frozenset(added), _letters(texts, follow="" if "unk_id" in model else "##") | {unknown}, spec=source.spec
    )


def _of_bpe(source: TokenizerSource, texts: Mapping[int, str], added: frozenset[int]) -> Lexicon:
    model = source.spec["model"]
    merges = read_merges(model, source.origin)
    ids = {text: number for number, text in texts.items()}
    several: dict[str, list[tuple[str, str]]] = {}
    for pair in merges:
        several.setdefault("".join(pair), []).append(pair)
    rank = by_rank(merges)
    lasts = {}
    for text, pairs in several.items():
        if text in ids and ids[text] not in added:
            lasts[text] = pairs[0] if len(pairs) == 1 else last_merge(text, rank)
    bytewise = is_byte_level(source)
    return Lexicon(
        texts,
        added,
        frozenset(n for n, text in texts.items() if (len(text) == 1 if bytewise else _BYTE.fullmatch(text) or text == SPACE)),
        _parts(lasts, ids),
        {} if bytewise else _spelled(texts),
        source.spec,
    )


def _of_sentencepiece(model: SentencePiece, files: Mapping[str, bytes], n_rows: int) -> Lexicon:
    texts = {number: piece.text for number, piece in enumerate(model.pieces)}
    added = {number for number, piece in enumerate(model.pieces) if piece.type not in (TokenType.NORMAL, TokenType.BYTE)}
    for number, token in extra_tokens(files).items():
        if number < n_rows:
            texts[number] = token.content
            added.add(number)
    unused = {number for number, piece in enumerate(model.pieces) if piece.type == TokenType.UNUSED}
    added -= unused
    if model.kind != BPE:
        fixed = _letters({n: t for n, t in texts.items() if n not in unused}) | _bytes(texts)
        return Lexicon(texts, frozenset(added), fixed)
    normal = {p.text: p.score for p in model.pieces if p.type == TokenType.NORMAL}
    ids = {piece.text: number for number, piece in enumerate(model.pieces)}
    score = by_score(normal)
    lasts = {text: last_merge(text, score) for text in normal if len(text) > 1}
    fixed = frozenset(n for n, text in texts.items() if _BYTE.fullmatch(text) or text == SPACE)
    return Lexicon(texts, frozenset(added), fixed, _parts(lasts, ids), _spelled(texts))


def last_merge(text: str, priority: Priority) -> tuple[str, str] | None:
    """The two tokens that are merged into this text in the end; None when the merges do not make it of its characters.

    Within a text whose token it becomes, a token is merged in the same order as alone: no merge reaches over its ends, or it
    would not become that token. So a token is found in every text where it was found before if all that it is merged of is kept.
    """
    parts = list(text)
    while len(parts) > 2:
        ranks = [priority(a, b) for a, b in pairwise(parts)]
        best = min(((rank, i) for i, rank in enumerate(ranks) if rank is not None), default=None)
        if best is None:
            return None
        i = best[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]
    return (parts[0], parts[1]) if len(parts) == 2 and priority(parts[0], parts[1]) is not None else None


def _parts(lasts: Mapping[str, tuple[str, str] | None], ids: Mapping[str, int]) -> dict[int, tuple[int, int]]:
    return {
        ids[text]: (ids[pair[0]], ids[pair[1]])
        for text, pair in lasts.items()
        if pair is not None and pair[0] in ids and pair[1] in ids
    }


def _bytes(texts: Mapping[int, str]) -> frozenset[int]:
    return frozenset(number for number, text in texts.items() if _BYTE.fullmatch(text))


def _spelled(texts: Mapping[int, str]) -> dict[int, int]:
    """A character that is no token is spelled in the bytes of its UTF-8 form."""
    return {number: len(text.encode()) - 1 for number, text in texts.items() if len(text) == 1 and not text.isascii()}


def _letters(texts: Mapping[int, str], follow: str = "") -> frozenset[int]:
    """Where nothing is spelled in bytes: single characters, and each token with a character that is no token.

    ``follow`` begins the tokens that stand within a word (WordPiece): there a character is one token at a word's start and
    another within it.
    """

    def characters(text: str) -> list[str]:
        if not follow:
            return list(text)
        bare = text.removeprefix(follow)
        inner = [follow + c for c in bare]
        return inner if text != bare else [bare[:1], *inner[1:]]

    cut = {number: characters(text) for number, text in texts.items()}
    single = {text for number, text in texts.items() if len(cut[number]) == 1}
    return frozenset(number for number, pieces in cut.items() if len(pieces) < 2 or not single.issuperset(pieces)) | _bytes(texts)
