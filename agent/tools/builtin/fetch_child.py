"""The process that fetches a URL: connects only to addresses that were checked, and takes no more than it should.

The name is looked up once; the connection goes to the address that was checked (a second look-up could answer differently), and
every redirect is a new URL that passes the same checks. No proxies, no cookies, nothing from the environment.
Sources: RFC 9110 (HTTP semantics), RFC 9112 (HTTP/1.1), RFC 1950 to 1952 (deflate and gzip).
"""

from __future__ import annotations

import codecs
import contextlib
import http.client
import re
import socket
import ssl
import time
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from agent.errors import SprigError
from agent.text.address import Resolve, Target, checked, read_url, resolve
from agent.text.html_text import html_text

Connect = Callable[[str, int, float], socket.socket]

MAX_BODY = 2_000_000  # bytes, before and after decompression
MAX_REDIRECTS = 5
_STEP_SECONDS = 10.0
_TEXTS = re.compile(
    r"text/|application/(?:[\w.+-]*\+)?(?:json|xml|yaml|toml|javascript|x-ndjson)\b|application/(?:x-yaml|x-sh|sql|rtf)\b"
)


class FetchError(SprigError):
    """The page could not be had; the message is for the model."""


@dataclass(frozen=True, slots=True)
class Page:
    """What a URL gave: the address after redirects, the HTTP status, the kind of content, its text, whether it was cut."""

    url: str
    status: int
    kind: str
    text: str
    cut: bool


def fetch(job: dict[str, Any]) -> dict[str, Any]:
    """What ``agent.tools.builtin.lookup`` asks for: {"url", "seconds", "allow_private"} -> the page's fields."""
    return asdict(fetch_page(job["url"], seconds=job["seconds"], allow_private=job["allow_private"]))


def _connect(address: str, port: int, seconds: float) -> socket.socket:
    return socket.create_connection((address, port), seconds)


def fetch_page(
    url: str, *, seconds: float, allow_private: bool = False, resolver: Resolve = resolve, connect: Connect = _connect
) -> Page:
    """Fetch a page as text.

    Args:
        url: http or https.
        seconds: for everything, redirects included.
        allow_private: also addresses of this machine and of private networks.
        resolver: host and port -> addresses.
        connect: address, port and seconds -> a connected socket.

    Raises:
        AddressError: the URL, or one that it redirects to, must not be fetched.
        FetchError: it could not be had.
    """
    deadline = time.monotonic() + seconds
    base = ""
    for _ in range(MAX_REDIRECTS + 1):
        target = read_url(url, base)
        addresses = checked(target, resolver, allow_private)
        with contextlib.closing(_Exchange(target, deadline)) as exchange:
            response = exchange.ask(addresses, connect)
            location = response.getheader("Location")
            if response.status in (301, 302, 303, 307, 308) and location:
                base, url = target.url, location
                continue
            return exchange.page(response)
    raise FetchError(f"more than {MAX_REDIRECTS} redirects")


class _Exchange:
    """One request and its answer."""

    def __init__(self, target: Target, deadline: float) -> None:
        self._target, self._deadline = target, deadline
        self._socket: socket.socket | None = None
        self._connection: http.client.HTTPConnection | None = None

    def ask(self, addresses: list[str], connect: Connect) -> http.client.HTTPResponse:
        target = self._target
        try:
            self._socket = self._reach(addresses, connect)
            connection = http.client.HTTPConnection(target.host, target.port)
            connection.sock = self._socket
            connection.auto_open = 0  # never by itself, to a name
            self._connection = connection
            connection.putrequest("GET", target.path, skip_host=True, skip_accept_encoding=True)
            headers = {
                "Host": target.netloc, "User-Agent": "Sprig", "Accept": "text/html, text/plain, application/json, */*;q=0.5",
                "Accept-Encoding": "gzip, deflate", "Connection": "close",
            }  # fmt: skip
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            self._socket.settimeout(self._left())
            return connection.getresponse()
        except ssl.SSLCertVerificationError as e:
            raise FetchError(f"the certificate of {target.host} is not valid: {e.verify_message}; is the clock right?") from None
        except TimeoutError:
            raise FetchError(f"{target.host} did not answer in time") from None
        except (OSError, http.client.HTTPException) as e:
            raise FetchError(f"{target.host}: {_why(e)}") from None

    def _reach(self, addresses: list[str], connect: Connect) -> socket.socket:
        last: OSError = OSError("no address")
        for address in addresses[:4]:
            try:
                reached = connect(address, self._target.port, min(_STEP_SECONDS, self._left()))
                if self._target.scheme == "https":
                    reached.settimeout(min(_STEP_SECONDS, self._left()))
                    return ssl.create_default_context().wrap_socket(reached, server_hostname=self._target.host)
                return reached
            except ssl.SSLError:
                raise
            except OSError as e:
                last = e
        raise last

    def _left(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left

    def page(self, response: http.client.HTTPResponse) -> Page:
        target = self._target
        header = response.getheader("Content-Type") or "text/html"
        kind = header.partition(";")[0].strip().lower()
        if not _TEXTS.match(kind):
            size = response.getheader("Content-Length") or "an unknown number of"
            return Page(target.url, response.status, kind, f"[{kind[:80]}, {size[:20]} bytes: not text, not fetched]", False)
        try:
            raw, cut = self._body(response)
        except (OSError, http.client.HTTPException, zlib.error) as e:
            raise FetchError(f"{target.host}: the answer broke off ({_why(e)})") from None
        text = _decoded(raw, header)
        if kind in ("text/html", "application/xhtml+xml"):
            text = html_text(text)
        return Page(target.url, response.status, kind, text, cut)

    def _body(self, response: http.client.HTTPResponse) -> tuple[bytes, bool]:
        """The body up to MAX_BODY bytes after decompression, and whether there was more; slow bodies end at the deadline."""
        coding = (response.getheader("Content-Encoding") or "identity").strip().lower()
        if coding not in ("identity", "gzip", "x-gzip", "deflate", ""):
            raise http.client.HTTPException(f"an unknown encoding, {coding[:40]}")
        inflater = zlib.decompressobj(47) if coding in ("gzip", "x-gzip") else None
        body, taken = bytearray(), 0
        assert self._socket is not None
        while len(body) < MAX_BODY and taken < MAX_BODY:
            try:
                self._socket.settimeout(self._left())
                data = response.read1(1 << 16)
            except TimeoutError:
                if body:
                    return bytes(body), True
                raise
            if not data:
                return bytes(body), bool(response.length)  # it promised more
            taken += len(data)
            if coding == "deflate" and inflater is None:
                inflater = zlib.decompressobj(15 if data[0] & 0x0F == 8 else -15)  # some send it without its header
            body += inflater.decompress(data, MAX_BODY - len(body)) if inflater else data
        return bytes(body[:MAX_BODY]), True

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
        elif self._socket is not None:
            self._socket.close()


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "too slow"
    if isinstance(error, OSError) and error.strerror:
        return str(error.strerror)
    return " ".join(str(error).split())[:200] or type(error).__name__


def _decoded(raw: bytes, header: str) -> str:
    match = re.search(r"charset=\"?([\w.:-]{1,40})", header, re.IGNORECASE)
    named = match[1] if match else ""
    if not named and (found := re.search(rb"<meta[^>]{0,200}charset=[\"']?([\w.:-]{1,40})", raw[:2048], re.IGNORECASE)):
        named = found[1].decode("ascii")
    with contextlib.suppress(LookupError, ValueError):
        if named and codecs.lookup(named).name not in ("utf-8", "utf-7", "idna", "punycode"):
            return raw.decode(named, "replace")
    return raw.decode("utf-8", "replace")
