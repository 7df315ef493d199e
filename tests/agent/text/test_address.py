"""Addresses that are not everybody's are found by the registries of IANA, and a URL is taken apart one way only."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.text.address import MAX_URL, AddressError, Target, checked, is_public, read_url, resolve
from tests.fixtures.generated import runs

# IANA's special-purpose registries, multicast and what is reserved: no address of these is somebody's on the Internet.
_SPECIAL = [
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24",
    "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
    "::/96", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10",
    "fec0::/10", "ff00::/8",
]  # fmt: skip
_PRIVATE_4 = [ipaddress.IPv4Network(net) for net in _SPECIAL if ":" not in net]
_ENDS = st.sampled_from([str(net[at]) for net in _PRIVATE_4 for at in (0, -1)])
# How an IPv6 address holds an IPv4 one: the network and the place of its lowest bit.
_WRAPPED = {
    "mapped": ("::ffff:0:0/96", 0), "6to4": ("2002::/16", 80), "NAT64": ("64:ff9b::/96", 0), "local NAT64": ("64:ff9b:1::/48", 0),
    "ISATAP": ("2a00:1:2:3:0:5efe::/96", 0), "global ISATAP": ("2a00:1:2:3:200:5efe::/96", 0),
}  # fmt: skip


@pytest.mark.parametrize("net", _SPECIAL)
def test_no_address_of_a_special_network_is_public_and_those_beside_it_are(net: str) -> None:
    network = ipaddress.ip_network(net)
    first, last = int(network[0]), int(network[-1])
    for value in (first, first + 1, (first + last) // 2, last - 1, last):
        assert not is_public(str(network[value - first]))
    for value in (first - 1, last + 1):
        if 0 <= value < 1 << network.max_prefixlen:
            beside = type(network[0])(value)
            others = (ipaddress.ip_network(other) for other in _SPECIAL)
            special = any(beside in other for other in others if other.version == network.version)
            if network.version == 4 or str(beside).startswith("2"):  # other addresses of IPv6 are nobody's yet
                assert is_public(str(beside)) is not special, beside


@settings(max_examples=runs(300), derandomize=True, deadline=None, database=None)
@given(
    st.ip_addresses(v=4) | st.sampled_from([str(net[at]) for net in _PRIVATE_4 for at in (0, -1)]),
    st.sampled_from(sorted(_WRAPPED)),
)
def test_an_address_within_another_is_judged_like_itself(address: object, kind: str) -> None:
    inner = ipaddress.IPv4Address(str(address))
    public = not any(inner in net for net in _PRIVATE_4)
    assert is_public(str(inner)) is public
    net, shift = _WRAPPED[kind]
    outer = ipaddress.IPv6Address(int(ipaddress.IPv6Network(net)[0]) | int(inner) << shift)
    assert is_public(str(outer)) is (public and kind not in ("mapped", "6to4", "local NAT64"))  # nobody sends these


def test_what_is_no_address_or_belongs_to_one_link_is_not_public() -> None:
    for text in ("", "x", "1.2.3", "1.2.3.4.5", "[::1]", "2a00::1%eth0", "8.8.8.8%1", "8.8.8.8/8", " 8.8.8.8", "0x8.8.8.8"):
        assert not is_public(text)
    for text in ("8.8.8.8", "1.1.1.1", "2a00:1450:4001::1", "2606:4700::1111"):
        assert is_public(text)


@pytest.mark.parametrize(
    ("url", "base", "whole"),
    [
        ("http://a.b", "", "http://a.b/"), ("HTTPS://A.B:443/c", "", "https://a.b/c"), ("http://a:80", "", "http://a/"),
        ("http://a:443/", "", "http://a:443/"), ("https://a:80/", "", "https://a:80/"),
        ("http://a:8080?q#f", "", "http://a:8080/?q"),
        ("http://a./b", "", "http://a/b"), ("http://[2A00::1]:81/", "", "http://[2a00::1]:81/"),
        ("http://1.2.3.4/", "", "http://1.2.3.4/"),
        ("http://a/é b".replace(" ", "%20"), "", "http://a/%C3%A9%20b"), ("http://a/?x=[é]", "", "http://a/?x=[%C3%A9]"),
        ("http://a/;p?q=1&r=%41#x", "", "http://a/;p?q=1&r=%41"), ("http://bücher.de/", "", "http://xn--bcher-kva.de/"),
        ("/c", "http://a/b", "http://a/c"), ("c", "http://a/b/d", "http://a/b/c"), ("//c/d", "https://a/b", "https://c/d"),
        ("?q", "http://a/b", "http://a/b?q"), ("http://c", "https://a", "http://c/"),
        ("http://" + "a" * 253, "", f"http://{'a' * 253}/"),
        ("http://a/" + "b" * (MAX_URL - 9), "", "http://a/" + "b" * (MAX_URL - 9)), ("http://a_b-c.d/", "", "http://a_b-c.d/"),
    ],
)  # fmt: skip
def test_a_url_is_taken_apart_and_put_together_the_same(url: str, base: str, whole: str) -> None:
    target = read_url(url, base)
    assert target.url == whole
    assert read_url(whole) == target
    assert ":" not in target.host or target.netloc.startswith(f"[{target.host}]")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        *((url, "this is no URL: it is too long") for url in (
            "http://a/" + "b" * MAX_URL, " http://a", "http://a\u3000", "http://a/b c", "http://a\\b",
        )),
        *((f"http://a/{sign}", "control characters") for sign in "\x00\x1f \x7f\\\ud800\udfff"),
        *((url, "this is no URL: ") for url in ("http://a:b/", "http://a:99999/", "http://[::1", "http://[x]/")),
        *((url, "only http:// and https://") for url in ("ftp://a", "file:///a", "a", "", "javascript:a", "//a/b")),
        *((url, "a user name") for url in ("http://b@a", "http://b:c@a", "http://@a", "http://:@a", "http://:c@a")),
        *((url, "no host name") for url in (
            "http://", "http:///a", "http://...", "http://" + "a" * 254, "http://a%2fb", "http://$a/", "http://" + "é" * 80,
        )),
        *((f"http://a:{port}/", f"port {port} belongs") for port in (0, 1, 22, 25, 6379, 27017)),
        *((f"https://a:{port}/", f"port {port} belongs") for port in (0, 6000, 6667)),
    ],
)  # fmt: skip
def test_what_is_refused_is_told_why(url: str, why: str) -> None:
    with pytest.raises(AddressError, match=re.escape(why)):
        read_url(url)


def test_ports_of_the_web_are_free_and_those_of_other_services_are_not() -> None:
    def free(port: int) -> bool:
        try:
            return read_url(f"http://a:{port}/").port == port
        except AddressError:
            return False

    # The fetch standard of WHATWG ("bad port"), and databases that speak HTTP or answer to lines.
    standard = {
        1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104, 109,
        110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515, 526, 530,
        531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049, 3659, 4045, 4190,
        5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080,
    }  # fmt: skip
    databases = {3306, 5432, 6379, 9200, 11211, 27017}
    refused = {0} | standard | databases
    asked = {*range(1100), *(port + step for port in refused for step in (0, 1)), 8000, 8080, 8443, 65535}
    assert {port for port in asked if not free(port)} == refused


def test_every_address_of_a_host_must_be_public_unless_private_ones_are_allowed() -> None:
    target = Target("http", "a.example", 8080, "/")
    asked: list[tuple[str, int]] = []

    def resolver(*addresses: str) -> object:
        return lambda host, port: asked.append((host, port)) or list(addresses)

    assert checked(target, resolver("8.8.8.8", "2a00::1"), False) == ["8.8.8.8", "2a00::1"]
    for addresses in (["10.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["10.0.0.1", "8.8.8.8"], ["8.8.8.8", "::1", "1.1.1.1"]):
        assert checked(target, resolver(*addresses), True) == addresses
        with pytest.raises(AddressError, match=r"a\.example is an address of this machine"):
            checked(target, resolver(*addresses), False)
    for allow in (True, False):
        with pytest.raises(AddressError, match="has no address"):
            checked(target, resolver(), allow)
    assert set(asked) == {("a.example", 8080)}


def test_the_system_says_each_address_once(monkeypatch: pytest.MonkeyPatch) -> None:
    assert set(resolve("127.0.0.1", 80)) == {"127.0.0.1"}
    assert resolve("0x7f000001", 80) == ["127.0.0.1"]
    with pytest.raises(AddressError, match="is not known"):
        resolve("a." * 200, 80)
