"""The file tools in a folder full of traps: nothing outside is read or written, nothing hangs, nothing is half written."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.builtin.catalogue import builtin
from agent.tools.builtin.root import Root, RootError
from agent.tools.define import Tool
from agent.tools.result import ToolResult
from tests.fixtures.generated import runs

SECRET = "the secret outside"


class Place:
    """A root, a folder outside, and the tools over the root."""

    def __init__(self, folder: Path) -> None:
        self.root, self.outside = folder / "root", folder / "outside"
        self.root.mkdir()
        self.outside.mkdir()
        (self.outside / "secret.txt").write_text(SECRET)
        self.tools: dict[str, Tool] = {t.name: t for t in builtin(root=self.root, home=folder / "home")}

    def call(self, name: str, **arguments: Any) -> ToolResult:
        return self.tools[name].invoke(arguments)

    def text(self, name: str, **arguments: Any) -> str:
        return self.call(name, **arguments).text

    def outside_is_untouched(self) -> bool:
        return [p.name for p in self.outside.iterdir()] == ["secret.txt"] and (self.outside / "secret.txt").read_text() == SECRET


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


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


def traps(place: Place) -> list[str]:
    """Paths that lead out of the root, or to something that is no file."""
    root, outside = place.root, place.outside
    (root / "link").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    (root / "deep").mkdir()
    (root / "deep/up").symlink_to("../..")
    (root / "loop").symlink_to("loop")
    (root / "dangling").symlink_to(outside / "new.txt")
    (root / "proc").symlink_to("/proc/self/root")
    secret = str(outside / "secret.txt")
    return [
        "link", "folder/secret.txt", "folder/new.txt", "deep/up/outside/secret.txt", "loop", "dangling", f"proc{secret}",
        "proc/etc/passwd",
        "../outside/secret.txt", "deep/../../outside/secret.txt", "./../outside/secret.txt", "..", "../", "/..", "/",
        "/etc/passwd", secret,
        f"{root}/../outside/secret.txt", f"{root}x/secret.txt", f"//{secret}", "/proc/self/root/etc/passwd", "/proc/self/environ",
        "/dev/zero", "/dev/stdin", "/dev/fd/0", "~/.bashrc", "a\0b", "x" * 5000, "y" * 300, "a/" * 100, "deep/../..", "link/",
        "folder/", "folder/.",
        "\udcff\ud800", f"folder/../outside/secret.txt/{'../' * 30}etc/passwd", "deep/./up/./outside/secret.txt",
        "..\\outside\\secret.txt",
        "．．/outside/secret.txt", "%2e%2e/outside/secret.txt", "file:///etc/passwd", ". ./x/../../outside/secret.txt",
        "deep//up//outside//secret.txt",
    ]  # fmt: skip


def test_no_path_leads_out(place: Place) -> None:
    paths = traps(place)
    assert len(paths) >= 40
    for path in paths:
        for name, arguments in (
            ("read_file", {}), ("list_files", {}), ("search_files", {"text": "secret"}), ("query_sqlite", {"sql": "SELECT 1"}),
        ):  # fmt: skip
            if name in ("search_files", "query_sqlite") and len(path) < 4:
                continue
            if name == "search_files" and path not in paths[::4]:
                continue  # a process each; a quarter of them is enough here
            if name == "query_sqlite" and path not in paths[1::4]:
                continue
            text = place.text(name, path=path, **arguments)
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
    assert odd.text("search_files", text="gr") == "latin:1: gr\ufffd\ufffde"
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


TRICKS = """
import os, sys
root, outside = sys.argv[1:]
os.chdir(root)
os.symlink("/proc/self/root", "r"); os.symlink("/proc/self/cwd/../outside", "c"); os.symlink(outside, "abs")
os.symlink("../outside/secret.txt", "file"); os.symlink("loop", "loop"); os.symlink("abs/secret.txt", "twice")
os.mkfifo("fifo"); os.mkdir("d"); os.symlink("../../outside", "d/up")
os.symlink("/dev/stdin", "stdin"); os.symlink("/proc/self/environ", "env"); os.symlink("d", "inner")
"""


def test_links_of_every_kind_and_special_files_lead_nowhere(place: Place) -> None:
    subprocess.run([sys.executable, "-c", TRICKS, str(place.root), str(place.outside)], check=True)
    out = str(place.outside)
    ways = ["r" + out, "c", "abs", "d/up", "d/../abs", "inner/up", "r", "proc/self/root" + out, "/proc/self/root" + out]
    for path in [*(f"{way}/secret.txt" for way in ways), "file", "twice", "loop", "fifo", "stdin", "env", "/dev/zero"]:
        assert SECRET not in place.text("read_file", path=path), path
        assert not place.call("read_file", path=path).ok, path
        if path not in ("file", "twice", "loop", "stdin", "env", f"proc/self/root{out}/secret.txt"):
            assert not place.call("write_file", path=path, content="x").ok, path
        assert SECRET not in place.text("edit_file", path=path, old="the", new="a"), path
    for way in ways:
        assert "secret.txt" not in place.text("list_files", path=way), way
        assert SECRET not in place.text("search_files", text="secret", path=way), way
    assert SECRET not in place.text("search_files", text="secret")
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


def test_a_reader_sees_the_old_or_the_new_and_no_part_is_left(place: Place) -> None:
    old, new = "old" * 50_000, "new" * 50_000
    (place.root / "f").write_text(old)
    seen: set[str] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add((place.root / "f").read_text())

    reader = threading.Thread(target=read)
    reader.start()
    for i in range(30):
        assert place.call("write_file", path="f", content=(new, old)[i % 2]).ok
    stop.set()
    reader.join()
    assert seen <= {old, new}
    assert [p.name for p in place.root.iterdir()] == ["f"]


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


SWAPPER = """
import ctypes, sys
libc = ctypes.CDLL(None)
a, b = sys.argv[1].encode(), sys.argv[2].encode()
print("swapping", flush=True)
while True:
    if libc.renameat2(-100, a, -100, b, 2): sys.exit(1)  # RENAME_EXCHANGE: there is always something at both names
"""


def test_swapping_a_folder_for_a_link_never_leads_out(place: Place) -> None:
    """The race of F37: while a process swaps, every read gives the inside or a refusal, every write stays inside."""
    (place.root / "spot").mkdir()
    (place.root / "spot/secret.txt").write_text("inside")
    (place.root / "evil").symlink_to(place.outside)
    names = [str(place.root / "spot"), str(place.root / "evil")]
    swapper = subprocess.Popen([sys.executable, "-c", SWAPPER, *names], stdout=subprocess.PIPE)
    assert swapper.stdout is not None
    if not swapper.stdout.readline():
        pytest.skip("the file system cannot swap two names")
    root, seen = Root(place.root), {"inside": 0, "refused": 0}
    try:
        end = time.monotonic() + 2
        while time.monotonic() < end:
            try:
                with root.file("spot/secret.txt") as fd:
                    assert os.read(fd, 100) == b"inside"
                if seen["inside"] % 8 == 0:
                    root.write("spot/new.txt", b"x")
                seen["inside"] += 1
            except RootError:
                seen["refused"] += 1
    finally:
        swapper.kill()
        swapper.wait()
        swapper.stdout.close()
    assert place.outside_is_untouched()
    assert min(seen.values()) > 20, seen


def test_searching(place: Place) -> None:
    (place.root / "a.py").write_text("def f(x):\n    return x + 1  # C++\n")
    (place.root / "sub").mkdir()
    (place.root / "sub/b.txt").write_text("return to me\n" + "y" * 500 + "needle" + "z" * 500)
    (place.root / ".git").mkdir()
    (place.root / ".git/config").write_text("return")
    (place.root / "bin").write_bytes(b"return\0")
    assert place.text("search_files", text="return") == "a.py:2: return x + 1  # C++\nsub/b.txt:1: return to me"
    assert place.text("search_files", text="C++") == "a.py:2: return x + 1  # C++"
    assert place.text("search_files", text="f(x)") == "a.py:1: def f(x):"
    assert place.text("search_files", text=r"^def \w+") == "a.py:1: def f(x):"
    assert place.text("search_files", text="return", path="sub") == "sub/b.txt:1: return to me"
    assert place.text("search_files", text="return", path="a.py") == "a.py:2: return x + 1  # C++"
    assert len(place.text("search_files", text="needle")) < 250
    assert place.text("search_files", text="nowhere") == "not found in 3 files"
    assert not place.call("search_files", text="").ok
    (place.root / "many").write_text("hit\n" * 100)
    assert place.text("search_files", text="hit").endswith(
        "[more than 50 lines: look for something rarer, or in a smaller folder]"
    )


def test_a_regular_expression_that_never_ends_is_killed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.tools.builtin import files

    monkeypatch.setattr(files, "_SEARCH_SECONDS", 2.0)
    (place.root / "f").write_text("a" * 40 + "b\n")
    began = time.monotonic()
    result = place.call("search_files", text="(a+)+$")
    assert (result.ok, result.text) == (False, "no result within 2 s")
    assert time.monotonic() - began < 6
