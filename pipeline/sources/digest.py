"""SHA-256 that can be put to sleep: its state saved as bytes, and gone on with in another process.

hashlib cannot do that. OpenSSL's SHA256_* functions keep all state in one flat struct, and Python already carries that
library; where it cannot be bound, ``save`` says None and the caller reads the finished part again.
Struct: SHA256_CTX in openssl/sha.h (eight words of hash, two of length, sixteen of buffer, two counters: 112 bytes).
"""

from __future__ import annotations

import _hashlib
import ctypes
import ctypes.util
import hashlib
import sys
from collections.abc import Iterator
from functools import cache
from typing import Self

from agent.hub.download import Digest

_CONTEXT_BYTES = 112
_KIND = f"openssl-{sys.byteorder}"


class _Resumable:
    """SHA-256 by OpenSSL's flat functions."""

    def __init__(self, library: ctypes.CDLL, context: bytes | None = None) -> None:
        self._library = library
        self._context = ctypes.create_string_buffer(context or bytes(_CONTEXT_BYTES), _CONTEXT_BYTES)
        if context is None:
            library.SHA256_Init(self._context)

    def update(self, data: bytes | bytearray | memoryview, /) -> None:
        raw = bytes(data)
        self._library.SHA256_Update(self._context, raw, ctypes.c_size_t(len(raw)))

    def copy(self) -> Self:
        return type(self)(self._library, self._context.raw)

    def hexdigest(self) -> str:
        out, scratch = ctypes.create_string_buffer(32), self.copy()
        self._library.SHA256_Final(out, scratch._context)
        return out.raw.hex()

    def save(self) -> str:
        return f"{_KIND}:{self._context.raw.hex()}"


def sha256() -> Digest:
    """A fresh SHA-256, resumable where OpenSSL can be bound."""
    library = _openssl()
    return _Resumable(library) if library is not None else hashlib.sha256()


def save(digest: Digest) -> str | None:
    """The state as text for a JSON file, or None where it cannot be had."""
    return digest.save() if isinstance(digest, _Resumable) else None


def resume(saved: object) -> Digest | None:
    """The SHA-256 that ``save`` put to sleep, or None where this process cannot wake it."""
    library = _openssl()
    if library is None or not isinstance(saved, str):
        return None
    kind, _, state = saved.partition(":")
    try:
        context = bytes.fromhex(state)
    except ValueError:
        return None
    return _Resumable(library, context) if kind == _KIND and len(context) == _CONTEXT_BYTES else None


@cache
def _openssl() -> ctypes.CDLL | None:
    """OpenSSL with the flat functions, proved by a hash that was interrupted; None where there is none."""
    sample = bytes(range(200))
    for library in _candidates():
        try:
            library.SHA256_Init.restype = library.SHA256_Update.restype = library.SHA256_Final.restype = ctypes.c_int
            first = _Resumable(library)
            first.update(sample[:100])
            second = first.copy()
            second.update(sample[100:])
        except AttributeError:
            continue
        if second.hexdigest() == hashlib.sha256(sample).hexdigest():
            return library
    return None


def _candidates() -> Iterator[ctypes.CDLL]:
    # The copy that Python itself is linked with comes first: it is already loaded.
    own = getattr(_hashlib, "__file__", None)
    for name in (own, "libcrypto.so.3", "libcrypto.so", ctypes.util.find_library("crypto")):
        if name is not None:
            try:
                yield ctypes.CDLL(name)
            except OSError:
                continue
