"""Strangers at the door of the served chat: they may be many, slow and loud, and whoever holds the token notices nothing."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("textual_serve", reason="the serve extra is not installed")

import aiohttp

from tests.tui.serve.test_serve import SECONDS, Site, alive, served
from tests.tui.serve.test_serve import parrot as parrot
from tui.serve.door import Door

pytestmark = pytest.mark.slow


class Echo(asyncio.Protocol):
    """A protocol behind a door, for the tests of the door alone."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Stranger:
    """A connection that shows no token."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def says(self, *parts: bytes, every: float = 0.0) -> None:
        with contextlib.suppress(ConnectionError):
            for part in parts:
                self.writer.write(part)
                await self.writer.drain()
                await asyncio.sleep(every)

    async def is_gone(self, seconds: float = SECONDS) -> bool:
        """Whether the server ends the connection."""
        with contextlib.suppress(ConnectionError):
            try:
                async with asyncio.timeout(seconds):
                    while await self.reader.read(1 << 16):
                        pass
            except TimeoutError:
                return False
        return True


Come = Callable[[Site], Awaitable[Stranger]]


@pytest.fixture
async def come() -> AsyncIterator[Come]:
    """Strangers come to a site; all go when the test is over."""
    there: list[Stranger] = []

    async def one(site: Site) -> Stranger:
        where = urlsplit(site.url)
        there.append(Stranger(*await asyncio.open_connection(where.hostname, where.port)))
        return there[-1]

    yield one
    for stranger in there:
        stranger.writer.transport.abort()


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


@contextlib.asynccontextmanager
async def behind(door: Door) -> AsyncIterator[Site]:
    """A door with an echo behind it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        await door.open(Echo, listener)
        async with aiohttp.ClientSession() as http:
            yield Site(f"http://127.0.0.1:{listener.getsockname()[1]}/", http)
        door.close()
        door.cut()


async def test_a_header_that_never_ends_is_not_waited_for(come: Come) -> None:
    async with behind(Door(header_s=0.3)) as site:
        silent, slow = await come(site), await come(site)
        drip = asyncio.create_task(slow.says(*[b"X"] * 1000, every=0.02))
        began = time.monotonic()
        assert await silent.is_gone()
        assert await slow.is_gone()
        assert 0.2 < time.monotonic() - began < 5
        await drip


async def test_a_guest_that_is_known_may_take_its_time(come: Come) -> None:
    door = Door(header_s=0.2)
    async with behind(door) as site:
        guest = await come(site)
        await guest.says(b"hello")
        assert await guest.reader.readexactly(5) == b"hello"
        (transport,) = door._unknown
        assert door.admit(transport)
        assert door.admit(transport), "and again, for the next request"
        assert not await guest.is_gone(0.5)
        await guest.says(b"x" * 200_000)
        assert len(await guest.reader.readexactly(200_000)) == 200_000
        assert not door.admit(None)


async def test_a_loud_stranger_is_cut(come: Come) -> None:
    async with behind(Door()) as site:
        loud = await come(site)
        await loud.says(*[b"x" * 4096] * 40)
        assert await loud.is_gone()


async def test_of_too_many_strangers_the_oldest_go_and_those_with_the_token_stay(come: Come) -> None:
    door = Door()
    async with behind(door) as site:
        friend = await come(site)
        await friend.says(b"hi")
        await friend.reader.readexactly(2)
        assert door.admit(next(iter(door._unknown)))
        crowd = [await come(site) for _ in range(60)]
        assert await crowd[0].is_gone()
        assert not await crowd[-1].is_gone(0.1)
        assert not await friend.is_gone(0.1)
        assert len(door._unknown) <= 32


async def test_even_those_with_the_token_are_counted(come: Come) -> None:
    door = Door()
    async with behind(door) as site:
        admitted = []
        for _ in range(60):
            guest = await come(site)
            await guest.says(b"hi")
            await guest.reader.readexactly(2)
            admitted.append(door.admit(next(iter(door._unknown))))
        assert admitted == [True] * 48 + [False] * 12


SLOW_LORIS = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n"


async def test_a_crowd_of_strangers_keeps_nobody_out_and_costs_little(parrot: Path, come: Come) -> None:
    async with served(parrot) as site:
        assert site.process is not None
        before = open_files(site.process.pid)
        crowd = [await come(site) for _ in range(300)]
        for one in crowd:
            await one.says(SLOW_LORIS)
        async with asyncio.timeout(SECONDS):  # those who come in one breath are closed in the next
            while open_files(site.process.pid) - before > 40:
                await asyncio.sleep(0.02)
        await site.enter()
        tab = await site.tab()
        await tab.pid()
        await tab.submit("hello")
        await tab.see("<olleh>")
        for _ in range(100):
            await come(site)
        await tab.submit("again")
        await tab.see("<niaga>")

        for said in (  # what no browser sends
            b"GET /" + b"a" * 100_000,
            SLOW_LORIS + b"X: " + b"a" * 100_000 + b"\r\n",
            SLOW_LORIS + b"".join(b"X-%d: a\r\n" % n for n in range(20_000)),
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000000\r\n\r\n" + b"x" * 1_000_000,
            b"\0\xff\x16\x03\x01" * 30_000,
            b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n" + b"x" * 200_000,
        ):
            stranger = await come(site)
            await stranger.says(*[said[at : at + 65536] for at in range(0, len(said), 65536)])
            assert await stranger.is_gone(), said[:20]
        await tab.submit("still")
        await tab.see("<llits>")


@pytest.mark.parametrize(("number", "app"), [(signal.SIGINT, "good"), (signal.SIGTERM, "hangs")])
async def test_a_signal_ends_it_within_two_seconds_with_all_of_them_open(
    parrot: Path, come: Come, number: signal.Signals, app: str
) -> None:
    async with served(parrot) as site:
        assert site.process is not None
        await site.enter()
        tab = await site.tab()
        pid = await tab.pid()
        await tab.submit("export")
        key = await tab.hear("deliver_file_start")
        if app == "hangs":
            await tab.submit("hang")
            await asyncio.sleep(0.3)
        crowd = [await come(site) for _ in range(20)]
        for one in crowd:
            await one.says(SLOW_LORIS)
        answer = asyncio.create_task(site.get(f"/download/{key}").__aenter__())  # nobody reads it
        await asyncio.sleep(0.1)
        began = time.monotonic()
        site.process.send_signal(number)
        status = await asyncio.wait_for(site.process.wait(), SECONDS)
        assert time.monotonic() - began < 2.0
        assert status == 0
        assert not alive(pid)
        answer.cancel()
        await asyncio.wait([answer])
