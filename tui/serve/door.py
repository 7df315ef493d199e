"""The door of the served app: how many may stand in it, for how long and how much they may say before they show the token.

aiohttp waits for the end of a header as long as a connection lasts, and takes any number of connections. So between the socket
and aiohttp stands a guest: an unknown one is cut when it takes too long or says too much, or when too many come after it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable

HEADER_S = 10.0  # until an unknown guest must have shown the token
_HEADER_BYTES = 1 << 16  # that it may send until then
_UNKNOWN, _KNOWN = 32, 48  # guests at once; a browser opens six connections and the socket


class Door:
    """Listens, and hands each connection on to a protocol of its own."""

    def __init__(self, *, header_s: float = HEADER_S) -> None:
        self._header_s = header_s
        self._unknown: dict[asyncio.BaseTransport, Guest] = {}  # the oldest first
        self._known: dict[asyncio.BaseTransport, Guest] = {}
        self._server: asyncio.Server | None = None

    async def open(self, protocol: Callable[[], asyncio.Protocol], listener: socket.socket) -> None:
        """Let guests in. Each speaks with a ``protocol`` of its own."""
        self._server = await asyncio.get_running_loop().create_server(lambda: Guest(self, protocol()), sock=listener)

    def close(self) -> None:
        """Let nobody in any more."""
        if self._server is not None:
            self._server.close()

    def cut(self) -> None:
        """End every connection, whatever is still to be said."""
        for guest in [*self._unknown.values(), *self._known.values()]:
            guest.cut()

    def admit(self, transport: asyncio.BaseTransport | None) -> bool:
        """The guest of this connection has shown the token. False when there are too many that have; it is cut then."""
        guest = self._unknown.pop(transport, None) if transport is not None else None
        if guest is None:
            return transport in self._known
        guest.known()
        if len(self._known) >= _KNOWN:
            guest.cut()
            return False
        self._known[guest.transport] = guest
        return True

    def _enter(self, guest: Guest) -> None:
        # The oldest goes: whoever is honest shows the token at once, and must not be kept out by those who never do.
        while len(self._unknown) >= _UNKNOWN:
            next(iter(self._unknown.values())).cut()
        self._unknown[guest.transport] = guest

    def _leave(self, guest: Guest) -> None:
        self._unknown.pop(guest.transport, None)
        self._known.pop(guest.transport, None)


class Guest(asyncio.Protocol):
    """One connection. What it says goes on to ``inner``."""

    transport: asyncio.Transport

    def __init__(self, door: Door, inner: asyncio.Protocol) -> None:
        self._door, self._inner = door, inner
        self._left: int | None = _HEADER_BYTES  # that it may still send; None once it is known
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._timer = asyncio.get_running_loop().call_later(self._door._header_s, self.cut)
        self._door._enter(self)
        self._inner.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._left is not None:
            self._left -= len(data)
            if self._left < 0:
                self.cut()
                return
        self._inner.data_received(data)

    def eof_received(self) -> bool | None:
        return self._inner.eof_received()

    def pause_writing(self) -> None:
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        self._inner.resume_writing()

    def connection_lost(self, error: Exception | None) -> None:
        self.known()
        self._door._leave(self)
        self._inner.connection_lost(error)

    def known(self) -> None:
        """Neither time nor size is limited here any more."""
        self._left = None
        if self._timer is not None:
            self._timer.cancel()

    def cut(self) -> None:
        """End the connection at once."""
        self._door._leave(self)
        self.transport.abort()
