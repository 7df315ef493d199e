"""The file tools in a folder full of traps: nothing outside is read or written, nothing hangs, nothing is half written."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.builtin.root import Root, RootError
from tests.fixtures.generated import runs
from tests.fixtures.place import SECRET, Place, traps, tricks


@pytest.mark.slow
def test_a_days_work(place: Place) -> None:
    made = place.call("write_file", path="notes/today.md", content="# Today\nwater bed 2\n")
    assert (made.ok, made.text) == (True, "created notes/today.md (2 lines)")
    assert made.data["diff"].endswith("@@ -0,0 +1,2 @@\n+# Today\n+water bed 2\n")
    assert place.text("read_file", path="notes/today.md") == "# Today\nwater bed 2\n"
    edited = place.call("edit_file", path="notes/today.md", old="bed 2", new="bed 3")
    assert edited.text == "edited notes/today.md (2 lines)"
    assert "-water bed 2\n+water bed 3\n" in edited.data["diff"]
    again = place.call("write_file", path="./notes/../notes/today.md", content="x")
    assert again.text == "wrote ./notes/../notes/today.md (1 line)"
    assert place.text("list_files") == "notes/"
    assert place.text("list_files", path="notes") == "today.md (1 byte)"
    assert place.text("list_files", pattern="*.md") == "notes/today.md (1 byte)"
    assert place.text("list_files", pattern="notes/*.md") == "notes/today.md (1 byte)"
    assert place.text("list_files", pattern="*.txt") == "nothing matches"
    assert place.text("search_files", text="x") == "notes/today.md:1: x"
    absolute = str(place.root / "notes/today.md")
    assert place.text("read_file", path=absolute) == "x"


def test_no_path_leads_out(place: Place) -> None:
    paths = traps(place)
    assert len(paths) >= 40
    for path in paths:
        for name in ("read_file", "list_files"):
            text = place.text(name, path=path)
            assert SECRET not in text, (name, path)
            assert "root:x:" not in text, (name, path)
    assert place.outside_is_untouched()


def test_no_path_writes_out(place: Place) -> None:
    for path in traps(place):
        place.call("write_file", path=path, content="owned")
        place.call("edit_file", path=path, old="secret", new="owned")
        assert place.outside_is_untouched(), path
    assert (place.root / "link").is_symlink()
    assert not Path("/etc/passwd").read_text().startswith("owned")


@settings(max_examples=runs(150), derandomize=True, deadline=None, database=None)
@given(st.text(st.sampled_from("./a~\\\0 -é\udc80"), max_size=20))
def test_whatever_a_path_is_its_parts_are_plain_names(path: str) -> None:
    try:
        parts = Root(Path("/usr")).parts(path)
    except RootError:
        return
    assert not [p for p in parts if p in ("", ".", "..") or "/" in p or "\0" in p]


@pytest.fixture
def odd(place: Place) -> Iterator[Place]:
    os.mkfifo(place.root / "fifo")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(place.root)
    listener.bind("socket")
    os.chdir(here)
    with (place.root / "sparse").open("wb") as f:
        f.truncate(10_000_000_000)
    (place.root / "binary").write_bytes(bytes(range(256)) * 10)
    (place.root / "picture").write_bytes(b"\x89PNG\r\n\x1a\n\0\0\0")
    (place.root / "latin").write_bytes(b"gr\xfc\xdfe\n")
    (place.root / "long").write_text("x" * 1_000_000)
    (place.root / "escapes").write_text("\x1b[2Jred\x1b[0m\x07\n")
    (place.root / "empty").touch()
    yield place
    listener.close()


def test_what_is_no_plain_text_is_described_and_nothing_hangs(odd: Place) -> None:
    began = time.monotonic()
    assert odd.text("read_file", path="fifo") == "fifo is a pipe, not a file"
    assert odd.text("read_file", path="socket") == "socket is a socket or pipe, not a file"
    assert odd.text("read_file", path="sparse") == "binary data, 10,000,000,000 bytes"
    assert odd.text("read_file", path="binary") == "binary data, 2,560 bytes"
    assert odd.text("read_file", path="picture") == "PNG image, 11 bytes"
    assert odd.text("read_file", path="latin") == "gr\ufffd\ufffde\n"
    assert odd.text("read_file", path="escapes") == "red\n"
    assert odd.text("read_file", path="empty") == "[the file is empty]"
    assert odd.text("read_file", path=".") == ". is a folder, not a file"
    long = odd.text("read_file", path="long")
    assert len(long) < 61_000
    assert long.endswith("[more within this long line]")
    assert "pipe" in odd.text("write_file", path="fifo", content="x")
    assert "no UTF-8 text" in odd.text("edit_file", path="sparse", old="a", new="b")
    assert "no UTF-8 text" in odd.text("edit_file", path="latin", old="g", new="b")
    assert time.monotonic() - began < 10


def test_lines_are_counted_and_what_follows_is_said(place: Place) -> None:
    (place.root / "f").write_text("".join(f"line {n}\n" for n in range(1, 1001)))
    assert place.text("read_file", path="f", start=10, lines=2) == "line 10\nline 11\n[more from line 12 on]"
    assert place.text("read_file", path="f", start=1000) == "line 1000\n"
    assert place.text("read_file", path="f", start=2000) == "[the file has 1000 lines]"
    assert place.text("read_file", path="f").endswith("line 200\n[more from line 201 on]")
    assert not place.call("read_file", path="f", start=0).ok


def test_a_hard_link_outside_keeps_its_content(place: Place) -> None:
    os.link(place.outside / "secret.txt", place.root / "hard.txt")
    place.call("edit_file", path="hard.txt", old="secret", new="owned")
    place.call("write_file", path="hard.txt", content="owned")
    assert place.outside_is_untouched()
    assert (place.root / "hard.txt").read_text() == "owned"


@pytest.mark.parametrize(
    "path",
    [
        ".sprig/policy.json",
        ".SPRIG/x",
        "a/.sprig/x",
        ".git/hooks/post-checkout",
        "a/.git/config",
        ".sprig",
        "a/../.git/config",
        "./.git",
        ".envrc",
        "sub/.envrc",
        ".venv/bin/python",
        "venv/x",
        ".vscode/tasks.json",
        ".husky/pre-commit",
        ".bashrc",
        ".config/autostart/x.desktop",
        ".ssh/authorized_keys",
        "x/HEAD",
        "bare/config",
        "bare/hooks/post-update",
        "meta/config",
        "tools/hooks/pre-commit",
        "shared.ini",
    ],
)
def test_what_decides_what_runs_here_is_not_written_even_when_absent(place: Place, path: str) -> None:
    git_of(place.root)
    before = sorted(place.root.rglob("*"))
    assert "yours to change" in place.text("write_file", path=path, content="x")
    assert "yours to change" in place.text("edit_file", path=path, old="a", new="b")
    assert sorted(place.root.rglob("*")) == before
    assert place.call("write_file", path="tools/other", content="x").ok


def git_of(root: Path) -> None:
    """A .git that says where the rest of it is, and a repository without a work tree."""
    for name in ("bare", "meta"):
        for inner in ("objects", "refs", "hooks"):
            (root / name / inner).mkdir(parents=True)
        (root / name / "HEAD").write_text("ref: refs/heads/main\n")
        (root / name / "config").write_text("a\n")
    (root / "tools/hooks").mkdir(parents=True)
    (root / ".git").mkdir()
    (root / ".git/config").write_text("[core]\n\thooksPath = tools/hooks\n[include]\n\tpath = ../shared.ini\n")


def test_links_of_every_kind_and_special_files_lead_nowhere(place: Place) -> None:
    ways, out = tricks(place), str(place.outside)
    for path in [*(f"{way}/secret.txt" for way in ways), "file", "twice", "loop", "fifo", "stdin", "env", "/dev/zero"]:
        assert SECRET not in place.text("read_file", path=path), path
        assert not place.call("read_file", path=path).ok, path
        if path not in ("file", "twice", "loop", "stdin", "env", f"proc/self/root{out}/secret.txt"):
            assert not place.call("write_file", path=path, content="x").ok, path
        assert SECRET not in place.text("edit_file", path=path, old="the", new="a"), path
    for way in ways:
        assert "secret.txt" not in place.text("list_files", path=way), way
    assert place.outside_is_untouched()


def test_edits_that_are_not_clear_change_nothing(place: Place) -> None:
    file = place.root / "f.py"
    file.write_text("a = 1\n    b = 2\na = 1\n")
    assert "occurs 2 times" in place.text("edit_file", path="f.py", old="a = 1", new="a = 2")
    assert "its first line is at line 2" in place.text("edit_file", path="f.py", old="b = 2\nc = 3", new="x")
    assert "does not occur" in place.text("edit_file", path="f.py", old="zzz", new="x")
    assert "old is empty" in place.text("edit_file", path="f.py", old="", new="x")
    assert "does not exist" in place.text("edit_file", path="g.py", old="a", new="x")
    assert file.read_text() == "a = 1\n    b = 2\na = 1\n"


def test_line_ends_and_modes_stay(place: Place) -> None:
    file = place.root / "dos.sh"
    file.write_bytes(b"one\r\ntwo\r\nthree\r\n")
    file.chmod(0o751)
    assert place.call("edit_file", path="dos.sh", old="one\ntwo", new="1\n2").ok
    assert file.read_bytes() == b"1\r\n2\r\nthree\r\n"
    assert file.stat().st_mode & 0o777 == 0o751
    place.call("write_file", path="new", content="x")
    assert (place.root / "new").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_too_much_is_refused(place: Place) -> None:
    assert "at once" in place.text("write_file", path="f", content="x" * 2_000_000)
    (place.root / "big").write_text("x" * 2_000_000)
    assert "cannot be edited" in place.text("edit_file", path="big", old="x", new="y")
    assert not (place.root / "f").exists()


def test_a_full_folder_is_listed_in_part(place: Place) -> None:
    for n in range(250):
        (place.root / f"f{n:03}.txt").touch()
    assert place.text("list_files").endswith("f199.txt (0 bytes)\n[50 more]")
    assert place.text("list_files", pattern="*.txt").endswith("[50 more]")
    (place.root / "sub").mkdir()
    (place.root / "sub/bad\n\x1b[2Jname\u202e").touch()
    assert place.text("list_files", path="sub") == "bad name (0 bytes)"
