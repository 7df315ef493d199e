"""One folder that is never left: which paths it takes, what it opens, what it refuses to write, and how it writes."""

from __future__ import annotations

import errno
import fcntl
import os
import posixpath
import pty
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.tools.builtin import root as module
from agent.tools.builtin.root import MAX_COMPONENTS, MissingError, Root, RootError
from tests.fixtures.generated import runs


@pytest.fixture
def root(tmp_path: Path, home: Path) -> Root:
    (tmp_path / "root").mkdir()
    return Root(tmp_path / "root")


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# Paths.


@settings(max_examples=runs(200), derandomize=True, database=None)
@given(st.lists(st.sampled_from(["..", ".", "", "a", "b.c", "~", "...", "é", " "]), max_size=9))
def test_a_path_below_means_what_it_would_without_links(steps: list[str]) -> None:
    path = "/".join(steps)
    if path.startswith("/"):
        return
    root, plain = Root(Path("/usr")), posixpath.normpath(path)
    for spelled in (path, f"/usr/{path}", f"/usr/./{path}"):
        if plain.split("/")[0] == "..":
            with pytest.raises(RootError, match="is outside the folder /usr"):
                root.parts(spelled)
        else:
            assert root.parts(spelled) == (() if plain == "." else tuple(plain.split("/")))


def test_a_root_behind_a_link_takes_both_of_its_names(root: Root, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("root")
    linked = Root(tmp_path / "link")
    for path in ("a/b", f"{tmp_path}/link/a/b", f"{tmp_path}/root/a/b"):
        assert linked.parts(path) == ("a", "b")
    assert linked.parts(str(tmp_path / "link")) == ()
    for path in ("/", "/a/b", str(tmp_path), f"{tmp_path}/linked/a", f"{tmp_path}/roo"):
        with pytest.raises(RootError, match="is outside"):
            linked.parts(path)


def test_only_a_folder_can_be_the_root(root: Root, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path / "file", tmp_path / "nowhere"):
        with pytest.raises(RootError, match="is no folder"):
            Root(path)
    root.path.rmdir()
    for use in (lambda: root.write("a", b""), lambda: list(root.files()), lambda: list(root.files("a"))):
        with pytest.raises(RootError, match="root does not exist"):
            use()


@pytest.mark.parametrize("path", ["a\0b", "\0", "\udcff", "a/\ud800"])
def test_what_no_file_system_takes_is_no_path(root: Root, path: str) -> None:
    with pytest.raises(RootError, match="no path"):
        root.parts(path)


def longest(root: Root) -> str:
    """A path that is as long as the kernel takes it."""
    room = os.pathconf(root.path, "PC_PATH_MAX") - len(os.fsencode(root.path)) - len("/\0")
    folders, rest = divmod(room - 1, 201)  # a folder and its slash; one byte at least is left for the file
    return ("é" * 100 + "/") * folders + "x" * (rest + 1)


def test_a_path_is_as_long_as_it_can_be_and_for_a_longer_one_nothing_is_made(root: Root) -> None:
    name = "é" * 127 + "x"  # of 255 bytes
    assert os.pathconf(root.path, "PC_NAME_MAX") == len(name.encode())
    for path in (f"{name}/x", "/".join(["d"] * MAX_COMPONENTS), "./" * 3000 + "f"):
        root.write(path, b"x")
    before = sorted(root.path.rglob("*"))
    for path in (f"new/{name}x", f"new/{name}x/f", "new/" * MAX_COMPONENTS + "f", longest(root) + "x", "y" * 10_000):
        with pytest.raises(RootError, match="the path is too long"):
            root.write(path, b"x")
    assert sorted(root.path.rglob("*")) == before
    assert root.check_writable(longest(root))


def test_nobody_writes_into_a_repository_because_its_name_is_long(root: Root) -> None:
    """Beyond what the kernel takes in one name, nothing can be asked about a folder."""
    folder, path = os.open(root.path, os.O_RDONLY), ""
    while len(path) < 4100:
        os.mkdir("d" * 250, dir_fd=folder)
        inner = os.open("d" * 250, os.O_RDONLY, dir_fd=folder)
        os.close(folder)
        folder, path = inner, f"{path}{'d' * 250}/"
    for name in ("objects", "refs"):
        os.mkdir(name, dir_fd=folder)
    os.close(os.open("HEAD", os.O_CREAT | os.O_WRONLY, dir_fd=folder))
    os.close(folder)
    with pytest.raises(RootError):
        root.write(f"{path}config", b"x")


# What is opened.


def test_what_is_in_the_way_is_named_by_the_part_that_is(root: Root) -> None:
    root.write("one/two/three/file", b"x")
    for path, said in (
        ("no/two/three/f", "no does not exist"),
        ("one/no/three/f", "one/no does not exist"),
        ("one/two/no/f", "one/two/no does not exist"),
        ("one/two/three/no", "one/two/three/no does not exist"),
        ("one/two/three/file/f", "one/two/three/file is no folder, or a symbolic link"),
        ("one/two/three", "one/two/three is a folder, not a file"),
        (".", ". is a folder, not a file"),
    ):
        with pytest.raises(RootError) as error, root.file(path):
            pass
        assert str(error.value) == said
        assert isinstance(error.value, MissingError) == ("not exist" in said)


@pytest.mark.parametrize(
    "number", [None, *(getattr(errno, name) for name in ("EPERM", "ENOENT", "EIO", "EACCES", "ENXIO", "ELOOP"))]
)
def test_only_what_is_not_there_counts_as_missing(root: Root, number: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be read, for whatever reason, is never taken for a new file."""
    error = OSError("odd") if number is None else OSError(number, "odd")

    def fail(path: object, *more: object, **named: object) -> int:
        raise error

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(RootError) as told, root.file("f"):
        pass
    assert isinstance(told.value, MissingError) == (number == errno.ENOENT)


def test_descriptors_can_neither_follow_nor_wait_nor_take_a_terminal(root: Root) -> None:
    root.write("d/f", b"x")
    os.mkfifo(root.path / "fifo")
    holder = os.open(root.path / "fifo", os.O_RDWR)  # else whoever opened it as a folder would wait here
    with pytest.raises(RootError, match="fifo is no folder"), root.folder(["fifo"]):
        pass
    with pytest.raises(RootError, match="fifo is a pipe, not a file"), root.file("fifo"):
        pass
    os.close(holder)
    with root.folder(["d"]) as fd:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        assert flags & (os.O_DIRECTORY | os.O_NOFOLLOW) == os.O_DIRECTORY | os.O_NOFOLLOW
        assert not os.get_inheritable(fd)
    with root.file("d/f") as fd:
        flags = fcntl.fcntl(fd, fcntl.F_GETFL)
        assert flags & (os.O_ACCMODE | os.O_NOFOLLOW | os.O_NONBLOCK) == os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
        assert flags & (os.O_APPEND | os.O_DIRECT | os.O_PATH) == 0
        assert not os.get_inheritable(fd)


TERMINAL = """
import os, sys
from pathlib import Path
from agent.tools.builtin.root import Root, RootError
os.setsid()
try:
    with Root(Path(sys.argv[1]).parent).file(Path(sys.argv[1]).name):
        pass
except RootError as e:
    print(e)
try:
    os.open("/dev/tty", os.O_RDWR)
except OSError:
    print("no terminal of ours")
"""


def test_a_terminal_in_the_folder_does_not_become_ours() -> None:
    master, slave = pty.openpty()
    name = os.ttyname(slave)
    said = subprocess.run([sys.executable, "-c", TERMINAL, name], check=True, capture_output=True, text=True).stdout
    os.close(master)
    os.close(slave)
    assert said == f"{Path(name).name} is a device, not a file\nno terminal of ours\n"


def test_what_is_no_file_is_named_by_its_kind_and_stays(root: Root) -> None:
    os.mkfifo(root.path / "fifo")
    (root.path / "folder").mkdir()
    (root.path / "link").symlink_to("folder")
    listener = socket.socket(socket.AF_UNIX)
    here = Path.cwd()
    os.chdir(root.path)
    listener.bind("socket")
    os.chdir(here)
    listener.close()
    before = {path.name: path.lstat().st_mode for path in root.path.iterdir()}
    for name, kind in (("fifo", "a pipe"), ("folder", "a folder"), ("link", "a symbolic link"), ("socket", "a socket")):
        with pytest.raises(RootError, match=f"^{name} is {kind}, not a file$"):
            root.write(name, b"x")
    assert {path.name: path.lstat().st_mode for path in root.path.iterdir()} == before
    with pytest.raises(RootError, match=r"^null is a device, not a file$"), Root(Path("/dev")).file("null"):
        pass


def test_files_below_are_each_found_once_without_links_and_what_programs_keep(root: Root, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/secret").touch()
    names = ["b", "a/z", "a/b/c", "a/b/d", ".hidden"]
    for name in [*names, "node_modules/x", "a/__pycache__/x"]:
        root.write(name, name.encode())
    for folder in (".git", ".sprig", ".venv", "a/.git"):
        (root.path / folder).mkdir()
        (root.path / folder / "x").touch()
    (root.path / "out").symlink_to(tmp_path / "outside")
    (root.path / "a/link").symlink_to("b/c")
    os.mkfifo(root.path / "a/fifo")

    def found(*where: str) -> list[str]:
        inside = []
        for path, fd in root.files(*where):
            assert os.read(fd, 99) == path.encode()
            inside.append(path)
        return inside

    assert found() == [".hidden", "b", "a/z", "a/b/c", "a/b/d"]
    assert found("a") == ["a/z", "a/b/c", "a/b/d"]
    assert found("a/b/../b/d") == ["a/b/d"]
    for path, said in (("out", "symbolic link"), ("a/link", "symbolic link"), ("a/fifo", "a pipe"), ("a/no", "does not exist")):
        with pytest.raises(RootError, match=said):
            found(path)


def open_ones() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_no_descriptor_stays_open(root: Root) -> None:
    os.mkfifo(root.path / "fifo")
    (root.path / "link").symlink_to("d")
    before = open_ones()
    root.write("d/e/f", b"x")
    next(files := root.files())
    files.close()  # type: ignore[attr-defined]
    for path in ("d/e/f", "d/e", "d/no", "no/e/f", "link/e/f", "d/e/f/g", "fifo", "."):
        for use in (
            lambda path: list(root.files(path)),
            lambda path: root.file(path).__enter__(),
            lambda path: root.write(path, b""),
        ):
            try:
                use(path)
            except RootError:
                continue
    assert open_ones() == before


# What may be written.


def test_names_near_those_that_decide_what_runs_are_anybodys(root: Root) -> None:
    for path in (
        "head/notes", "headache", "zebra.txt", "apple", "a/HEADER", "gitignore", "objects/x", "refs", "config", "hooks/readme",
        "git/config", "a/config", "sprig/x", "x/commondir",
    ):  # fmt: skip
        root.write(path, b"x")
    for path in ("HEAD", "a/Head", "a/b/HEAD", "a/b/c/head"):
        with pytest.raises(RootError, match="yours to change"):
            root.check_writable(path)
    for path in ("", ".", "a/..", "new/", "a/"):
        with pytest.raises(RootError, match="is a folder"):
            root.check_writable(path)


@pytest.mark.parametrize(
    ("name", "allowed", "refused"),
    [
        ("plain", ["autostart/x.desktop", "bin/x"], [".config/autostart/x.desktop", ".local/bin/x"]),
        (".config", ["bin/x", "app/x"], ["autostart/x.desktop", "fish/config.fish", ".config/fish/x"]),
        (".local", ["x", "autostart/x"], ["bin/x", "lib/python3.11/x.pth", "share/systemd/x"]),
        (".vscode", [], ["tasks.json", "sub/x"]),
    ],
)
def test_what_decides_what_runs_is_known_by_the_name_of_the_root_too(
    tmp_path: Path, home: Path, name: str, allowed: list[str], refused: list[str]
) -> None:
    """As for commands: whoever starts in ~/.config has not given away what is started at every login."""
    (tmp_path / name).mkdir()
    root = Root(tmp_path / name)
    for path in allowed:
        assert root.check_writable(path)
    for path in refused:
        with pytest.raises(RootError, match="yours to change"):
            root.check_writable(path)


@pytest.mark.parametrize("where", ["", "bare", "one/bare", "one/two/bare"])
def test_a_repository_without_a_work_tree_keeps_what_decides_what_runs(root: Root, where: str) -> None:
    """Wherever it lies below, and when it is the root itself."""
    folder = root.path / where
    for name in ("objects", "refs", "hooks"):
        (folder / name).mkdir(parents=True)
    (folder / "HEAD").touch()
    assert root.check_writable("beside")
    for name in ("config", "config.worktree", "hooks/pre-push", "hooks/a/b", "commondir", "HEAD", "CONFIG", "Hooks/update"):
        with pytest.raises(RootError, match="yours to change"):
            root.write(str(Path(where, name)), b"x")
    if not where:
        root.write("notes/hooks", b"x")
        return
    with pytest.raises(RootError, match="yours to change"):
        root.check_writable(f"{where}/description")


@pytest.mark.parametrize(
    ("home", "allowed", "refused"),
    [
        ("root/keep/home", ["a", "keep/x", "keep/homely"], ["keep/home/settings.toml", "keep/home/models/m", "keep/x/../home/a"]),
        ("root", [], ["a", "settings.toml"]),
        ("elsewhere", ["a", "home/settings.toml"], []),
        (".", ["a", "settings.toml"], []),
        ("link", ["a"], ["real/settings.toml"]),
    ],
)
def test_sprigs_home_is_its_own_where_it_lies_below(
    root: Root, home: str, allowed: list[str], refused: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root.path / "real").mkdir()
    (tmp_path / "link").symlink_to("root/real")
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path / home))
    for path in allowed:
        assert root.check_writable(path)
    for path in refused:
        with pytest.raises(RootError, match="yours to change"):
            root.check_writable(path)


# Writing.


@pytest.mark.parametrize("mask", [0, 0o002, 0o022, 0o027, 0o077, 0o111])
def test_what_is_new_has_the_mode_that_anything_new_has(root: Root, umask: Callable[[int], int], mask: int) -> None:
    umask(mask)
    root.write("d/e/f", b"x")
    (root.path / "plain").mkdir()
    (root.path / "plain/f").touch()
    for ours, other in (("d", "plain"), ("d/e", "plain"), ("d/e/f", "plain/f")):
        assert (root.path / ours).stat().st_mode == (root.path / other).stat().st_mode


def test_where_the_umask_is_not_told_only_the_owner_may_write(
    root: Root, umask: Callable[[int], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    umask(0)
    for told in ("", "Name:\tx\n", "Umask:\tnone\n"):
        monkeypatch.setattr(Path, "read_text", lambda path, told=told: told)
        root.write("f", b"x")
        assert stat.S_IMODE((root.path / "f").stat().st_mode) == 0o644
        (root.path / "f").unlink()


@pytest.mark.parametrize("mode", [0o777, 0o666, 0o640, 0o600, 0o111, 0o400, 0])
@pytest.mark.parametrize("special", [0, stat.S_ISUID, stat.S_ISGID | stat.S_ISVTX])
def test_who_may_do_what_with_a_file_stays_but_it_runs_as_nobody_else(root: Root, mode: int, special: int) -> None:
    (root.path / "f").touch()
    (root.path / "f").chmod(mode | special)
    root.write("f", b"x")
    assert stat.S_IMODE((root.path / "f").stat().st_mode) == mode


def recorded(monkeypatch: pytest.MonkeyPatch, **failing: int) -> list[tuple[str, Any]]:
    """What is done from here on, in its order, each with what there is to know of it; and what fails with which error."""
    done: list[tuple[str, Any]] = []

    def watch(name: str, known: Callable[..., Any]) -> None:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            what = known(*arguments)
            done.append((name, what))
            if f"{name}_{what}" in failing:
                raise OSError(failing[f"{name}_{what}"], "no more room")
            return real(*arguments, **named)

        monkeypatch.setattr(os, name, call)

    watch("fchmod", lambda fd, mode: (stat.S_IMODE(os.fstat(fd).st_mode), os.fstat(fd).st_size))
    watch("fsync", lambda fd: "folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "file")
    watch("rename", lambda old, new: new)
    return done


def test_a_file_is_whole_and_synced_before_it_has_its_name_and_until_then_nobodys(
    root: Root, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = recorded(monkeypatch)
    root.write("f", b"12345")
    assert done == [("fchmod", (0o600, 5)), ("fsync", "file"), ("rename", "f"), ("fsync", "folder")]


@pytest.mark.parametrize("step", ["fsync_file", "rename_f"])
def test_a_write_that_fails_leaves_what_was_there(root: Root, step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (root.path / "f").write_text("old")
    recorded(monkeypatch, **{step: errno.ENOSPC})
    with pytest.raises(RootError, match=r"^f: no more room$"):
        root.write("f", b"new")
    assert {path.name: path.read_text() for path in root.path.iterdir()} == {"f": "old"}


def test_a_folder_that_cannot_be_synced_is_written_all_the_same(root: Root, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded(monkeypatch, fsync_folder=errno.EINVAL)
    root.write("f", b"new")
    assert (root.path / "f").read_bytes() == b"new"


@pytest.mark.parametrize("waiting", ["link", "file"])
def test_what_waits_under_the_name_of_the_unfinished_file_is_not_written_through(
    root: Root, waiting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outside, part = tmp_path / "secret", root.path / ".0123.part"
    outside.write_text("the secret outside")
    monkeypatch.setattr(module.secrets, "token_hex", lambda size: "0123")
    if waiting == "link":
        part.symlink_to(outside)
    else:
        os.link(outside, part)
    with pytest.raises(RootError):
        root.write("f", b"owned")
    assert outside.read_text() == "the secret outside"
    assert not (root.path / "f").exists()
