"""Unigram and WordPiece vocabularies of tokenizer.json."""

from __future__ import annotations

import base64
import binascii
import math
import unicodedata
from collections.abc import Callable, Iterable, Set

from gguf import Keys, TokenType
from tokenizers import AddedToken

from agent.errors import UnsupportedError, VocabError
from pipeline.format.gguf_file import Value
from pipeline.vocab.draft import VocabularyDraft, VocabularyToken, added_type
from pipeline.vocab.files import TokenizerSource, check_text, guarded
from pipeline.vocab.sentencepiece import charsmap_value
from pipeline.vocab.simulate import SPACE, partition
from pipeline.vocab.tokenizer_json import added_tokens, all_tokens, between, encoder, frame, stripping_notes
from pipeline.vocab.trial import walk

MAX_WORD = 100  # BertWordPiece gives up on longer words, llama.cpp does not


def draft_unigram(source: TokenizerSource) -> VocabularyDraft:
    """A Unigram vocabulary (T5's kind).

    Raises:
        VocabError: broken files.
        UnsupportedError: a normalizer or pre-tokenizer that llama.cpp does not have.
    """
    model = source.spec["model"]
    unknown = model.get("unk_id")
    added = added_tokens(source)
    tokens: dict[int, VocabularyToken] = {}
    for number, entry in enumerate(model["vocab"]):
        if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise VocabError(f"{source.origin}: piece {number} is {str(entry)[:60]!r}; download it again")
        text, score = entry
        if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
            raise VocabError(f"{source.origin}: piece {number} has the score {score!r}; download it again")
        check_text(text, source.origin)
        kind = TokenType.UNKNOWN if number == unknown else TokenType.NORMAL
        if model.get("byte_fallback") and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            kind = TokenType.BYTE
        tokens[number] = VocabularyToken(text, kind, float(score))
    for number, token in added.items():
        known = tokens.get(number)
        if known is None or known.type == TokenType.NORMAL:
            kind = added_type(token)
            text = token.content.replace(SPACE, " ") if kind == TokenType.USER_DEFINED else token.content
            tokens[number] = VocabularyToken(text, kind, known.score if known else 0.0)
    if not isinstance(unknown, int) or unknown not in tokens:
        raise UnsupportedError(f"{source.origin}: a Unigram model without an unknown token, which llama.cpp needs")
    prefix, shrinks = _spacing(source)
    keys: dict[str, Value] = {Keys.Tokenizer.ADD_PREFIX: prefix, Keys.Tokenizer.REMOVE_EXTRA_WS: shrinks}
    charsmap = _charsmap(source)
    if charsmap:
        keys[Keys.Tokenizer.PRECOMPILED_CHARSMAP] = charsmap_value(charsmap)
    encode, notes = encoder(source), [*source.notes, *stripping_notes(added.values())]
    spelled = frozenset(number for number, token in tokens.items() if token.type == TokenType.BYTE)
    if spelled:
        notes.append("llama.cpp spells no character in bytes for Unigram: one that is no token of its own is lost as unknown")
    return VocabularyDraft(
        model="t5",
        pre="default",
        tokens=tokens,
        encode=encode,
        frame=frame(source),
        between=between(source),
        lookup=source.tokenizer.token_to_id,
        keys=keys,
        scored=True,
        unknown=unknown,
        exact=_exact(added.values(), encode, spelled, prefix and not shrinks, bool(charsmap)),
        notes=tuple(notes),
    )


def _exact(
    added: Iterable[AddedToken], encode: Callable[[str], list[int]], spelled: Set[int], spaces: bool, mapped: bool
) -> Callable[[str], bool]:
    """Whether llama.cpp gives the library's ids for a text.

    Args:
        added: tokens that are searched before anything else.
        encode: the library.
        spelled: byte tokens.
        spaces: a space is put first, and runs of spaces are kept.
        mapped: there is a charsmap.
    """
    tokens = list(added)
    whole = [token.content for token in tokens if token.single_word]
    cuts = sorted((token.content for token in tokens), key=lambda text: -len(text.encode()))

    def exact(text: str) -> bool:
        if any(word in text for word in whole) or (spelled and not spelled.isdisjoint(encode(text))):
            return False
        if spaces and not all(cut or piece.strip(" ") for piece, cut in partition(text, cuts)):
            return False  # llama.cpp puts no space before spaces alone
        return not mapped or _composed(text)

    return exact


def _composed(text: str) -> bool:
    """The library normalizes whole clusters of marks and drops every kind of space, llama.cpp what the charsmap says."""
    plain = not any(c in "\x0b\x0c\x85\u2028\u2029" or unicodedata.category(c)[0] in "MC" for c in text.strip("\n\r\t"))
    return plain and unicodedata.normalize("NFKC", text) == text


def _spacing(source: TokenizerSource) -> tuple[bool, bool]:
    """Whether a space is put first, and whether runs of spaces shrink."""
    tokenizer = source.tokenizer
    with guarded(f"{source.origin}: its normalizer fails"):
        normal = "a  b" if tokenizer.normalizer is None else tokenizer.normalizer.normalize_str("a  b")
        pieces = [normal] if tokenizer.pre_tokenizer is None else [p for p, _ in tokenizer.pre_tokenizer.pre_tokenize_str(normal)]
    joined = "".join(pieces).replace(" ", SPACE)
    if joined.strip(SPACE).replace(SPACE, "") != "ab":
        raise UnsupportedError(f"{source.origin}: it turns 'a  b' into {joined!r}, which llama.cpp does not do for Unigram")
    return joined.startswith(SPACE), joined.strip(SPACE).count(SPACE) < 2


def _charsmap(source: TokenizerSource) -> bytes:
    for node in walk(source.spec.get("normalizer")):
        if node.get("type") == "Precompiled":
            try:
                return base64.b64decode(node.get("precompiled_charsmap") or "", validate=True)
            except (binascii.Error, TypeError, ValueError):
                raise VocabError(f"{source.origin}: its precompiled charsmap is not base64; download it again") from None
    return b""


def draft_wordpiece(source: TokenizerSource) -> VocabularyDraft:
    """A WordPiece vocabulary (BERT's kind).

    llama.cpp writes a word's first piece with ``▁`` before it and the following ones bare, where BERT marks the following
    ones with ``##``.

    Raises:
        VocabError: broken files.
        UnsupportedError: a normalizer that is not BERT's, or another prefix.
    """
    model = source.spec["model"]
    follow = model.get("continuing_subword_prefix", "##")
    rules = next((n for n in walk(source.spec.get("normalizer")) if n.get("type") == "BertNormalizer"), None)
    if follow != "##" or rules is None or not rules.get("handle_chinese_chars", True) or not rules.get("clean_text", True):
        raise UnsupportedError(f"{source.origin}: a WordPiece tokenizer that is not BERT's; llama.cpp knows only BERT's")
    tokens, added = all_tokens(source)
    unknown = model.get("unk_token")
    written: dict[int, VocabularyToken] = {}
    for number, token in tokens.items():
        text = token.text
        if number not in added:
            text = text[2:] if text.startswith("##") else SPACE + text
        is_unknown = token.text == unknown and number not in added
        written[number] = VocabularyToken(text, TokenType.UNKNOWN if is_unknown else token.type)
    lower = bool(rules.get("lowercase", True))
    strip = rules.get("strip_accents")
    strips = lower if strip is None else bool(strip)

    def exact(text: str) -> bool:
        # llama.cpp decomposes and lowers one code point at a time, drops every kind of mark, and takes these for spaces.
        if any(c in "\x0b\x0c\x85" or len(c.lower()) != 1 for c in text):
            return False
        marks = any(unicodedata.category(c) in ("Mc", "Me") or "\uac00" <= c <= "\ud7a3" for c in text)
        return not (strips and marks) and max(map(len, text.split()), default=0) <= MAX_WORD

    notes = [*source.notes, *stripping_notes(added.values())]
    if strips:
        notes.append("llama.cpp strips accents more simply than the original: Korean and scripts with vowel signs differ")
    return VocabularyDraft(
        model="bert",
        tokens=written,
        encode=encoder(source),
        frame=frame(source),
        between=between(source),
        lookup=source.tokenizer.token_to_id,
        unknown=source.tokenizer.token_to_id(unknown) if isinstance(unknown, str) else None,
        keys={"tokenizer.ggml.normalizer.lowercase": lower, "tokenizer.ggml.normalizer.strip_accents": strips},
        exact=exact,
        notes=tuple(notes),
    )
