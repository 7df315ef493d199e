"""What every tokenizer.json has, of whatever kind: its tokens, its ids for a text, what it puts around a text."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tokenizers import AddedToken

from agent.errors import VocabError
from pipeline.vocab.draft import VocabularyToken, added_type
from pipeline.vocab.files import TokenizerSource, guarded

PHI3 = "phi-3"  # in general.name, in any case: llama.cpp then lets special tokens swallow the white space behind them


def encoder(source: TokenizerSource) -> Callable[[str], list[int]]:
    """text -> ids of the library, without added BOS and EOS. The function raises VocabError."""
    tokenizer, origin = source.tokenizer, source.origin  # not the whole source: its JSON is large, the function long-lived

    def encode(text: str) -> list[int]:
        with guarded(f"{origin}: cannot tokenize {text[:40]!r}"):
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    return encode


def frame(source: TokenizerSource) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a text when it is asked for special tokens. Raises VocabError."""
    with guarded(f"{source.origin}: its post-processor fails"):
        plain = source.tokenizer.encode("a", add_special_tokens=False).ids
        full = source.tokenizer.encode("a", add_special_tokens=True).ids
    if not plain:
        raise VocabError(f"{source.origin}: it gives no token for the letter a; download the tokenizer again")
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    return [], []


def between(source: TokenizerSource) -> list[int]:
    """Ids that the tokenizer puts between two texts, as a reranker gets a question and a document. Raises VocabError."""
    before, after = frame(source)
    with guarded(f"{source.origin}: its post-processor fails on a pair"):
        plain = source.tokenizer.encode("a", add_special_tokens=False).ids
        full = source.tokenizer.encode("a", "a", add_special_tokens=True).ids
    start, stop = len(before) + len(plain), len(full) - len(plain) - len(after)
    return full[start:stop] if full == [*before, *plain, *full[start:stop], *plain, *after] else []


def added_tokens(source: TokenizerSource) -> dict[int, AddedToken]:
    """The added tokens by id, as the library has them. Raises VocabError."""
    with guarded(f"{source.origin}: added tokens"):
        found: dict[int, AddedToken] = source.tokenizer.get_added_tokens_decoder()
    return found


def all_tokens(source: TokenizerSource) -> tuple[dict[int, VocabularyToken], dict[int, AddedToken]]:
    """Every token by id, added ones typed; and the added ones as the library has them. Raises VocabError."""
    with guarded(f"{source.origin}: vocabulary"):
        vocab: dict[str, int] = source.tokenizer.get_vocab(with_added_tokens=True)
    added = added_tokens(source)
    tokens: dict[int, VocabularyToken] = {}
    for text, number in vocab.items():
        if number in tokens:
            raise VocabError(f"{source.origin}: tokens {tokens[number].text[:40]!r} and {text[:40]!r} share the id {number}")
        tokens[number] = VocabularyToken(text)
    for number, token in added.items():
        tokens[number] = VocabularyToken(token.content, added_type(token))
    return tokens, added


def stripping_notes(added: Iterable[AddedToken]) -> list[str]:
    """What llama.cpp does not know about added tokens: white space that belongs to them, whole-word matching."""
    tokens = list(added)
    only_phi3 = f"; llama.cpp does that only for models whose general.name contains {PHI3!r}"
    notes = []
    for flag, what, where in (
        ("rstrip", "swallow the white space behind them", only_phi3),
        ("lstrip", "swallow the white space before them", "; llama.cpp does that only for a few others"),
        ("single_word", "match whole words only", ", not in llama.cpp"),
    ):
        if found := [token.content for token in tokens if getattr(token, flag)]:
            notes.append(f"{len(found)} added tokens {what} (first: {found[0][:40]!r}){where}")
    return notes
