"""Messages between two processes: a length of four bytes, then that much JSON in UTF-8."""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

_LENGTH = struct.Struct("<I")
MAX_MESSAGE = 256_000_000  # bytes; a peer that claims more is broken


class Wire:
    """One end of a socket pair.

    ``send`` may be called from several threads when each call is guarded by the caller; ``receive`` belongs to one.
    """

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._buffer = bytearray()

    def send(self, message: dict[str, Any]) -> None:
        """Write one message whole. OSError when the other end is gone."""
        raw = json.dumps(message, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
        self.sock.sendall(_LENGTH.pack(len(raw)) + raw)

    def receive(self) -> dict[str, Any]:
        """Wait for one message. EOFError when the other end is gone or sends what is no message."""
        while (message := self._take()) is None:
            try:
                data = self.sock.recv(1 << 18)
            except (ConnectionError, OSError) as e:
                raise EOFError(str(e)) from None
            if not data:
                raise EOFError("closed")
            self._buffer += data
        return message

    def receive_now(self) -> dict[str, Any] | None:
        """One message if it is there already. EOFError as ``receive``."""
        while (message := self._take()) is None:
            try:
                data = self.sock.recv(1 << 18, socket.MSG_DONTWAIT)
            except (BlockingIOError, InterruptedError):
                return None
            except OSError as e:
                raise EOFError(str(e)) from None
            if not data:
                raise EOFError("closed")
            self._buffer += data
        return message

    def _take(self) -> dict[str, Any] | None:
        if len(self._buffer) < 4:
            return None
        (length,) = _LENGTH.unpack_from(self._buffer)
        if length > MAX_MESSAGE:
            raise EOFError(f"a message of {length} bytes")
        if len(self._buffer) < 4 + length:
            return None
        raw = bytes(self._buffer[4 : 4 + length])
        del self._buffer[: 4 + length]
        try:
            message = json.loads(raw.decode("utf-8", "surrogatepass"))
        except ValueError as e:
            raise EOFError(f"no message: {e}") from None
        if not isinstance(message, dict):
            raise EOFError("no message")
        return message

    def close(self) -> None:
        self.sock.close()
