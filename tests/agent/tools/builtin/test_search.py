"""Searching files: what is found, and that neither a path nor an expression makes more of it."""

from __future__ import annotations

import time

import pytest

from tests.fixtures.place import SECRET, Place, traps, tricks


@pytest.mark.slow
def test_no_search_leads_out(place: Place) -> None:
    paths = [path for path in traps(place) if len(path) >= 4]
    for path in paths[::4]:  # a process each; a quarter of them is enough here
        text = place.text("search_files", path=path, text="secret")
        assert SECRET not in text, path
        assert "root:x:" not in text, path
    for path in paths[1::4]:
        text = place.text("query_sqlite", path=path, sql="SELECT 1")
        assert SECRET not in text, path
        assert "root:x:" not in text, path
    assert place.outside_is_untouched()


@pytest.mark.slow
def test_no_search_follows_a_link(place: Place) -> None:
    for way in tricks(place):
        assert SECRET not in place.text("search_files", text="secret", path=way), way
    assert SECRET not in place.text("search_files", text="secret")
    assert place.outside_is_untouched()


@pytest.mark.slow
def test_searching(place: Place) -> None:
    (place.root / "a.py").write_text("def f(x):\n    return x + 1  # C++\n")
    (place.root / "sub").mkdir()
    (place.root / "sub/b.txt").write_text("return to me\n" + "y" * 500 + "needle" + "z" * 500)
    (place.root / ".git").mkdir()
    (place.root / ".git/config").write_text("return")
    (place.root / "bin").write_bytes(b"return\0")
    (place.root / "latin").write_bytes(b"gr\xfc\xdfe\n")
    assert place.text("search_files", text="return") == "a.py:2: return x + 1  # C++\nsub/b.txt:1: return to me"
    assert place.text("search_files", text="C++") == "a.py:2: return x + 1  # C++"
    assert place.text("search_files", text="f(x)") == "a.py:1: def f(x):"
    assert place.text("search_files", text=r"^def \w+") == "a.py:1: def f(x):"
    assert place.text("search_files", text="return", path="sub") == "sub/b.txt:1: return to me"
    assert place.text("search_files", text="return", path="a.py") == "a.py:2: return x + 1  # C++"
    assert len(place.text("search_files", text="needle")) < 250
    assert place.text("search_files", text="gr") == "latin:1: gr\ufffd\ufffde"
    assert place.text("search_files", text="nowhere") == "not found in 4 files"
    assert not place.call("search_files", text="").ok
    (place.root / "many").write_text("hit\n" * 100)
    assert place.text("search_files", text="hit").endswith(
        "[more than 50 lines: look for something rarer, or in a smaller folder]"
    )


@pytest.mark.slow
def test_a_regular_expression_that_never_ends_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.tools.builtin import files

    monkeypatch.setattr(files, "_SEARCH_SECONDS", 2.0)
    (place.root / "f").write_text("a" * 40 + "b\n")
    began = time.monotonic()
    result = place.call("search_files", text="(a+)+$")
    assert (result.ok, result.text) == (False, "no result within 2 s")
    assert time.monotonic() - began < 6
