"""Messages between two processes: a length of four bytes, the lowest first, then so many bytes of JSON in UTF-8."""

from __future__ import annotations

import json
import os
import select
import struct
from collections.abc import Mapping
from typing import Any

_LENGTH = struct.Struct("<I")
_MAX_MESSAGE = 256_000_000  # bytes; a peer that claims more is broken
_PART = 1 << 18  # bytes of one read


def frame(message: Mapping[str, Any], errors: str = "surrogatepass") -> bytes:
    """A message as it goes over the wire; ``errors`` says what becomes of a lone surrogate, as in ``str.encode``."""
    raw = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", errors)
    return _LENGTH.pack(len(raw)) + raw


class Wire:
    """One end of two pipes, or of a socket.

    ``send`` may be called from several threads when each call is guarded by the caller; ``receive`` belongs to one.

    Args:
        source, sink: descriptors that are read and written; by default the same, a socket.
        most: bytes of a message that are accepted.
    """

    def __init__(self, source: int, sink: int | None = None, *, most: int = _MAX_MESSAGE) -> None:
        self._source, self._sink = source, source if sink is None else sink
        self._most = most
        self._buffer = bytearray()
        self._readable = select.poll()
        self._readable.register(self._source, select.POLLIN)

    def send(self, message: Mapping[str, Any] | bytes) -> None:
        """Write one message, or what ``frame`` made of it, whole. OSError when the other end is gone."""
        rest = memoryview(message if isinstance(message, bytes) else frame(message))
        while rest:
            rest = rest[os.write(self._sink, rest) :]

    def receive(self) -> dict[str, Any]:
        """Wait for one message. EOFError when the other end is gone or sends anything else."""
        while (message := self._take()) is None:
            self._read()
        return message

    def receive_now(self, seconds: float = 0.0) -> dict[str, Any] | None:
        """One message if it is there already, or comes within ``seconds``. EOFError as ``receive``."""
        while (message := self._take()) is None:
            if not self._readable.poll(1000 * seconds):
                return None
            self._read()
        return message

    def _read(self) -> None:
        try:
            data = os.read(self._source, _PART)
        except OSError as e:
            raise EOFError(str(e)) from None
        if not data:
            raise EOFError("closed")
        self._buffer += data

    def _take(self) -> dict[str, Any] | None:
        if len(self._buffer) < _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > self._most:
            raise EOFError(f"a message of {length} bytes")
        end = _LENGTH.size + length
        if len(self._buffer) < end:
            return None
        raw = bytes(self._buffer[_LENGTH.size : end])
        del self._buffer[:end]
        try:
            message = json.loads(raw.decode("utf-8", "surrogatepass"))
        except ValueError as e:
            raise EOFError(f"not a message: {e}") from None
        if not isinstance(message, dict):
            raise EOFError("not a message")
        return message
