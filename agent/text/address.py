"""Which addresses a URL may lead to: only such as anybody on the Internet could reach, unless private ones are allowed.

Sources: the IANA special-purpose address registries (RFC 6890), RFC 4291 (mapped addresses), RFC 7526 (6to4), RFC 6052 (NAT64),
RFC 5214 (ISATAP), RFC 3986 (URLs).
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urljoin, urlsplit

from agent.errors import SprigError
from agent.text import display

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolve = Callable[[str, int], list[str]]

MAX_URL = 4096
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_REFUSED = tuple(map(ipaddress.ip_network, (
    "0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.88.99.0/24", "198.18.0.0/15", "240.0.0.0/4",
    "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10", "::/8",
)))  # fmt: skip
# Services that answer to what a browser would send, so that a URL can speak to them (from the WHATWG fetch standard's list).
_BAD_PORTS = frozenset({
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109, 110, 111,
    113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530, 531, 532, 540, 548,
    554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3306, 3659, 4045, 4190, 5060, 5061, 5432, 6000,
    6379, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 9200, 10080, 11211, 27017,
})  # fmt: skip


class AddressError(SprigError):
    """A URL is not fetched; the message says why, for the model."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart: where to connect and what to ask for. ``host`` is ASCII, without brackets."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def netloc(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == {"http": 80, "https": 443}[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.netloc}{self.path}"


def read_url(url: str, base: str = "") -> Target:
    """Take a URL apart, strictly. ``base`` is what a redirect's location is relative to. Raises AddressError."""
    if len(url) > MAX_URL or len(url) != len(url.strip()) or re.search(r"[\x00-\x20\x7f\\]|[\ud800-\udfff]", url):
        raise AddressError("this is no URL: it is too long, or holds blanks, control characters or backslashes")
    try:
        parts = urlsplit(urljoin(base, url) if base else url)
        port = parts.port
    except ValueError as e:
        raise AddressError(f"this is no URL: {display(str(e))}") from None
    if parts.scheme not in ("http", "https"):
        raise AddressError("only http:// and https:// addresses can be fetched")
    if parts.username is not None or parts.password is not None or "@" in parts.netloc:
        raise AddressError("a URL with a user name is not fetched")
    host = _host(parts.hostname or "")
    if port is None:
        port = 443 if parts.scheme == "https" else 80
    if port in _BAD_PORTS or port == 0:
        raise AddressError(f"port {port} belongs to another service than the web")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = quote(parts.query, safe="/?%:@!$&'()*+,;=~-._[]")
    return Target(parts.scheme, host, port, f"{path if path.startswith('/') else '/' + path}{'?' + query if query else ''}")


def _host(host: str) -> str:
    try:
        name = host.rstrip(".").encode("ascii" if host.isascii() else "idna").decode("ascii").lower()
    except UnicodeError:
        name = ""
    if not re.fullmatch(r"[a-z0-9._-]{1,253}|[0-9a-f:.]{2,45}", name):
        raise AddressError("this is no host name")
    return name


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host as the system resolves it, in the decimal, octal and hexadecimal forms of C libraries too."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise AddressError(f"the host {host} is not known, or there is no network") from None
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def checked(target: Target, resolver: Resolve, allow_private: bool) -> list[str]:
    """The addresses of a target, looked up once; whoever connects must use these and not the name.

    Raises:
        AddressError: the host has no address, or one of them is not public.
    """
    addresses = resolver(target.host, target.port)
    if not addresses:
        raise AddressError(f"the host {target.host} has no address")
    for address in addresses:
        if not allow_private and not is_public(address):
            raise AddressError(f"{target.host} is an address of this machine or a private network, which is not allowed")
    return addresses


def is_public(address: str) -> bool:
    """Whether anybody on the Internet means the same machine by this address."""
    if "%" in address:  # of one link
        return False
    try:
        ip: Address = ipaddress.ip_address(address)
    except ValueError:
        return False
    if ip in _NAT64:  # where there is no IPv4, it stands for the host of that address
        return is_public(str(_low(ip)))
    if any(ip in net for net in _REFUSED):
        return False
    if ip.is_multicast or ip.is_reserved or not ip.is_global:
        return False
    isatap = ip.version == 6 and (int(ip) >> 32) & 0xFCFFFFFF == 0x5EFE  # ::0:5efe:a.b.c.d
    return not isatap or is_public(str(_low(ip)))


def _low(ip: Address) -> ipaddress.IPv4Address:
    return ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
