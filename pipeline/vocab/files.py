"""Reads a tokenizer's small files, which are untrusted text.

Any fault in them becomes a VocabError; nothing here runs code that came with the model.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple

from tokenizers import AddedToken, Tokenizer

from agent.errors import UnsupportedError, VocabError

MAX_FILE_BYTES = 256_000_000
MAX_TOKEN_BYTES = 16_384
MAX_ROWS = 1 << 22
_CARRIED = "gguf_tokenizer"  # in tokenizer_config.json

_STDERR = threading.RLock()  # one thread at a time may turn it away
_SURROGATE = re.compile("[\ud800-\udfff]")  # what JSON can spell and UTF-8 cannot

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class TokenizerSource:
    """A tokenizer as its library understands it, and the JSON that it was made of."""

    tokenizer: Tokenizer
    spec: Json
    origin: str  # the file that a message names
    notes: tuple[str, ...] = ()


class guarded:  # every text of a tokenizer goes through it: with contextlib it would take as long as the text
    """Turns every failure of the Rust library, its panics included, into one VocabError; its own report is not shown.

    Standard error is kept quiet, also for a library that writes to its file descriptor, as a panic does.
    """

    __slots__ = ("_saved", "_what")

    def __init__(self, what: str) -> None:
        self._what, self._saved = what, -1

    def __enter__(self) -> None:
        _STDERR.acquire()
        with suppress(OSError):  # it is closed, or no more files can be opened
            self._saved = os.dup(2)
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, 2)
            os.close(null)

    def __exit__(self, kind: type[BaseException] | None, e: BaseException | None, trace: TracebackType | None) -> None:
        if self._saved >= 0:
            os.dup2(self._saved, 2)
            os.close(self._saved)
        _STDERR.release()
        if e is None or isinstance(e, (KeyboardInterrupt, SystemExit, GeneratorExit, VocabError, UnsupportedError)):
            return
        reason = " ".join(str(e).split())[:200] or type(e).__name__  # the library's panics are no Exceptions
        raise VocabError(f"{self._what}: {reason}; download the tokenizer again or use another revision") from None


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


def homeless_notes(texts: Sequence[str]) -> tuple[str, ...]:
    """A note on added tokens for which the checkpoint has no row."""
    first = f"(first: {texts[0][:40]!r})" if texts else ""
    return (f"{len(texts)} added tokens have no row in the embedding and were left out {first}",) if texts else ()


class Carried(NamedTuple):
    """The names by which llama.cpp knew a tokenizer before its vocabulary was cut; None where nothing is said.

    ``tokenizer.ggml.model`` and ``tokenizer.ggml.pre`` are found by comparing ids on probes, and ids change with the vocabulary.
    So the cut writes them down. The file is untrusted: a name only decides between those that fit the tokenizer anyway.
    """

    model: str | None
    pre: str | None


def carried(files: Mapping[str, bytes]) -> Carried:
    """What tokenizer_config.json says. Raises VocabError if it is broken."""
    said = parse_json(files, "tokenizer_config.json").get(_CARRIED)
    model, pre = (said.get(name) if isinstance(said, dict) else None for name in ("model", "pre"))
    return Carried(model if isinstance(model, str) else None, pre if isinstance(pre, str) else None)


def carry(keys: Mapping[str, Any]) -> dict[str, Any]:
    """The entry of tokenizer_config.json that carries over the names in these GGUF keys."""
    names = {name: keys.get(f"tokenizer.ggml.{name}") for name in Carried._fields}
    return {_CARRIED: {name: value for name, value in names.items() if isinstance(value, str)}}
