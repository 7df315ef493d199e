"""One GET request by the standard library. Redirects are followed, and a token never goes along to another host."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from http.client import HTTPResponse
from urllib.parse import urljoin, urlsplit

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS = 5


class WrongAddressError(Exception):
    """An address that cannot be asked: no web address, or one that redirects in a circle."""


@contextmanager
def get(url: str, headers: Mapping[str, str], token: str | None, timeout: float) -> Iterator[HTTPResponse]:
    """The answer to a GET, whatever its status, with its body still to be read. Proxies of the environment are used.

    Args:
        token: sent as a bearer token, as long as scheme, host and port are those of ``url``.
        timeout: seconds of silence before it fails.

    Raises:
        WrongAddressError: the address, or one that it redirects to, cannot be asked.
        OSError, http.client.HTTPException: no connection, or no HTTP on it.
    """
    begin = urlsplit(url)
    for _ in range(_MOST_REDIRECTS + 1):
        here = urlsplit(url)
        if here.scheme not in ("http", "https") or not here.netloc:
            raise WrongAddressError(f"{here.scheme or 'nothing'}: is not the beginning of a web address")
        request = urllib.request.Request(url, headers=dict(headers))
        if token and (here.scheme, here.netloc) == (begin.scheme, begin.netloc):
            request.add_header("Authorization", f"Bearer {token}")
        response: HTTPResponse = _opener().open(request, timeout=timeout)
        with response:
            where = response.headers.get("Location") if response.status in _REDIRECTS else None
            if where is None:
                yield response
                return
            url = urljoin(url, where)
    raise WrongAddressError("it redirects again and again")


@cache
def _opener() -> urllib.request.OpenerDirector:
    """Without urllib's own redirects, which carry every header along, and without its files and FTP."""
    opener = urllib.request.OpenerDirector()
    for handler in (urllib.request.ProxyHandler(), urllib.request.HTTPHandler(), urllib.request.HTTPSHandler()):
        opener.add_handler(handler)
    return opener
