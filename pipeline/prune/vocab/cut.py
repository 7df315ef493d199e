"""A checkpoint's vocabulary made smaller: the tokens that the user's texts need stay, and every text still goes there and back.

On models under a billion weights the embedding is a large part of the whole, and most of its rows are words of languages and
trades that one user never meets.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gguf import Keys

from agent.errors import OutputError, SprigError
from pipeline.prune.vocab.choose import by_order, choose, closed
from pipeline.prune.vocab.ids import renumbered
from pipeline.prune.vocab.lexicon import Lexicon, read_lexicon
from pipeline.prune.vocab.needed import find_needed
from pipeline.prune.vocab.rewrite import rewritten
from pipeline.prune.vocab.use import TokenGrowth, count
from pipeline.text.calibration import own_text
from pipeline.vocab.files import carry, parse_json
from pipeline.vocab.vocabulary import Vocabulary, load_vocabulary

ROUND_UP, ROUND_DOWN = 256, 32  # rows: what kernels like best, and what they can bear


@dataclass(frozen=True, slots=True)
class VocabularyCut:
    """A smaller vocabulary, ready to be written.

    Attributes:
        kept: old ids in their new order: the rows of the embedding and of the head that stay.
        files: tokenizer files, to be written in the place of the old ones.
        config: the entries of config.json that change, inner parts (``text_config``) whole, and under "generation_config"
            those of generation_config.json.
        notes: what the user should know, a line each.
        text: the growth of each text that the tokens were chosen by.
        held_out: the growth of texts that nothing was chosen by: the domains of ``pipeline.text.held_out``.
    """

    kept: tuple[int, ...]
    files: Mapping[str, bytes]
    config: Mapping[str, Any]
    notes: tuple[str, ...]
    text: tuple[TokenGrowth, ...]
    held_out: tuple[TokenGrowth, ...]


def cut_files(
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    n_rows: int,
    texts: Mapping[str, str] | None,
    size: int | None,
    *,
    held_out: Mapping[str, str],
) -> VocabularyCut:
    """Choose the tokens that stay.

    Special tokens stay, and the letters of all texts, what configurations name by id, what the chat template writes, the marks of
    calls and thoughts, and all that a token which stays is merged of.

    Args:
        files: the checkpoint's small files (``Source.files``).
        config: the parsed config.json.
        n_rows: of the embedding.
        texts: name -> text; the tokens that they use most stay. None takes Sprig's own calibration text together with the order
            in which the tokenizer learned its tokens.
        size: of the new vocabulary, a multiple of 32, or it is made one. None keeps all that ``texts`` use, and as many more
            as make a multiple of 256: the same tokens for these texts as before.
        held_out: name -> text whose growth is counted beside; nothing is chosen by them.

    Raises:
        SprigError: there is nothing to choose by, no text in the texts, or the size is too small or no smaller than it is.
        VocabError, UnsupportedError: as ``load_vocabulary``, and forms of tokenizer that cannot be written again.
    """
    _refuse(config, texts, size)
    before = load_vocabulary(files, n_rows, config)
    lexicon = read_lexicon(files, n_rows)
    chosen_by = {"Sprig's own text": own_text()} if texts is None else dict(texts)
    counts = {name: count(text, before.encode) for name, text in chosen_by.items()}
    uses = sum(counts.values(), Counter())
    if not uses:
        raise SprigError("the text that the vocabulary is to be chosen by has no words in it; give another")
    needed = closed(lexicon, find_needed(lexicon, files, config, before.templates, before.encode))
    weights: dict[int, float] = dict(uses)
    if texts is None:
        weights = {number: uses[number] + share for number, share in by_order(lexicon, uses.total()).items()}
    weights |= dict.fromkeys(lexicon.added - needed - uses.keys(), -1.0)  # held in reserve: the first to go
    target = _target(size, len(closed(lexicon, needed | uses.keys())), len(needed), n_rows)
    tokens = choose(lexicon, needed, weights, target)
    free = (number for number in range(max(lexicon.texts) + 1, n_rows))  # rows without a token, where tokens do not suffice
    kept = tuple(sorted(tokens | {number for number, _ in zip(free, range(target - len(tokens)), strict=False)}))
    new = {old: number for number, old in enumerate(kept)}
    made = rewritten(files, lexicon, new, carry(before.keys))
    changes = renumbered(config, new, n_rows)
    generation = renumbered(parse_json(files, "generation_config.json"), new, n_rows)
    after = _checked({**files, **made}, {**config, **changes}, generation, kept, before)
    return VocabularyCut(
        kept,
        made,
        {**changes, "generation_config": generation} if generation else changes,
        _notes(size, lexicon, kept, n_rows),
        tuple(TokenGrowth(name, counts[name].total(), count(text, after.encode).total()) for name, text in chosen_by.items()),
        tuple(_growth(name, text, before, after) for name, text in held_out.items()),
    )


def _refuse(config: Mapping[str, Any], texts: Mapping[str, str] | None, size: int | None) -> None:
    """Raises SprigError for what cannot be chosen by or cut."""
    if size is None and texts is None:
        raise SprigError("it is not said what the vocabulary should keep: give a text (--vocab) or a size (--vocab-size)")
    if "vocab_offset" in json.dumps(config):
        raise SprigError("this model numbers images and sounds behind its tokens (vocab_offset): its vocabulary cannot be cut")


def _growth(name: str, text: str, before: Vocabulary, after: Vocabulary) -> TokenGrowth:
    return TokenGrowth(name, *(count(text, vocabulary.encode).total() for vocabulary in (before, after)))


def _target(size: int | None, used: int, least: int, n_rows: int) -> int:
    """Tokens to keep. Raises SprigError."""
    if size is None:
        return min(n_rows, -(-used // ROUND_UP) * ROUND_UP)
    target = size // ROUND_DOWN * ROUND_DOWN
    if target < least:
        room = -(-least // ROUND_DOWN) * ROUND_DOWN
        raise SprigError(
            f"a vocabulary of {size:,} tokens has no room for the {least:,} without which no text is whole (bytes or letters, "
            f"special tokens, marks of chats and calls); give at least {room:,}"
        )
    if target >= n_rows:
        raise SprigError(f"the vocabulary has {n_rows:,} tokens already, which is no more than {size:,}; give a smaller size")
    return target


def _notes(size: int | None, lexicon: Lexicon, kept: tuple[int, ...], n_rows: int) -> tuple[str, ...]:
    notes = []
    if size is not None and size % ROUND_DOWN:
        notes.append(f"{len(kept):,} tokens are kept instead of {size:,}: kernels want a multiple of {ROUND_DOWN}")
    if len(kept) == n_rows:
        notes.append("the text uses so many tokens that none can go; give a size (--vocab-size)")
    if gone := sorted(lexicon.added.difference(kept)):
        first = lexicon.texts[gone[0]][:40]
        notes.append(f"{len(gone)} added tokens that are held in reserve are dropped (first: {first!r})")
    return tuple(notes)


def _checked(
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    generation: Mapping[str, Any],
    kept: tuple[int, ...],
    before: Vocabulary,
) -> Vocabulary:
    """The new vocabulary as a conversion reads it. Raises OutputError if it is not the old one without some tokens."""
    name = "generation_config.json"
    if generation:
        files = {**files, name: json.dumps({**parse_json(files, name), **generation}).encode()}
    after = load_vocabulary(files, len(kept), config)
    same = (Keys.Tokenizer.MODEL, Keys.Tokenizer.PRE)
    wrong = [f"{key} is {after.keys.get(key)!r}" for key in same if after.keys.get(key) != before.keys.get(key)]
    listed: list[list[Any]] = [vocabulary.keys[Keys.Tokenizer.LIST] for vocabulary in (before, after)]  # type: ignore[misc]
    types: list[list[Any]] = [vocabulary.keys[Keys.Tokenizer.TOKEN_TYPE] for vocabulary in (before, after)]  # type: ignore[misc]
    for number, old in enumerate(kept):
        pair = listed[0][old], listed[1][number]
        if types[0][old] != types[1][number] or (pair[0] != pair[1] and not pair[0].startswith("[PAD")):
            wrong.append(f"token {number} is {pair[1][:40]!r} and was {pair[0][:40]!r}")
    for key, value in before.keys.items():
        if key.endswith("_token_id") and isinstance(value, int) and after.keys.get(key) != kept.index(value):
            wrong.append(f"{key} is {after.keys.get(key)!r}")
    if wrong:
        raise OutputError(f"the cut vocabulary is no part of the old one ({wrong[0]}); nothing was written, report this as a bug")
    return after
