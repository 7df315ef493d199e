"""BPE vocabularies of tokenizer.json: byte-level ones (GPT-2's kind), and those of raw text with byte fallback
(SentencePiece's kind, as transformers converts it)."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from agent.errors import UnsupportedError, VocabError
from pipeline.format.gguf_file import Value
from pipeline.vocab.draft import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, VocabularyDraft, VocabularyToken, looks_special
from pipeline.vocab.files import TokenizerSource, guarded, parse_json
from pipeline.vocab.pretokenizers import SECONDS, recognise
from pipeline.vocab.probes import PROBES
from pipeline.vocab.sentencepiece import check_bytes, parse_model
from pipeline.vocab.simulate import SPACE, Form, Priority, by_rank, by_score, partition
from pipeline.vocab.special import chat_templates

MAX_DEVIATION = 0.25  # share of probes that a vocabulary may get wrong before it is refused

PHI3 = "phi-3"  # in general.name, in any case: llama.cpp then lets special tokens swallow the white space behind them ...
_NEVER_GREEDY = frozenset({"<unk>", "<s>", "<|endoftext|>"})  # ... but for these

Pairs = list[tuple[str, str]]


def encoder(source: TokenizerSource) -> Callable[[str], list[int]]:
    """text -> ids of the library, without added BOS and EOS. The function raises VocabError."""

    tokenizer, origin = source.tokenizer, source.origin  # not the whole source: its JSON is large, the function long-lived

    def encode(text: str) -> list[int]:
        try:
            ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        except (KeyboardInterrupt, SystemExit, GeneratorExit):
            raise
        except BaseException as e:  # the library's panics are no Exceptions
            raise VocabError(f"{origin}: cannot tokenize {text[:40]!r} ({str(e)[:80]})") from None
        return ids

    return encode


def frame(source: TokenizerSource) -> tuple[list[int], list[int]]:
    """Ids that the tokenizer puts before and after a text when it is asked for special tokens."""
    with guarded(f"{source.origin}: its post-processor fails"):
        plain = source.tokenizer.encode("a", add_special_tokens=False).ids
        full = source.tokenizer.encode("a", add_special_tokens=True).ids
    if not plain:
        raise VocabError(f"{source.origin}: it gives no token for the letter a; download the tokenizer again")
    for start in range(len(full) - len(plain) + 1):
        if full[start : start + len(plain)] == plain:
            return full[:start], full[start + len(plain) :]
    return [], []


def merge_pairs(model: Mapping[str, Any], origin: str) -> Pairs:
    """The merges in order. Of a pair that is listed twice the last counts, as in the library (in llama.cpp the first)."""
    raw = model.get("merges")
    if not isinstance(raw, list):
        raise VocabError(f"{origin} has no merges; download it again")
    ranks: dict[tuple[str, str], int] = {}
    for rank, entry in enumerate(raw):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(p, str) and p for p in pair):
            raise VocabError(f"{origin}: merge {rank} is {str(entry)[:60]!r}, not two tokens; download it again")
        ranks[pair[0], pair[1]] = rank
    return sorted(ranks, key=ranks.__getitem__)


def added_tokens(source: TokenizerSource) -> dict[int, AddedToken]:
    with guarded(f"{source.origin}: added tokens"):
        found: dict[int, AddedToken] = source.tokenizer.get_added_tokens_decoder()
    return found


def added_type(token: AddedToken) -> int:
    return CONTROL if token.special or looks_special(token.content) else USER_DEFINED


def token_pieces(source: TokenizerSource) -> tuple[dict[int, VocabularyToken], dict[int, AddedToken]]:
    """Every token by id, added ones typed; and the added ones as the library has them."""
    with guarded(f"{source.origin}: vocabulary"):
        vocab: dict[str, int] = source.tokenizer.get_vocab(with_added_tokens=True)
    added = added_tokens(source)
    pieces: dict[int, VocabularyToken] = {}
    for text, number in vocab.items():
        if number in pieces:
            raise VocabError(f"{source.origin}: tokens {pieces[number].text[:40]!r} and {text[:40]!r} share the id {number}")
        pieces[number] = VocabularyToken(text)
    for number, token in added.items():
        pieces[number] = VocabularyToken(token.content, added_type(token))
    return pieces, added


def stripping_notes(added: Iterable[AddedToken]) -> list[str]:
    """What llama.cpp does not know about added tokens: white space that belongs to them, whole-word matching."""
    tokens = list(added)
    notes = []
    if right := [t.content for t in tokens if t.rstrip]:
        notes.append(
            f"{len(right)} added tokens swallow the white space behind them (first: {right[0][:40]!r}); llama.cpp does "
            f"that only for models whose general.name contains {PHI3!r}"
        )
    if left := [t.content for t in tokens if t.lstrip]:
        notes.append(f"{len(left)} added tokens swallow the white space before them (first: {left[0][:40]!r}), not in llama.cpp")
    if words := [t.content for t in tokens if t.single_word]:
        notes.append(f"{len(words)} added tokens match whole words only (first: {words[0][:40]!r}), not in llama.cpp")
    return notes


def is_byte_level(source: TokenizerSource) -> bool:
    """Whether the text's bytes are written as GPT-2's printable characters: its pre-tokenizer shows it."""
    pre = source.tokenizer.pre_tokenizer
    if pre is None:
        return False
    with guarded(f"{source.origin}: its pre-tokenizer fails"):
        return "\u0120" in "".join(piece for piece, _ in pre.pre_tokenize_str("a b")) and "\u2581" not in str(
            pre.pre_tokenize_str("a b")
        )


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
    if is_byte_level(source):
        return _byte_level(source, files, merge_pairs(model, source.origin))
    return _raw(source, files, config, merge_pairs(model, source.origin))


def _byte_level(source: TokenizerSource, files: Mapping[str, bytes], merges: Pairs) -> VocabularyDraft:
    pieces, added = token_pieces(source)
    clean_up = bool(parse_json(files, "tokenizer_config.json").get("clean_up_tokenization_spaces", False))
    ignore = bool(source.spec["model"].get("ignore_merges", False))
    found = recognise(source, ignore, clean_up, lambda: merges_suffice(source))
    exact, notes = found.exact, [*source.notes, *found.notes, *stripping_notes(added.values())]
    # Pieces contain no space, so a merge with one can never happen; llama.cpp could not even read it.
    keys: dict[str, Value] = {"tokenizer.ggml.merges": [f"{a} {b}" for a, b in merges if " " not in a + b]}
    if not keys["tokenizer.ggml.merges"]:
        raise VocabError(f"{source.origin} has no merges; download it again")
    same = same_cuts(added.values())
    return VocabularyDraft(
        model="gpt2",
        pre=found.pre,
        pieces=pieces,
        encode=encoder(source),
        frame=frame(source),
        lookup=source.tokenizer.token_to_id,
        keys=keys,
        exact=lambda text: exact(text) and same(text),
        notes=tuple(notes),
    )


def same_cuts(added: Iterable[AddedToken]) -> Callable[[str], bool]:
    """Whether the library finds the added tokens of a text where llama.cpp does.

    The library takes the leftmost, then the longest, those that are not normalized first, and heeds white space around
    them; llama.cpp looks for the longest first.
    """
    tokens = list(added)
    careful = [t.content for t in tokens if t.lstrip or t.rstrip or t.single_word]
    rounds = [[t.content for t in tokens if t.normalized is n] for n in (False, True)]
    searches = [re.compile("(" + "|".join(map(re.escape, sorted(r, key=len, reverse=True))) + ")") for r in rounds if r]
    longest = sorted((t.content for t in tokens), key=lambda c: -len(c.encode()))

    def same(text: str) -> bool:
        cut = [(text, False)]
        for search in searches:
            cut = [
                (part, done or i % 2 == 1)
                for piece, done in cut
                for i, part in enumerate([piece] if done else search.split(piece))
                if part
            ]
        return cut == partition(text, longest) and not any(c in text for c in careful)

    return same


def merges_suffice(source: TokenizerSource) -> bool:
    """Whether the merges alone make every token of the base vocabulary, so that ignore_merges changes nothing."""
    model = source.spec["model"]
    bare = {"version": "1.0", "model": {**model, "ignore_merges": False}, "added_tokens": []}
    added = {token.content for token in added_tokens(source).values()}
    texts = [text for text in model["vocab"] if text and text not in added]
    with guarded(f"{source.origin}: its merges fail"):
        encodings = Tokenizer.from_str(json.dumps(bare)).encode_batch(texts, add_special_tokens=False)
    return all(len(encoding) == 1 for encoding in encodings)


@dataclass(frozen=True, slots=True)
class _Option:
    """One way to write a raw BPE vocabulary, and how llama.cpp would then tokenize."""

    model: str
    pre: str | None
    pieces: Mapping[int, VocabularyToken]
    form: Form
    keys: dict[str, Value]


def _raw(source: TokenizerSource, files: Mapping[str, bytes], config: Mapping[str, Any], merges: Pairs) -> VocabularyDraft:
    """Raw text with ``▁`` for the space: written with scores ("llama"), or with merges ("gemma4", "sarvam-moe"),
    whichever gives the original's ids on the probes."""
    pieces, added = token_pieces(source)
    check_bytes({piece.text for piece in pieces.values()}, source.origin)
    mark = next((t.content for t in added.values() if t.special), "")
    # Where a space is put first only in some places, a model that chats needs it right behind a special token.
    vital = [mark + text for text in PROBES] if mark and chat_templates(files) else list(PROBES)
    wanted = _encode_all(source, dict.fromkeys((*vital, *PROBES)))
    best: tuple[tuple[int, int], _Option, list[str]] | None = None
    for option in _options(source, files, config, pieces, added, merges):
        wrong = [text for text, ids in wanted.items() if option.form.encode(text) != ids]
        cost = len({*vital} & {*wrong}), len(wrong)
        if best is None or cost < best[0]:
            best = cost, option, wrong
        if not wrong:
            break
    if best is None:
        raise VocabError(f"{source.origin} has no merges; download it again")
    (lost, _), option, missed = best
    if lost > MAX_DEVIATION * len(vital):
        text = next(t for t in missed if t in vital)
        raise UnsupportedError(
            f"{source.origin}: llama.cpp tokenizes unlike this tokenizer; {text!r} gives {wanted[text][:12]} here, "
            f"{option.form.encode(text)[:12]} there"
        )
    notes = [*source.notes, *stripping_notes(added.values())]
    if missed and not lost:
        notes.append(
            "the original puts a space before a text but none behind a special token; llama.cpp does both or neither, and "
            "here neither, as chats need it: a text that does not start with a special token lacks its first space"
        )
    elif missed:
        notes.append(f"llama.cpp gives other ids than the original for some texts, for example {missed[0]!r}")
    form, encode = option.form, encoder(source)
    return VocabularyDraft(
        model=option.model,
        pre=option.pre,
        pieces=option.pieces,
        encode=encode,
        frame=frame(source),
        lookup=source.tokenizer.token_to_id,
        keys=option.keys,
        scored=True,
        unknown=_unknown(source),
        name_needs=PHI3 if form.greedy and {"</s>", *_NEVER_GREEDY} <= form.ids.keys() else "",
        exact=lambda text: form.encode(text) == encode(text),
        notes=tuple(notes),
    )


def _encode_all(source: TokenizerSource, texts: Iterable[str]) -> dict[str, list[int]]:
    """The library's ids, within a time that shows that its regular expressions end."""
    start = time.monotonic()
    ids: dict[str, list[int]] = {}
    for text in texts:
        with guarded(f"{source.origin}: cannot tokenize {text!r}"):
            ids[text] = source.tokenizer.encode(text, add_special_tokens=False).ids
        if time.monotonic() - start > SECONDS:
            raise VocabError(f"{source.origin}: it needs more than {SECONDS:.0f} s for a few words")
    return ids


def _unknown(source: TokenizerSource) -> int | None:
    text = source.spec["model"].get("unk_token")
    return source.tokenizer.token_to_id(text) if isinstance(text, str) else None


def _options(
    source: TokenizerSource,
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    pieces: Mapping[int, VocabularyToken],
    added: Mapping[int, AddedToken],
    merges: Pairs,
) -> Iterator[_Option]:
    """The ways to write it, the likeliest first."""
    pairs = [(a, b) for a, b in merges if " " not in a + b]
    texts = [f"{a} {b}" for a, b in pairs]
    text = config.get("text_config")
    names = (config.get("model_type"), text.get("model_type") if isinstance(text, Mapping) else None)
    gemma4 = any(isinstance(n, str) and n.startswith("gemma4") for n in names)
    tables = list(_scores(files, pieces, merges))
    unknown = source.spec["model"].get("unk_token")
    greedy = any(t.rstrip for t in added.values())
    for prefix in (False, True):
        for scores, ranked in [*((table, False) for table in tables), (tables[-1], True)][:: -1 if gemma4 else 1]:
            for variant in _variants({n: _typed(n, p, unknown, scores, added) for n, p in pieces.items()}):
                ids = {p.text: n for n, p in variant.items()}
                keys: dict[str, Value] = {"tokenizer.ggml.add_space_prefix": prefix}
                if not ranked:
                    by = by_score(ids, {n: p.score for n, p in variant.items()})
                    form = _form(variant, ids, by, greedy, prefix=prefix, ranked=False, whole=False)
                    yield _Option("llama", None, variant, form, keys)
                elif pairs and not prefix:
                    form = _form(variant, ids, by_rank(pairs), greedy, prefix=False, ranked=True, whole=gemma4)
                    model, pre = ("gemma4", "gemma4") if gemma4 else ("gpt2", "sarvam-moe")
                    yield _Option(model, pre, variant, form, {**keys, "tokenizer.ggml.merges": texts})


def _variants(plain: Mapping[int, VocabularyToken]) -> list[Mapping[int, VocabularyToken]]:
    """An added run of spaces is searched in the raw text, so it must be written with spaces; where the library never finds
    it there, it is an ordinary token for llama.cpp."""
    runs = [n for n, p in plain.items() if p.type == USER_DEFINED and SPACE in p.text]
    if not runs:
        return [plain]
    spaced = {n: VocabularyToken(plain[n].text.replace(SPACE, " "), USER_DEFINED, plain[n].score) for n in runs}
    ordinary = {n: VocabularyToken(plain[n].text, NORMAL, plain[n].score) for n in runs}
    return [{**plain, **spaced}, {**plain, **ordinary}]


def _form(
    pieces: Mapping[int, VocabularyToken], ids: Mapping[str, int], priority: Priority, greedy: bool,
    *, prefix: bool, ranked: bool, whole: bool,
) -> Form:  # fmt: skip
    found = [p.text for p in pieces.values() if p.type in (CONTROL, USER_DEFINED, UNKNOWN) and p.text]
    swallowing = frozenset(found) - _NEVER_GREEDY if greedy else frozenset()
    return Form(ids, sorted(found, key=lambda t: -len(t.encode())), priority, prefix, ranked, whole, swallowing)


def _typed(
    number: int, piece: VocabularyToken, unknown: Any, scores: Mapping[str, float], added: Mapping[int, AddedToken]
) -> VocabularyToken:
    kind = piece.type
    if len(piece.text) == 6 and piece.text.startswith("<0x") and piece.text.endswith(">") and number not in added:
        kind = BYTE
    elif piece.text == unknown:
        kind = UNKNOWN
    return VocabularyToken(piece.text, kind, scores.get(piece.text, 0.0))


def _scores(files: Mapping[str, bytes], pieces: Mapping[int, VocabularyToken], merges: Pairs) -> Iterator[dict[str, float]]:
    """Scores under which llama.cpp's "best token first" merges as "first merge first" does.

    The model that tokenizer.json was converted from has them; without it the first merge that makes a token says how
    early it comes.
    """
    if "tokenizer.model" in files:
        own = parse_model(files["tokenizer.model"]).pieces
        if all((n < len(own) and own[n].text == p.text) or p.type != NORMAL for n, p in pieces.items()):
            yield {p.text: p.score for p in own}
    scores: dict[str, float] = {}
    for rank, (left, right) in enumerate(merges):
        scores.setdefault(left + right, -float(rank))
    yield scores
