"""Who may talk to the served app: the token, its cookie, the names it answers to, and the pages that may open its socket.

Everything here is decided from the text of a request; nothing here knows HTTP's machinery.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from agent.errors import SprigError

_TOKEN = re.compile(r"[A-Za-z0-9_.~-]{16,200}")
EVERY_ADDRESS = frozenset({"0.0.0.0", "::"})


def make_token() -> str:
    """256 random bits, as they stand in a URL."""
    return secrets.token_urlsafe(32)


def check_token(token: str) -> str:
    """The token that a person chose.

    Raises:
        SprigError: it is too short to keep anybody out, or would not survive in a URL.
    """
    if not _TOKEN.fullmatch(token):
        raise SprigError("the token must be 16 to 200 of the characters A-Z a-z 0-9 - _ . ~; leave it away to get a random one")
    return token


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None


def is_loopback(host: str) -> bool:
    address = address_of(host)
    return host == "localhost" if address is None else address.is_loopback


def host_name(netloc: str) -> str:
    """The name in ``name``, ``name:port`` or ``[address]:port``, in lower case; empty when it is none of these."""
    try:
        return (urlsplit(f"//{netloc}").hostname or "").rstrip(".")
    except ValueError:
        return ""


@dataclass(frozen=True, slots=True)
class TokenGate:
    """What a request must show.

    Attributes:
        token: the secret; None lets everyone in who reaches the port.
        host: the address that is listened on.
        port: its port, of which the cookie has its name: a browser sends cookies to every port of a host.
    """

    token: str | None
    host: str
    port: int

    @property
    def cookie(self) -> str:
        return f"sprig_{self.port}"

    def serves(self, netloc: str | None) -> bool:
        """Whether a Host header names this server. A page elsewhere whose name was bent to this machine's address (DNS
        rebinding) sends its own name. Ports are not compared: `ssh -L` changes them and no attacker gains by it."""
        name = host_name(netloc or "")
        if not name:
            return False
        if self.host in EVERY_ADDRESS:
            machine = socket.gethostname().lower()
            return address_of(name) is not None or name in {"localhost", machine, f"{machine}.local"}
        if is_loopback(self.host):
            return is_loopback(name)
        return name == host_name(f"[{self.host}]" if ":" in self.host else self.host)

    def same_origin(self, origin: str | None, netloc: str | None) -> bool:
        """Whether the page that opens the socket is ours. Browsers always say; what does not say is refused."""
        if not origin or not netloc:
            return False
        return origin.lower() in {f"http://{netloc}".lower(), f"https://{netloc}".lower()}

    def knows(self, given: str | None) -> bool:
        """Whether this is the token; the comparison takes the same time however much of it is right."""
        if self.token is None:
            return True
        return given is not None and hmac.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def admits(self, cookies: Mapping[str, str]) -> bool:
        return self.knows(cookies.get(self.cookie))
