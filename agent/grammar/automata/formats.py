"""The ``format`` keyword: the shapes of dates, addresses and names, as patterns.

Sources: RFC 3339 (dates and times; without leap seconds), RFC 5321 (addresses, without quotes and comments), RFC 1123 (hosts),
RFC 4291 (IPv6, without an IPv4 tail), RFC 9562 (UUID), RFC 3986 (URI), RFC 6901 (JSON pointer), RFC 4648 (base64, with padding);
ISO 8601 for fractions of a duration's seconds.
"""

from __future__ import annotations

from agent.grammar.automata.dfa import Dfa
from agent.grammar.automata.regex import compile_pattern

_YEAR = r"(?:000[1-9]|00[1-9]\d|0[1-9]\d\d|[1-9]\d{3})"
_LEAP = r"(?:\d\d(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
_DAYS = r"(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\d|30)|02-(?:0[1-9]|1\d|2[0-8]))"
_DATE = rf"(?:{_YEAR}-{_DAYS}|{_LEAP}-02-29)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?(?:Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)"
_N = r"\d{1,9}"
_S = rf"{_N}(?:\.{_N})?S"
_CLOCK = rf"T(?:{_N}H(?:{_N}M(?:{_S})?)?|{_N}M(?:{_S})?|{_S})"
_DURATION = rf"P(?:{_N}W|(?:{_N}Y(?:{_N}M(?:{_N}D)?)?|{_N}M(?:{_N}D)?|{_N}D)(?:{_CLOCK})?|{_CLOCK})"
_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOST = rf"{_LABEL}(?:\.{_LABEL})*"
_ATOM = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
_H = "[0-9A-Fa-f]{1,4}"
_IPV6 = "|".join(
    [f"(?:{_H}:){{7}}{_H}"]
    + [f"(?:{_H}(?::{_H}){{0,{n - 1}}})?::(?:{_H}(?::{_H}){{0,{6 - n}}})?" for n in range(1, 7)]
    + [f"(?:{_H}(?::{_H}){{0,6}})?::"]
)
_URI_TEXT = r"(?:[A-Za-z0-9\-._~:/?@!$&'()*+,;=]|%[0-9A-Fa-f]{2})"
_URI_TAIL = rf"{_URI_TEXT}*(?:#{_URI_TEXT}*)?"

# pattern, greatest length
_FORMATS: dict[str, tuple[str, int | None]] = {
    "date": (_DATE, None),
    "time": (_TIME, None),
    "date-time": (f"{_DATE}T{_TIME}", None),
    "duration": (_DURATION, None),
    "email": (rf"{_ATOM}(?:\.{_ATOM})*@{_HOST}", 254),
    "hostname": (_HOST, 253),
    "ipv4": (rf"{_OCTET}(?:\.{_OCTET}){{3}}", None),
    "ipv6": (_IPV6, None),
    "uuid": ("[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}", None),
    "uri": (rf"[A-Za-z][A-Za-z0-9+.-]*:{_URI_TEXT}{_URI_TAIL}", None),
    "uri-reference": (_URI_TAIL, None),
    "base64": ("(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{2}==)?", None),
    "json-pointer": ("(?:/(?:[^~/]|~[01])*)*", None),
}


def format_automaton(name: str) -> tuple[Dfa, int | None] | None:
    """The automaton of a format and the greatest length of its texts; None for a format that says nothing here."""
    known = _FORMATS.get(name)
    return None if known is None else (compile_pattern(known[0], whole=True), known[1])


# For a model that wrote something else.
EXAMPLES = {
    "date": "2026-03-01", "time": "12:30:00Z", "date-time": "2026-03-01T12:30:00Z", "duration": "PT1H30M",
    "email": "ann@example.org", "hostname": "pi.example.org", "ipv4": "192.0.2.1", "ipv6": "2001:db8::1",
    "uuid": "123e4567-e89b-12d3-a456-426614174000", "uri": "https://example.org", "base64": "aGVsbG8=", "json-pointer": "/beds/0",
}  # fmt: skip
