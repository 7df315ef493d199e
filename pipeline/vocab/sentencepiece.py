"""Reads tokenizer.model, SentencePiece's protocol buffer, field by field.

Format: sentencepiece_model.proto in https://github.com/google/sentencepiece (ModelProto). Only the few fields that a GGUF
needs are looked at; the library itself is asked only to encode.
"""

from __future__ import annotations

import re
import struct
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import Keys, TokenType
from tokenizers import AddedToken

from agent.errors import UnsupportedError, VocabError
from pipeline.format.gguf_file import Value
from pipeline.vocab.draft import Tokens, VocabularyDraft, VocabularyToken, added_type
from pipeline.vocab.files import check_text, extra_tokens, guarded, homeless_notes, parse_json, text_of
from pipeline.vocab.simulate import SPACE
from pipeline.vocab.trial import try_tokenizer

UNIGRAM, BPE = 1, 2
_NO_PREFIX = b"\x1a\x02\x18\x00"  # normalizer_spec.add_dummy_prefix false, which merges with what the model says


@dataclass(frozen=True, slots=True)
class SentencePiece:
    """The fields of a ModelProto.

    Attributes:
        pieces: by id, with the types that SentencePiece gives.
        kind: UNIGRAM or BPE (trainer_spec.model_type).
        charsmap: normalizer_spec.precompiled_charsmap, b"" for none.
        add_dummy_prefix: whether a space is put before a text.
        remove_extra_whitespaces: whether runs of spaces shrink to one.
    """

    pieces: tuple[VocabularyToken, ...]
    kind: int
    charsmap: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool


def wire_fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and raw value of each field of a protocol buffer message. ValueError, IndexError when it is broken."""
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > 63:
                raise ValueError("a varint of more than ten bytes")

    while at < len(data):
        key = varint()
        wire = key & 7
        if wire == 0:
            yield key >> 3, varint()
            continue
        size = {1: 8, 5: 4}.get(wire) if wire != 2 else varint()
        if size is None or at + size > len(data):
            raise ValueError(f"a field that ends behind the file (wire type {wire})")
        yield key >> 3, data[at : at + size]
        at += size


def parse_model(raw: bytes, origin: str = "tokenizer.model") -> SentencePiece:
    """A SentencePiece model. Raises VocabError when it is broken, UnsupportedError when it is a list of tiktoken."""
    if re.match(rb"[A-Za-z0-9+/]+=* \d+\r?\n", raw):
        raise UnsupportedError(
            f"{origin} is a list of tiktoken, whose rules stand in the model's own Python code; take a revision that has a "
            "tokenizer.json, or let transformers write one (save_pretrained of its tokenizer)"
        )
    pieces: list[VocabularyToken] = []
    trainer: dict[int, Any] = {}
    rules: dict[int, Any] = {}
    try:
        for number, value in wire_fields(raw):
            if number == 1:
                entry = dict(wire_fields(value))
                score = struct.unpack("<f", entry.get(2, b"\0\0\0\0"))[0]
                if not np.isfinite(score):
                    raise ValueError(f"the score of piece {len(pieces)} is {score}")
                pieces.append(VocabularyToken(bytes(entry.get(1, b"")).decode("utf-8"), TokenType(entry.get(3, 1)), score))
            elif number == 2:
                trainer |= wire_fields(value)
            elif number == 3:
                rules |= wire_fields(value)
        kind, charsmap = int(trainer.get(3, UNIGRAM)), bytes(rules.get(2, b""))
    except (ValueError, IndexError, KeyError, TypeError, struct.error) as e:
        raise VocabError(f"{origin} is not a whole SentencePiece model ({str(e)[:80]}); download it again") from None
    if not pieces:
        raise VocabError(f"{origin} has no pieces; download it again")
    return SentencePiece(tuple(pieces), kind, charsmap, bool(rules.get(3, True)), bool(rules.get(4, True)))


def _without_nul(raw: bytes) -> bytes:
    """The same model with a noncharacter for NUL, which InternLM2's has as a piece and the library refuses."""
    for number, value in wire_fields(raw):
        text = dict(wire_fields(value)).get(1, b"") if number == 1 else b""
        if 0 in text:
            other = value.replace(_field(text), _field(text.replace(b"\0", "\U0010fffe".encode())), 1)
            raw = raw.replace(_field(value), _field(other), 1)
    return raw


def _field(content: bytes) -> bytes:
    """Field 1 of a message, of at most 2 MB: its number, its length and its content."""
    size = len(content)
    length = [size & 0x7F | 0x80, size >> 7 & 0x7F | 0x80, size >> 14]
    return bytes([10, *(length if size >> 14 else [length[0], size >> 7] if size >> 7 else [size])]) + content


def charsmap_value(charsmap: bytes) -> Value:
    """``tokenizer.ggml.precompiled_charsmap``. llama.cpp throws where its parts do not fit, so that is checked here."""
    if len(charsmap) < 8 or int.from_bytes(charsmap[:4], "little") + 4 >= len(charsmap):
        raise VocabError("the normalizer's precompiled charsmap is broken; download the tokenizer again")
    return np.frombuffer(charsmap, dtype=np.uint8)


def draft_sentencepiece(files: Mapping[str, bytes], n_rows: int) -> VocabularyDraft:
    """A vocabulary from tokenizer.model alone (and the tokens that the JSON files add to it).

    Raises:
        VocabError: broken files.
        UnsupportedError: a kind or a setting that llama.cpp does not have.
    """
    import sentencepiece

    raw = files["tokenizer.model"]
    model = parse_model(raw)
    if model.kind not in (UNIGRAM, BPE):
        raise UnsupportedError("tokenizer.model is a word or character model; llama.cpp knows BPE and Unigram")
    config = parse_json(files, "tokenizer_config.json")
    prefix = model.add_dummy_prefix and config.get("add_prefix_space") is not False
    raw = _without_nul(raw) + (b"" if prefix else _NO_PREFIX)
    try_tokenizer("sentencepiece", raw, "tokenizer.model")
    with guarded("tokenizer.model cannot be loaded"):
        processor = sentencepiece.SentencePieceProcessor(model_proto=raw)
    pieces = dict(enumerate(model.pieces))
    notes: list[str] = []
    _add(pieces, extra_tokens(files), n_rows, notes)
    keys: dict[str, Value] = {Keys.Tokenizer.ADD_PREFIX: prefix}
    if model.kind == BPE:
        check_bytes({p.text for p in pieces.values()}, "tokenizer.model")
        if model.charsmap:
            notes.append("the original tokenizer normalizes Unicode first, llama.cpp does not for this kind")
        if model.remove_extra_whitespaces:
            notes.append("the original tokenizer removes extra spaces, llama.cpp does not for this kind")
    else:
        keys[Keys.Tokenizer.REMOVE_EXTRA_WS] = model.remove_extra_whitespaces
        if model.charsmap:
            keys[Keys.Tokenizer.PRECOMPILED_CHARSMAP] = charsmap_value(model.charsmap)
    lookup = {p.text: number for number, p in reversed(pieces.items())}
    bos = lookup.get(text_of(config.get("bos_token")) or "<s>")
    eos = lookup.get(text_of(config.get("eos_token")) or "</s>")
    first = bool(config.get("add_bos_token", model.kind == BPE)) and bos is not None
    last = bool(config.get("add_eos_token", model.kind == UNIGRAM)) and eos is not None
    return VocabularyDraft(
        model="llama" if model.kind == BPE else "t5",
        tokens={number: _spaced(piece) for number, piece in pieces.items()},
        encode=_encoder(processor, pieces),
        frame=([bos] if first and bos is not None else [], [eos] if last and eos is not None else []),
        lookup=lookup.get,
        keys=keys,
        scored=True,
        exact=_exact(model, [p.text for p in pieces.values() if p.type == TokenType.USER_DEFINED and SPACE in p.text]),
        unknown=next((n for n, p in pieces.items() if p.type == TokenType.UNKNOWN), None),
        notes=tuple(notes),
    )


def _exact(model: SentencePiece, runs: Sequence[str]) -> Callable[[str], bool]:
    """llama.cpp searches pieces made of spaces in the raw text, and normalizes nothing for BPE."""
    bare = model.kind == BPE

    def exact(text: str) -> bool:
        if any(run in text for run in runs) or (bare and model.charsmap and unicodedata.normalize("NFKC", text) != text):
            return False
        return not (bare and model.remove_extra_whitespaces and ("  " in text or text != text.strip(" ")))

    return exact


def _add(pieces: dict[int, VocabularyToken], extra: Mapping[int, AddedToken], n_rows: int, notes: list[str]) -> None:
    """The JSON files' tokens on top of the model's own; those without a row are left out."""
    free = (TokenType.UNUSED, TokenType.USER_DEFINED, TokenType.CONTROL)
    for number, token in extra.items():
        check_text(token.content, "tokenizer_config.json")
        known = pieces.get(number)
        if number >= n_rows:
            continue
        if known is not None and known.text != token.content and known.type not in free:
            raise VocabError(
                f"tokenizer_config.json calls token {number} {token.content[:40]!r}, tokenizer.model {known.text[:40]!r}"
            )
        if known is None or known.type not in (TokenType.UNKNOWN, TokenType.BYTE):
            pieces[number] = VocabularyToken(token.content, added_type(token), known.score if known else 0.0)
    notes += homeless_notes([token.content for number, token in extra.items() if number >= n_rows])


def _spaced(piece: VocabularyToken) -> VocabularyToken:
    """USER_DEFINED pieces are searched in the raw text, where a space is a space."""
    return piece._replace(text=piece.text.replace(SPACE, " ")) if piece.type == TokenType.USER_DEFINED else piece


def _encoder(processor: Any, pieces: Tokens) -> Callable[[str], list[int]]:
    """Ids as the library gives them, with the tokens that it does not look for in the text cut out first."""
    kinds = (TokenType.CONTROL, TokenType.UNKNOWN)
    marks = {
        p.text: number
        for number, p in pieces.items()
        if p.text and (p.type in kinds or (p.type == TokenType.USER_DEFINED and number >= processor.get_piece_size()))
    }
    ordered = sorted(marks, key=lambda text: (-len(text), text))
    search = re.compile("|".join(map(re.escape, ordered))) if marks else None

    def encode(text: str) -> list[int]:
        ids: list[int] = []
        at = 0
        for match in search.finditer(text) if search else ():
            if match.start() > at:
                ids += processor.encode(text[at : match.start()])
            ids.append(marks[match.group()])
            at = match.end()
        return ids + (processor.encode(text[at:]) if at < len(text) else [])

    return encode


def check_bytes(texts: set[str], origin: str) -> None:
    """llama.cpp throws through C code, and dies, when a SentencePiece vocabulary lacks a byte token that it needs."""
    lost = [b for b in range(256) if f"<0x{b:02X}>" not in texts]
    if lost:
        raise UnsupportedError(
            f"{origin} lacks {len(lost)} byte tokens (first <0x{lost[0]:02X}>); llama.cpp cannot use such a vocabulary"
        )
