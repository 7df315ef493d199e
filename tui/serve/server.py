"""`sprig chat --serve`: the same app in a browser, on this machine and for whoever holds the token, unless told otherwise."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import signal
import socket
from collections.abc import Callable, Sequence

from agent.errors import SprigError
from agent.text import display
from tui.serve.gate import EVERY_ADDRESS, TokenGate, check_token, is_loopback, make_token

_KEEP_ALIVE_S = 60.0  # that an idle connection of a browser is kept


def serve(
    command: Sequence[str],
    *,
    host: str = "127.0.0.1",
    port: int = 8420,
    token: str | None = "",
    say: Callable[[str], None],
) -> None:
    """Serve the Textual app that ``command`` runs, until SIGINT, SIGTERM or SIGHUP. Afterwards none of its processes is left.

    Args:
        command: program and arguments; no shell sees them. One copy runs at a time.
        host: the address to listen on; "0.0.0.0" or "::" for all of this machine's.
        port: 0 for any free one.
        token: what a browser must know; empty to have one made, None for none at all, on a loopback address only.
        say: takes one line at a time for the person who started it; the address is among them.

    Raises:
        SprigError: textual-serve is missing, the address or port cannot be had, or everybody would be let in.
    """
    if importlib.util.find_spec("textual_serve") is None:
        raise SprigError("serving the chat in a browser needs textual-serve: pip install '.[serve]' in the checkout of Sprig")
    if token is None and not is_loopback(host):
        raise SprigError(f"without a token, everyone who reaches {display(host)} could use this machine; keep the token")
    secret = None if token is None else (check_token(token) if token else make_token())
    with _listen(host, port) as listener:
        address, bound_port = listener.getsockname()[:2]
        gate = TokenGate(secret, address if address in EVERY_ADDRESS else host, bound_port)
        asyncio.run(_run(command, listener, gate, say))


async def _run(command: Sequence[str], listener: socket.socket, gate: TokenGate, say: Callable[[str], None]) -> None:
    from aiohttp import web

    from tui.serve.door import Door
    from tui.serve.place import Place
    from tui.serve.web import make_app

    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    place, door = Place(command, say), Door()
    app = make_app(place, gate, door)
    runner = web.AppRunner(
        app, handle_signals=False, access_log=None, shutdown_timeout=0.1, keepalive_timeout=_KEEP_ALIVE_S, lingering_time=1.0
    )  # fmt: skip
    await runner.setup()
    try:
        assert runner.server is not None
        await door.open(runner.server, listener)
        _announce(gate, say)
        await stop.wait()
        say("Stopping")
    finally:
        door.close()
        await place.close()
        door.cut()
        await runner.cleanup()


def _announce(gate: TokenGate, say: Callable[[str], None]) -> None:
    query = "" if gate.token is None else f"?token={gate.token}"
    if gate.host in EVERY_ADDRESS:
        say(f"Open {_url('127.0.0.1', gate.port)}{query} on this machine")
        if outward := _outward_address():
            say(f"Open {_url(outward, gate.port)}{query} from elsewhere")
    else:
        say(f"Open {_url(gate.host, gate.port)}{query}")
    if not is_loopback(gate.host):
        say("This address is reached from other machines, and what is sent is not encrypted")
    if gate.token is None:
        say("There is no token: everyone who reaches this address can use it")
    say("Ctrl-C stops it")


def _url(host: str, port: int) -> str:
    return f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _listen(host: str, port: int) -> socket.socket:
    """A socket that listens on ``host``, once: "localhost" may name two addresses, and port 0 would differ between them."""
    where = f"{display(host)} port {port}"
    if not 0 <= port <= 65535:
        raise SprigError(f"there is no port {port}: ports are 0 to 65535")
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError):
        raise SprigError(_not_ours(host)) from None
    family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port is free again at once
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if host == "::" else 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise SprigError(_why_not(where, host, error)) from None
    listener.setblocking(False)
    return listener


def _why_not(where: str, host: str, error: OSError) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"{where} is in use by another program; name another one, or 0 for any that is free"
        case errno.EACCES | errno.EPERM:
            return f"{where} may not be used by this user; take one above 1023"
        case errno.EADDRNOTAVAIL:
            return _not_ours(host)
        case _:
            return f"cannot listen on {where}: {error.strerror}"


def _not_ours(host: str) -> str:
    return f"{display(host)!r} is not an address of this machine; 127.0.0.1 is, and 0.0.0.0 is all of them"


def _outward_address() -> str | None:
    """The address that this machine shows to its network. Connecting a UDP socket sends nothing; it only looks up the way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # TEST-NET-1, RFC 5737
        except OSError:
            return None
        return str(probe.getsockname()[0])
