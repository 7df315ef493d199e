"""The view of a process in namespaces of its own: what it sees, and what it may do there."""

# ruff: noqa: PTH109, PTH115, PTH208  (it is about the calls themselves)

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent.children import namespaces, process
from agent.children.rules import Rules
from tests.fixtures.forked import forked
from tests.fixtures.tries import READING, TRIES, fails, furnish, works

HELD = process.report()
NAMESPACES = pytest.mark.skipif("namespaces" not in HELD, reason="no namespaces here")


def in_view(rules: Rules, work: Callable[[], Any]) -> Any:
    """What ``work`` gives in the first process of new namespaces, which sees what the rules name."""

    def separated() -> Any:
        namespaces.separate(rules.network)
        return forked(lambda: (namespaces.enter_view(rules), work())[1])

    return forked(separated)


def mounts() -> dict[str, list[str]]:
    """Where something is mounted, with its options (proc(5), mountinfo); the last one of a place is seen."""
    lines = [line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    return {fields[4]: sorted({*fields[5].split(","), *fields[-1].split(",")}) for fields in lines}


@NAMESPACES
def test_a_view_holds_what_the_rules_name_and_each_part_as_far_as_they_say(tmp_path: Path) -> None:
    read, write, outside = (tmp_path / name for name in ("read", "write", "outside"))
    kept, below = write / "kept", write / "below"
    furnish(read, write, outside, kept, below)
    (tmp_path / "alias").symlink_to(write)
    (write / "way").symlink_to(outside)
    (write / "setting").write_text("a = 1")
    (outside / "alone").write_text("alone")
    rules = Rules(
        (str(read), str(tmp_path / "none"), str(below), str(write / "none"), str(outside / "alone"), "/proc/version"),
        (str(write), str(tmp_path / "alias")),
        kept=(str(kept), str(write / "way"), str(write / "setting")),
    )

    def seen() -> dict[str, Any]:
        done = {p.name: sorted(works(p)) for p in (kept, below, read, write, outside)}
        (tmp_path / "alias/made").touch()
        assert fails(lambda: (write / "setting").write_text("a = 2")) == fails(Path("/new").mkdir) == "EROFS"
        Path("/dev/null").write_text("x")
        assert fails(lambda: Path("/dev/full").write_text("x")) == "ENOSPC"
        return {
            "done": done, "mounts": mounts(), "top": os.listdir("/"), "outside": os.listdir(outside), "cwd": os.getcwd(),
            "processes": [name for name in os.listdir("/proc") if name.isdigit()],
            "streams": {name: os.readlink(f"/dev/{name}") for name in os.listdir("/dev") if Path("/dev", name).is_symlink()},
            "alone": (outside / "alone").read_text(),
        }  # fmt: skip

    done = in_view(rules, seen)
    tried = {name: set(tries) for name, tries in done["done"].items()}
    assert tried["read"] == tried["kept"] == tried["below"] == READING
    assert tried["write"] == set(TRIES)
    assert tried["outside"] == {"list"}
    assert (write / "made").exists(), "by its other name, too"
    assert done["outside"] == ["alone"]
    assert done["alone"] == "alone"
    assert sorted(done["top"]) == sorted({"proc", "dev", tmp_path.parts[1]})
    assert done["cwd"] == "/"
    assert done["processes"] == ["1"]
    assert done["streams"] == {f"std{n}": f"/proc/self/fd/{i}" for i, n in enumerate(("in", "out", "err"))} | {
        "fd": "/proc/self/fd"
    }
    places = done["mounts"]
    assert "/.old" not in places
    for path, options in places.items():
        assert "nosuid" in options, path
        free = path in (str(write), str(tmp_path / "alias"))
        assert ("rw" in options, "ro" in options) != (True, False) or free or path == "/proc", path
        assert not free or {"rw", "nodev", "nosuid"} <= set(options), path
    assert {"ro", "nosuid", "nodev"} <= set(places["/"])
    assert {"nosuid", "nodev", "noexec"} <= set(places["/proc"])


@NAMESPACES
@pytest.mark.parametrize("network", [False, True])
def test_every_namespace_is_a_new_one_and_the_user_stays(network: bool, tmp_path: Path) -> None:
    kinds = ["user", "pid", "mnt", "ipc", "uts", "cgroup", "net"]

    def own() -> list[Any]:
        return [{kind: os.readlink(f"/proc/self/ns/{kind}") for kind in kinds}, os.geteuid(), os.getegid()]

    mounted = mounts()
    here, there = own(), in_view(Rules(write=(str(tmp_path),), network=network), own)
    assert mounts() == mounted, "nothing of it is seen outside"
    assert [kind for kind in kinds if here[0][kind] == there[0][kind]] == (["net"] if network else [])
    assert there[1:] == here[1:]


@NAMESPACES
def test_what_a_view_cannot_show_is_said_and_what_nobody_needs_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    for rules in (
        Rules(write=(str(tmp_path / "none"),)),
        Rules(write=(str(tmp_path / "w"),), kept=(str(tmp_path / "w/none"),)),
    ):
        with pytest.raises(AssertionError, match=r"FileNotFoundError.*none is not there"):
            in_view(rules, lambda: None)
    assert in_view(Rules((str(tmp_path / "none"),), (str(tmp_path / "w"),)), lambda: os.listdir(tmp_path)) == ["w"]
    with pytest.raises(FileNotFoundError, match="umount2: No such file"):
        namespaces._call("umount2", b"/nowhere/at/all", 0)


@NAMESPACES
def test_where_proc_cannot_be_mounted_anew_its_files_are_shown_one_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container hides parts of it, and then the kernel does not let it be mounted whole."""
    mount = namespaces._mount

    def refusing(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
        if kind == "proc":
            raise PermissionError(errno.EPERM, "mount")
        mount(source, target, kind, flags, options)

    monkeypatch.setattr(namespaces, "_mount", refusing)
    rules = Rules(("/proc/version", "/proc/meminfo"), (str(tmp_path),))
    assert set(in_view(rules, lambda: os.listdir("/proc"))) == {"version", "meminfo"}


@NAMESPACES
def test_what_must_stay_read_only_below_a_writable_folder_stays_so(tmp_path: Path) -> None:
    (tmp_path / "w/disk").mkdir(parents=True)

    def tried() -> bool:
        (tmp_path / "w/file").touch()
        assert fails((tmp_path / "w/disk/file").touch) == "EROFS"
        options = mounts()
        return {"rw", "nosuid", "nodev"} <= set(options[str(tmp_path / "w")]) and "ro" in options[str(tmp_path / "w/disk")]

    def inside() -> Any:
        namespaces._call("unshare", namespaces.ctypes.c_int(namespaces._NEW_MOUNTS))
        namespaces._mount("tmpfs", str(tmp_path / "w/disk"), "tmpfs", 1)  # MS_RDONLY, by whom the machine belongs to
        return in_view(Rules(write=(str(tmp_path / "w"),)), tried)

    def owned() -> Any:
        namespaces.separate(False)
        return forked(inside)

    assert forked(owned) is True
