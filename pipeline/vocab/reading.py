"""Makes a tokenizer of a checkpoint's files, once they are known to be harmless to the library."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tokenizers import Tokenizer

from agent.errors import VocabError
from pipeline.vocab.files import (
    Json,
    TokenizerSource,
    check_text,
    check_vocabulary,
    extra_tokens,
    guarded,
    homeless_notes,
    parse_json,
    text_of,
)  # fmt: skip
from pipeline.vocab.specs import made_spec
from pipeline.vocab.trial import is_plain, try_tokenizer


def read_source(files: Mapping[str, bytes], n_rows: int) -> TokenizerSource:
    """Read the tokenizer from tokenizer.json, or build it from the older files.

    Added tokens that the checkpoint has no row for are left out, with a note: a model that has no embedding for a token
    cannot have learnt it (the image tokens of a text-only export).

    Raises:
        VocabError: broken files, or base tokens beyond ``n_rows``.
        UnsupportedError: no tokenizer that Sprig knows.
    """
    given: str | None = None
    if "tokenizer.json" in files:
        origin, spec = "tokenizer.json", parse_json(files, "tokenizer.json")
        given = files["tokenizer.json"].decode("utf-8", "replace")
    else:
        origin, spec = made_spec(files)
    spec, dropped = _without_homeless(spec, n_rows, origin)
    text = json.dumps(spec) if given is None or dropped else given
    if not is_plain(spec):
        try_tokenizer("json", text.encode("utf-8", "replace"), origin)
    with guarded(f"{origin} cannot be loaded"):
        tokenizer = Tokenizer.from_str(text)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    for number, token in sorted(extra_tokens(files).items()):
        check_text(token.content, "tokenizer_config.json")
        if tokenizer.token_to_id(token.content) is not None:
            continue
        if number >= n_rows:
            dropped.append(token.content)
            continue
        with guarded("tokenizer_config.json: added_tokens_decoder"):
            (tokenizer.add_special_tokens if token.special else tokenizer.add_tokens)([token])
            got = tokenizer.token_to_id(token.content)
        if got != number:
            raise VocabError(f"tokenizer_config.json gives token {token.content[:40]!r} the id {number}, {origin} {got}")
    return TokenizerSource(tokenizer, spec, origin, homeless_notes(dropped))


def _without_homeless(spec: Json, n_rows: int, origin: str) -> tuple[Json, list[str]]:
    """The tokenizer's JSON without added tokens beyond the embedding, and their texts."""
    model = spec.get("model")
    if not isinstance(model, dict):
        raise VocabError(f"{origin} has no model; download it again")
    vocab = model.get("vocab")
    if isinstance(vocab, dict):
        base = check_vocabulary(vocab, origin)
        top = max(base.values())
    elif isinstance(vocab, list) and vocab:
        base, top = {}, len(vocab) - 1
    else:
        raise VocabError(f"{origin} has no vocabulary; download it again")
    if top >= n_rows:  # the library would walk through every id up to the largest
        what = f"{origin} has token id {top}, but the embedding has only {n_rows} rows"
        raise VocabError(f"{what}; the files do not fit together")
    added = spec.get("added_tokens") or []
    if not isinstance(added, list):
        raise VocabError(f"{origin}: added_tokens is not a list; download it again")
    kept, dropped = [], []
    ids: dict[int, str] = {}
    for entry in added:
        text = text_of(entry)
        number = entry.get("id") if isinstance(entry, dict) else None
        if text is None or not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise VocabError(f"{origin}: added token {str(entry)[:60]} is broken; download it again")
        check_text(text, origin)
        if ids.setdefault(number, text) != text:
            raise VocabError(f"{origin}: added tokens {ids[number][:40]!r} and {text[:40]!r} share the id {number}")
        if number >= n_rows and text not in base:
            dropped.append(text)
        else:
            kept.append(entry)
    return ({**spec, "added_tokens": kept} if dropped else spec), dropped
