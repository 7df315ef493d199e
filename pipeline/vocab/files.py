"""Reads a tokenizer's small files, which are untrusted text.

Any fault in them becomes a VocabError; nothing here runs code that came with the model.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Tokenizer

from agent.errors import UnsupportedError, VocabError
from pipeline.vocab.patterns import QWEN2
from pipeline.vocab.trial import is_plain, try_tokenizer

MAX_FILE_BYTES = 256_000_000
MAX_TOKEN_BYTES = 16_384
MAX_ROWS = 1 << 22

_STDERR = threading.RLock()  # one thread at a time may turn it away
_SURROGATE = re.compile("[\ud800-\udfff]")  # what JSON can spell and UTF-8 cannot

Json = dict[str, Any]
_EMPTY_SPEC: Json = {
    "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "pre_tokenizer": None,
    "post_processor": None, "decoder": None,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """A tokenizer as its library understands it, and the JSON that it was made of."""

    tokenizer: Tokenizer
    spec: Json
    origin: str  # the file that a message names
    notes: tuple[str, ...] = ()


@contextmanager
def guarded(what: str) -> Iterator[None]:
    """Turns every failure of the Rust library, its panics included, into one VocabError; its own report is not shown."""
    try:
        with _silent():
            yield
    except (KeyboardInterrupt, SystemExit, GeneratorExit, VocabError, UnsupportedError):
        raise
    except BaseException as e:  # the library's panics are no Exceptions
        reason = " ".join(str(e).split())[:200] or type(e).__name__
        raise VocabError(f"{what}: {reason}; download the tokenizer again or use another revision") from None


@contextmanager
def _silent() -> Iterator[None]:
    """Keep standard error quiet, also for a library that writes to its file descriptor, as a panic does."""
    with _STDERR:
        try:
            saved = os.dup(2)
        except OSError:  # it is closed
            yield
            return
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 2)
        os.close(null)
        try:
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


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
    return value if isinstance(value, str) and value and not _SURROGATE.search(value) else None


def extra_tokens(files: Mapping[str, bytes]) -> dict[int, AddedToken]:
    """Tokens that tokenizer_config.json and added_tokens.json add to the vocabulary, by id."""
    found: dict[int, AddedToken] = {}
    for text, number in parse_json(files, "added_tokens.json").items():
        if isinstance(number, int) and not isinstance(number, bool):
            found[number] = AddedToken(text, normalized=False, special=False)
    decoder = parse_json(files, "tokenizer_config.json").get("added_tokens_decoder")
    for key, entry in (decoder if isinstance(decoder, dict) else {}).items():
        content = text_of(entry)
        if content is None or not isinstance(entry, dict) or not re.fullmatch(r"[0-9]{1,9}", key):
            raise VocabError(f"tokenizer_config.json: added_tokens_decoder has the broken entry {key[:40]!r}")
        flags = {f: bool(entry.get(f, False)) for f in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        found[int(key)] = AddedToken(content, **flags)
    return found


def check_vocabulary(vocab: Any, origin: str) -> dict[str, int]:
    """``vocab`` as text -> id, every id used once. Raises VocabError."""
    if not isinstance(vocab, dict) or not vocab:
        raise VocabError(f"{origin} has no vocabulary; download it again")
    if _sound(vocab):
        return vocab
    seen: dict[int, str] = {}
    for text, number in vocab.items():
        if not isinstance(number, int) or isinstance(number, bool) or number < 0:
            raise VocabError(f"{origin}: token {text[:40]!r} has the id {number!r}; download it again")
        if number in seen:
            raise VocabError(f"{origin}: tokens {seen[number][:40]!r} and {text[:40]!r} share the id {number}")
        seen[number] = text
        check_text(text, origin)
    return vocab


def _sound(vocab: dict[str, Any]) -> bool:
    """Whether nothing is wrong with a vocabulary; seen at once, where to name what is wrong takes a look at each token."""
    numbers = vocab.values()
    if set(map(type, numbers)) != {int} or min(numbers) < 0 or len(set(numbers)) != len(vocab):
        return False
    return max(map(len, vocab)) * 4 <= MAX_TOKEN_BYTES and not _SURROGATE.search("".join(vocab))


def check_text(text: str, origin: str) -> None:
    if len(text) * 4 > MAX_TOKEN_BYTES and len(text.encode("utf-8", "surrogatepass")) > MAX_TOKEN_BYTES:
        raise VocabError(f"{origin}: token {text[:40]!r}... is longer than {MAX_TOKEN_BYTES} bytes")
    if not text.isascii() and _SURROGATE.search(text):
        raise VocabError(f"{origin}: token {text[:40]!r} is not valid Unicode")


def read_source(files: Mapping[str, bytes], n_rows: int) -> TokenizerSource:
    """Read the tokenizer from tokenizer.json, or build it from vocab.json and merges.txt, or from vocab.txt.

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
    elif "tekken.json" in files:
        raise UnsupportedError(
            "the checkpoint has its tokenizer only as tekken.json, Mistral's own format; put the tokenizer.json and "
            "tokenizer_config.json of the same model in the Hugging Face format beside it"
        )
    else:
        raise UnsupportedError(
            "the checkpoint has no tokenizer that Sprig knows: tokenizer.json, tokenizer.model, vocab.json with "
            "merges.txt, or vocab.txt"
        )
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


def homeless_notes(texts: Sequence[str]) -> tuple[str, ...]:
    """A note on added tokens for which the checkpoint has no row."""
    first = f"(first: {texts[0][:40]!r})" if texts else ""
    return (f"{len(texts)} added tokens have no row in the embedding and were left out {first}",) if texts else ()


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


def _lines(files: Mapping[str, bytes], name: str) -> list[str]:
    try:
        return files[name].decode("utf-8").split("\n")
    except UnicodeDecodeError:
        raise VocabError(f"{name} is not UTF-8 text; download it again") from None


def _gpt2_spec(files: Mapping[str, bytes]) -> Json:
    """GPT-2's files as a tokenizer.json. They do not say how text is split; the tokenizer's class does."""
    merges = []
    for line in _lines(files, "merges.txt"):
        pair = line.rstrip("\r").split(" ")
        if line.startswith("#version") or not line.strip():
            continue
        if len(pair) != 2:
            raise VocabError(f"merges.txt: {line[:60]!r} is not a merge of two tokens; download it again")
        merges.append(pair)
    config = parse_json(files, "tokenizer_config.json")
    prefix = bool(config.get("add_prefix_space"))
    level = {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": True}
    qwen = "Qwen2" in str(config.get("tokenizer_class"))
    split = {"type": "Split", "pattern": {"Regex": QWEN2}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, {**level, "use_regex": False}]}
    return {
        **_EMPTY_SPEC,
        "normalizer": {"type": "NFC"} if qwen else None,
        "pre_tokenizer": steps if qwen else level,
        "model": {"type": "BPE", "vocab": parse_json(files, "vocab.json"), "merges": merges},
    }


def _bert_spec(files: Mapping[str, bytes]) -> Json:
    """BERT's vocab.txt as a tokenizer.json: one token a line, the line number is the id."""
    lines = [line.rstrip("\r") for line in _lines(files, "vocab.txt")]
    while lines and not lines[-1]:
        lines.pop()
    vocab = {token: number for number, token in enumerate(lines)}
    if len(vocab) != len(lines):
        raise VocabError("vocab.txt has the same token on two lines; download it again")
    config = parse_json(files, "tokenizer_config.json")
    lower = bool(config.get("do_lower_case", True))
    names = {role: text_of(config.get(f"{role}_token")) or f"[{role.upper()}]" for role in ("cls", "sep", "unk", "pad", "mask")}
    known = [text for text in names.values() if text in vocab]
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    ends = {role: [names[role], vocab[names[role]]] for role in ("sep", "cls") if names[role] in vocab}
    return {
        **_EMPTY_SPEC,
        "added_tokens": [{"id": vocab[text], "content": text, **flags, "special": True} for text in known],
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "lowercase": lower,
            "strip_accents": strip if isinstance(strip := config.get("strip_accents"), bool) else None,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", **ends} if len(ends) == 2 else None,
        "model": {
            "type": "WordPiece", "vocab": vocab, "unk_token": names["unk"], "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
    }  # fmt: skip
