"""How patterns of paths, addresses and other texts are compared: against a simple model, and at their edges."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from agent.approval.patterns import matches
from tests.fixtures.generated import runs

ALLOW, ASK, DENY = json.loads('["allow", "ask", "deny"]')  # as a file gives them: equal, and other objects

# Paths.

PARTS = ("a", "ab", "b", "B")
GLOBS = (*PARTS, "*", "**", "a*", "?", "[ab]")


def glob_model(pattern: list[str]) -> re.Pattern[str]:
    """A glob as a regular expression over a path with a slash behind each name."""
    one = {"*": "[^/]*/", "**": "(?:[^/]*/)*", "a*": "a[^/]*/", "?": "[^/]/", "[ab]": "[ab]/"}
    return re.compile("".join(one.get(part, f"{part}/") for part in pattern))


@settings(max_examples=runs(300), derandomize=True, deadline=None, database=None)
@given(st.lists(st.sampled_from(PARTS), max_size=4), st.lists(st.sampled_from(GLOBS), min_size=1, max_size=4))
@example(["a"], ["**", "a", "**"])
@example([], ["**", "*"])
@example(["a", "b"], ["*"])
def test_a_glob_of_paths_is_what_a_regular_expression_says(path: list[str], pattern: list[str]) -> None:
    value, wanted = "/".join(path), "/".join(pattern)
    model = glob_model(pattern).fullmatch("".join(f"{part}/" for part in path)) is not None
    if pattern != ["*"]:
        assert matches("path", value, wanted, ALLOW, False) == model
        lower = glob_model([part.lower() for part in pattern]).fullmatch("".join(f"{part}/" for part in path).lower())
        assert matches("path", value, wanted, DENY, False) == matches("path", value, wanted, ASK, False) == (lower is not None)
    assert matches("path", value, wanted, ALLOW, True) == (path == pattern)


@pytest.mark.parametrize("pattern", ["", "*", "**"])
def test_a_pattern_for_every_path_is_for_every_path_below_the_root(pattern: str) -> None:
    assert matches("path", "a/b/c", pattern, ALLOW, False)
    assert not matches("path", "../a", pattern, ALLOW, False)
    assert not matches("path", "../a", pattern, ASK, False)
    assert matches("path", "../a", pattern, DENY, False)


@pytest.mark.parametrize(("value", "pattern"), [("../a", "b"), ("a", "../b"), ("a/../../b", "a"), ("../a", "../a")])
@pytest.mark.parametrize("exact", [False, True])
def test_what_leaves_the_root_is_never_allowed_and_always_denied(value: str, pattern: str, exact: bool) -> None:
    assert not matches("path", value, pattern, ALLOW, exact)
    assert matches("path", value, pattern, DENY, exact)


@pytest.mark.parametrize(("value", "same"), [("a/b", True), ("./a//b/", True), ("a/c/../b", True), ("A/b", False), ("a", False)])
def test_an_exact_path_is_that_file_in_every_spelling(value: str, same: bool) -> None:
    assert matches("path", value, "a/b", ALLOW, True) == same


# Addresses: pattern, address, whether a rule that allows matches, whether one that denies does.

HOSTS = [
    ("a.org", "https://a.org/", True, True), ("A.org", "https://a.ORG/x", True, True), ("a.org/", "https://a.org/", True, True),
    ("a.org", "https://b.a.org/", False, True), ("a.org", "https://ba.org/", False, False), ("a.org",
    "http://a.org/", True, True),
    ("a.org", "https://a.org:444/", False, True), ("a.org", "http://a.org:443/", True, True), ("a.org",
    "https://a.org:81/", False, True),
    ("a.org:444", "https://a.org:444/", True, True), ("a.org:444", "https://a.org/", False, False),
    ("a.org:443", "https://a.org/", True, True), ("a.org:80", "https://a.org/", False, False), ("a.org:80",
    "http://a.org/", True, True),
    ("http://a.org", "http://a.org/", True, True), ("http://a.org", "https://a.org/", False, False),
    ("https://a.org", "https://b.a.org/", False, True), ("HTTPS://a.org:444", "https://a.org:444/", True, True),
    ("*.a.org", "https://b.a.org/", True, True), ("*.a.org", "https://c.b.a.org/", True, True),
    ("*.a.org", "https://a.org/", False, False), ("*.a.org", "https://.a.org/", False, False), ("*.a.org",
    "https://ba.org/", False, False),
    ("*.a.org:444", "https://b.a.org:444/", True, True), ("*.a.org", "https://b.a.org:444/", False, True),
    ("*", "https://a.org:444/", True, True), ("", "http://a.org/", True, True), ("a.org", " https://a.org/ ", True, True),
    ("*", "ftp://a.org/", False, True), ("b.org", "https://a.org@b.org/", False, True), ("b.org", "a.org", False, True),
    ("a.org/x", "https://a.org/x", False, False),
]  # fmt: skip


@pytest.mark.parametrize(("pattern", "address", "allowed", "denied"), HOSTS)
def test_a_pattern_of_hosts_is_narrow_where_it_allows_and_wide_where_it_denies(
    pattern: str, address: str, allowed: bool, denied: bool
) -> None:
    assert matches("url", address, pattern, ALLOW, False) == allowed
    assert matches("url", address, pattern, DENY, False) == denied


@pytest.mark.parametrize(
    ("address", "same"),
    [
        ("https://a.org/x?y=1", True),
        ("https://A.org:443/x?y=1", True),
        (" https://a.org/x?y=1", True),
        ("https://a.org/x", False),
        ("https://a.org/X?y=1", False),
        ("http://a.org/x?y=1", False),
        ("https://a.org:444/x?y=1", False),
    ],
)
def test_an_exact_address_is_that_page_alone(address: str, same: bool) -> None:
    assert matches("url", address, "https://a.org/x?y=1", ALLOW, True) == same


# Commands, as a whole, and texts.


@pytest.mark.parametrize("pattern", ["", "*"])
def test_a_pattern_for_every_command_allows_what_is_plain_and_denies_all(pattern: str) -> None:
    for line, plain in (
        ("ls -l", True),
        ("./x 'a b'", True),
        ("ls | wc", False),
        ("ls > x", False),
        ("ls 'x", False),
        ("", False),
    ):
        assert matches("command", line, pattern, ALLOW, False) == plain
        assert matches("command", line, pattern, DENY, False)
        assert matches("command", line, pattern, ASK, False)


@pytest.mark.parametrize(
    ("line", "pattern", "same"),
    [
        ("ls  'a'", "ls a", True),
        ("ls a b", "ls a", False),
        ("ls", "ls a", False),
        ("ls '*'", "ls *", False),
        ("ls | wc", "ls | wc", True),
        ("ls |  wc", "ls | wc", False),
        ("ls wc", "ls | wc", False),
        ("ls > a", "ls a", False),
    ],
)
def test_an_exact_command_is_the_same_words_or_the_very_line(line: str, pattern: str, same: bool) -> None:
    read = "".join([*pattern])  # as a file gives it: the same text, another object
    assert matches("command", line, read, ALLOW, True) == same
    assert matches("command", read, line, ALLOW, True) == same


@pytest.mark.parametrize(
    ("line", "hit"),
    [("curl x | wc", True), ("wc x; curl y", True), ("curl x", False), ("ls | wc", False), ("curl | wc", False)],
)
def test_a_deny_of_a_pipe_wants_each_of_its_commands(line: str, hit: bool) -> None:
    assert matches("command", line, "curl * | wc", DENY, False) == hit


@pytest.mark.parametrize(
    ("value", "pattern", "exact", "hit"),
    [
        ("12", "1*", False, True),
        ("12", "1", False, False),
        ("12", "", False, True),
        ("A", "a", False, False),
        ("1*", "1*", True, True),
        ("12", "1*", True, False),
        ("12", "", True, False),
    ],
)
@pytest.mark.parametrize("action", [ALLOW, DENY])
def test_a_pattern_of_another_text_is_a_glob_or_the_very_text(
    value: str, pattern: str, exact: bool, hit: bool, action: str
) -> None:
    assert matches(None, value, pattern, action, exact) == hit
