"""A tokenizer's small files, read as what they are: text from a stranger.

Whatever is wrong with them ends in a VocabError; nothing here runs code that came with the model.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from agent.errors import UnsupportedError, VocabError

MAX_FILE_BYTES = 256_000_000
MAX_TOKEN_BYTES = 16_384
MAX_ROWS = 1 << 22
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """A tokenizer as its library understands it, and the JSON that it was made of."""

    tokenizer: Tokenizer
    spec: Json
    origin: str  # the file that a message names
    notes: tuple[str, ...] = ()


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turns every failure of the Rust library, its panics included, into one VocabError; its own report is not shown.

    A panic is a BaseException and prints a stack trace to the file descriptor of standard error, hence the detour.
    """
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, VocabError, UnsupportedError):
        raise
    except BaseException as e:
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise VocabError(f"{what}: {reason}; download the tokenizer again or use another revision") from None
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def parse_json(files: Mapping[str, bytes], name: str) -> Json:
    """The object in this file, {} when there is no such file. Raises VocabError."""
    raw = files.get(name)
    if raw is None:
        return {}
    if len(raw) > MAX_FILE_BYTES:
        raise VocabError(f"{name} has {len(raw)} bytes, which no tokenizer needs; use another revision")
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as e:
        raise VocabError(f"{name} is not JSON ({str(e)[:120]}); download it again") from None
    if not isinstance(value, dict):
        raise VocabError(f"{name} holds a {type(value).__name__}, not an object; download it again")
    return value


def text_of(value: Any) -> str | None:
    """A token as tokenizer_config.json writes it: a string, or an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def extra_tokens(files: Mapping[str, bytes]) -> dict[int, AddedToken]:
    """Tokens that tokenizer_config.json and added_tokens.json add to the vocabulary, by id."""
    found: dict[int, AddedToken] = {}
    for text, number in parse_json(files, "added_tokens.json").items():
        if isinstance(number, int) and not isinstance(number, bool):
            found[number] = AddedToken(text, normalized=False, special=False)
    decoder = parse_json(files, "tokenizer_config.json").get("added_tokens_decoder")
    for key, entry in (decoder if isinstance(decoder, dict) else {}).items():
        content = text_of(entry)
        if content is None or not re.fullmatch(r"[0-9]{1,9}", key):
            raise VocabError(f"tokenizer_config.json: added_tokens_decoder has the broken entry {key[:40]!r}")
        flags = {f: bool(entry.get(f, False)) for f in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        found[int(key)] = AddedToken(content, **flags)
    return found


def check_vocabulary(vocab: Any, origin: str) -> dict[str, int]:
    """``vocab`` as text -> id, every id used once. Raises VocabError."""
    if not isinstance(vocab, dict) or not vocab:
        raise VocabError(f"{origin} has no vocabulary; download it again")
    seen: dict[int, str] = {}
    for text, number in vocab.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise VocabError(f"{origin}: token {text[:40]!r} has the id {number!r}; download it again")
        if number in seen:
            raise VocabError(f"{origin}: tokens {seen[number][:40]!r} and {text[:40]!r} share the id {number}")
        seen[number] = text
        check_text(text, origin)
    return vocab


def check_text(text: str, origin: str) -> None:
    if len(text) * 4 > MAX_TOKEN_BYTES and len(text.encode("utf-8", "surrogatepass")) > MAX_TOKEN_BYTES:
        raise VocabError(f"{origin}: token {text[:40]!r}... is longer than {MAX_TOKEN_BYTES} bytes")
    if not text.isascii() and any("\ud800" <= c <= "\udfff" for c in text):
        raise VocabError(f"{origin}: token {text[:40]!r} is not valid Unicode")


def read_source(files: Mapping[str, bytes], n_rows: int) -> Source:
    """The tokenizer in tokenizer.json, or one built from vocab.json and merges.txt, or from vocab.txt.

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
    elif "vocab.json" in files and "merges.txt" in files:
        origin, spec = "vocab.json", _gpt2_spec(files)
    elif "vocab.txt" in files:
        origin, spec = "vocab.txt", _bert_spec(files)
    else:
        raise UnsupportedError(
            "the checkpoint has no tokenizer that Sprig knows: tokenizer.json, tokenizer.model, vocab.json with "
            "merges.txt, or vocab.txt"
        )
    spec, dropped = _without_homeless(spec, n_rows, origin)
    with guarded(f"{origin} cannot be loaded"):
        tokenizer = Tokenizer.from_str(json.dumps(spec) if given is None or dropped else given)
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
    notes: tuple[str, ...] = ()
    if dropped:
        notes = (
            f"{len(dropped)} added tokens have no row in the embedding and were left out (first: {dropped[0][:40]!r})",
        )
    return Source(tokenizer, spec, origin, notes)


def _without_homeless(spec: Json, n_rows: int, origin: str) -> tuple[Json, list[str]]:
    """The tokenizer's JSON without added tokens beyond the embedding, and their texts."""
    if not 0 < n_rows <= MAX_ROWS:
        raise VocabError(f"the embedding has {n_rows} rows, which no vocabulary has")
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
    if top >= n_rows:
        raise VocabError(f"{origin} has token id {top}, but the embedding has only {n_rows} rows; the files do not fit together")
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


def _lines(files: Mapping[str, bytes], name: str) -> list[str]:
    try:
        return files[name].decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise VocabError(f"{name} is not UTF-8 text; download it again") from None


def _gpt2_spec(files: Mapping[str, bytes]) -> Json:
    """GPT-2's files: the splitting is not in them, the tokenizer's class says it."""
    vocab = check_vocabulary(parse_json(files, "vocab.json"), "vocab.json")
    merges = []
    for line in _lines(files, "merges.txt"):
        pair = line.rstrip("\r").split(" ")
        if line.startswith("#version") or not line.strip():
            continue
        if len(pair) != 2:
            raise VocabError(f"merges.txt: {line[:60]!r} is not a merge of two tokens; download it again")
        merges.append((pair[0], pair[1]))
    config = parse_json(files, "tokenizer_config.json")
    with guarded("vocab.json and merges.txt cannot be loaded"):
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
        if "Qwen2" in str(config.get("tokenizer_class")):
            tokenizer.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(QWEN2), "isolated")
            parts = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
            tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
        else:
            prefix = bool(config.get("add_prefix_space", False))
            tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
        spec: Json = json.loads(tokenizer.to_str())
    return spec


def _bert_spec(files: Mapping[str, bytes]) -> Json:
    """BERT's vocab.txt: one token a line, the line number is the id."""
    lines = [line.rstrip("\r") for line in _lines(files, "vocab.txt")]
    while lines and not lines[-1]:
        lines.pop()
    vocab = {token: number for number, token in enumerate(lines)}
    if len(vocab) != len(lines):
        raise VocabError("vocab.txt has the same token on two lines; download it again")
    config = parse_json(files, "tokenizer_config.json")
    lower = bool(config.get("do_lower_case", True))
    names = {role: text_of(config.get(f"{role}_token")) or f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")}
    with guarded("vocab.txt cannot be loaded"):
        tokenizer = Tokenizer(models.WordPiece(vocab=check_vocabulary(vocab, "vocab.txt"), unk_token=names["unk"]))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lower, strip_accents=config.get("strip_accents"))
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        tokenizer.add_special_tokens([AddedToken(text, special=True) for text in names.values() if text in vocab])
        if names["cls"] in vocab and names["sep"] in vocab:
            tokenizer.post_processor = processors.BertProcessing(
                (names["sep"], vocab[names["sep"]]), (names["cls"], vocab[names["cls"]])
            )
        spec: Json = json.loads(tokenizer.to_str())
    return spec
