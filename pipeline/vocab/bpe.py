"""BPE vocabularies of tokenizer.json. Here byte-level ones (GPT-2's kind); those of raw text are in ``raw_bpe``."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from gguf import Keys
from tokenizers import AddedToken, Tokenizer

from agent.errors import UnsupportedError, VocabError
from pipeline.vocab.draft import VocabularyDraft
from pipeline.vocab.files import TokenizerSource, carried, guarded, parse_json
from pipeline.vocab.pretokenizers import recognise
from pipeline.vocab.raw_bpe import draft_raw_bpe
from pipeline.vocab.simulate import SPACE, Merges, partition
from pipeline.vocab.tokenizer_json import added_tokens, all_tokens, between, encoder, frame, stripping_notes

_BYTE_SPACE = "\u0120"  # a space, as GPT-2 writes that byte


def draft_bpe(source: TokenizerSource, files: Mapping[str, bytes], config: Mapping[str, Any]) -> VocabularyDraft:
    """A BPE vocabulary of tokenizer.json.

    Raises:
        VocabError: broken files.
        UnsupportedError: something that llama.cpp's BPE does not have.
    """
    model = source.spec["model"]
    for name in ("dropout", "continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UnsupportedError(f"{source.origin}: its BPE model uses {name}, which llama.cpp does not have")
    merges = read_merges(model, source.origin)
    return _draft_byte_level(source, files, merges) if is_byte_level(source) else draft_raw_bpe(source, files, config, merges)


def is_byte_level(source: TokenizerSource) -> bool:
    """Whether the text's bytes are written as GPT-2's printable characters: its pre-tokenizer shows it."""
    pre = source.tokenizer.pre_tokenizer
    if pre is None:
        return False
    with guarded(f"{source.origin}: its pre-tokenizer fails"):
        written = "".join(piece for piece, _ in pre.pre_tokenize_str("a b"))
    return _BYTE_SPACE in written and SPACE not in written


def read_merges(model: Mapping[str, Any], origin: str) -> Merges:
    """The merges in order. Of a pair that is listed twice the last counts, as in the library (in llama.cpp the first)."""
    raw = model.get("merges")
    if not isinstance(raw, list):
        raise VocabError(f"{origin} has no merges; download it again")
    ranks: dict[tuple[str, str], int] = {}
    for rank, entry in enumerate(raw):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        whole = isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and isinstance(pair[1], str)
        if not (whole and pair[0] and pair[1]):
            raise VocabError(f"{origin}: merge {rank} is {str(entry)[:60]!r}, not two tokens; download it again")
        ranks[pair[0], pair[1]] = rank
    return list(ranks) if len(ranks) == len(raw) else sorted(ranks, key=ranks.__getitem__)


def _draft_byte_level(source: TokenizerSource, files: Mapping[str, bytes], merges: Merges) -> VocabularyDraft:
    tokens, added = all_tokens(source)
    clean_up = bool(parse_json(files, "tokenizer_config.json").get("clean_up_tokenization_spaces", False))
    ignore_merges = bool(source.spec["model"].get("ignore_merges", False))
    found = recognise(source, ignore_merges, clean_up, lambda: _merges_suffice(source), carried(files).pre)
    # No token has a space in it, so a merge with one never happens; llama.cpp could not even read it.
    lines = [f"{a} {b}" for a, b in merges if " " not in a + b]
    if not lines:
        raise VocabError(f"{source.origin} has no merges; download it again")
    splits_alike, cuts_alike = found.exact, _cuts_alike(added.values())
    return VocabularyDraft(
        model="gpt2",
        pre=found.pre,
        tokens=tokens,
        encode=encoder(source),
        frame=frame(source),
        between=between(source),
        lookup=source.tokenizer.token_to_id,
        keys={Keys.Tokenizer.MERGES: lines},
        exact=lambda text: splits_alike(text) and cuts_alike(text),
        notes=(*source.notes, *found.notes, *stripping_notes(added.values())),
    )


def _cuts_alike(added: Iterable[AddedToken]) -> Callable[[str], bool]:
    """A function that says whether the library finds the added tokens of a text where llama.cpp does.

    The library takes the leftmost, then the longest, those that are not normalized first, and heeds white space around
    them; llama.cpp looks for the longest first.
    """
    tokens = list(added)
    careful = [t.content for t in tokens if t.lstrip or t.rstrip or t.single_word]
    rounds = [[t.content for t in tokens if t.normalized is normalized] for normalized in (False, True)]
    searches = [re.compile("(" + "|".join(map(re.escape, sorted(r, key=len, reverse=True))) + ")") for r in rounds if r]
    longest_first = sorted((t.content for t in tokens), key=lambda text: -len(text.encode()))

    def cut(text: str) -> list[tuple[str, bool]]:
        """The text in pieces, each with whether it is an added token."""
        pieces = [(text, False)]
        for search in searches:
            pieces = [
                (part, is_token or i % 2 == 1)
                for piece, is_token in pieces
                for i, part in enumerate([piece] if is_token else search.split(piece))
                if part
            ]
        return pieces

    return lambda text: cut(text) == partition(text, longest_first) and not any(token in text for token in careful)


def _merges_suffice(source: TokenizerSource) -> bool:
    """Whether the merges alone make every token of the base vocabulary, so that ignore_merges changes nothing."""
    model = source.spec["model"]
    bare = {"version": "1.0", "model": {**model, "ignore_merges": False}, "added_tokens": []}
    added = {token.content for token in added_tokens(source).values()}
    texts = [text for text in model["vocab"] if text and text not in added]
    with guarded(f"{source.origin}: its merges fail"):
        encodings = Tokenizer.from_str(json.dumps(bare)).encode_batch(texts, add_special_tokens=False)
    return all(len(encoding) == 1 for encoding in encodings)
