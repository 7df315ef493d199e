"""Files under their final names are whole: after kill -9, with a full disk, with a failing disk, with two runs at once."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.errors import OutputError
from agent.files import (
    atomic_write,
    exclusive,
    free_disk,
    human_size,
    parse_size,
    publish,
    publish_folder,
    reserve,
    scratch_folder,
)
from tests.fixtures.disk import small_disk
from tests.fixtures.paths import ROOT


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, cwd=ROOT, timeout=60
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    with small_disk(tmp_path / "disk", "1m") as place:
        yield place


@pytest.mark.parametrize(
    ("n", "shown"),
    [
        (0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1000, "1 kB"), (13_600, "14 kB"), (386_404_992, "386 MB"),
        (999_700_000, "1.00 GB"), (1_234_567_890, "1.23 GB"), (15_600_000_000, "16 GB"), (2.5e12, "2.50 TB"),
    ],
)  # fmt: skip
def test_sizes_read_well(n: float, shown: str) -> None:
    assert human_size(n) == shown


SIZES = [
    ("0", 0),
    ("1234", 1234),
    ("700M", 7 * 10**8),
    ("1.5 GB", 15 * 10**8),
    ("2GiB", 2 << 30),
    (" 3 bytes ", 3),
    ("4kb", 4000),
]


@pytest.mark.parametrize(("said", "size"), SIZES)
def test_a_size_is_read_as_people_write_it(said: str, size: int) -> None:
    assert parse_size(said) == size


@pytest.mark.parametrize("said", [" ", "GB", "-1", "1e9", "1,5GB", "1.5 GBB", "nan", "٣", "1 2"])
def test_what_is_no_size_is_refused(said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_size(said)


def test_a_file_is_written_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "card.md"
    atomic_write(path, "grün")
    assert path.read_bytes() == "grün".encode()
    atomic_write(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert names(tmp_path) == ["card.md"]


def test_a_new_file_has_the_rights_that_any_new_file_gets(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "x", b"")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == 0o640


def write_and_die(target: Path, last: int, when: str) -> int:
    """Publish a file in a fork that dies at the N-th step, before or after it: the steps are every system call that is made.

    Returns:
        The number of steps, or -9.
    """
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    steps = 0

    def deadly(function: Any) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == last and when == "before":
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **named)
            if steps == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    try:
        for owner, name in ((os, "open"), (os, "fsync"), (os, "close"), (Path, "replace"), (Path, "open")):
            setattr(owner, name, deadly(getattr(owner, name)))
        atomic_write(target, b"new" * 1000)
    finally:
        os._exit(steps)


@pytest.mark.slow
def test_kill_9_at_any_step_leaves_the_old_file_or_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    steps = write_and_die(path, 0, "never")
    assert path.read_bytes() == b"new" * 1000
    assert steps >= 7  # create; open, sync, close; rename; open, sync, close the folder
    outcomes = []
    for when in ("before", "after"):
        for step in range(1, steps + 1):
            path.write_bytes(b"old")
            assert write_and_die(path, step, when) == -signal.SIGKILL
            outcomes.append(path.read_bytes())
    assert set(outcomes) == {b"old", b"new" * 1000}
    # What a killed run leaves is hidden, says what it is, and does not hinder the next.
    assert all(name == "x" or (name.startswith(".x.") and name.endswith(".part")) for name in names(tmp_path))
    atomic_write(path, b"again")
    assert path.read_bytes() == b"again"


def test_a_disk_that_fails_to_sync_is_believed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, final = tmp_path / "x.part", tmp_path / "x"
    part.write_bytes(b"new")
    final.write_bytes(b"old")
    calls = []

    def fsync(fd: int) -> None:
        calls.append(fd)
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match=r"the disk did not take it \(Input/output error\)"):
        publish(part, final)
    assert len(calls) == 1
    assert final.read_bytes() == b"old"
    assert not part.exists()  # its pages may be lost, so nobody may go on with it


def test_a_file_system_that_cannot_sync_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "no")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    atomic_write(tmp_path / "x", b"there")
    assert (tmp_path / "x").read_bytes() == b"there"


@pytest.mark.parametrize("what", ["missing folder", "folder in its place", "file as folder", "name too long"])
def test_a_place_that_takes_no_file_is_one_line(tmp_path: Path, what: str) -> None:
    (tmp_path / "folder" / "full").mkdir(parents=True)
    (tmp_path / "file").touch()
    place = {
        "missing folder": tmp_path / "no" / "x", "folder in its place": tmp_path / "folder",
        "file as folder": tmp_path / "file" / "x", "name too long": tmp_path / ("x" * 300),
    }[what]  # fmt: skip
    with pytest.raises(OutputError) as caught:
        atomic_write(place, b"content")
    assert str(caught.value).startswith(f"cannot write {place}: ")
    assert names(tmp_path) == ["file", "folder"]


def test_a_part_is_published_only_beside_itself(tmp_path: Path) -> None:
    (tmp_path / "x.part").touch()
    (tmp_path / "other").mkdir()
    with pytest.raises(OutputError, match="must lie beside"):
        publish(tmp_path / "x.part", tmp_path / "other" / "x")


def test_a_folder_is_published_whole_when_all_in_it_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, final = tmp_path / "part", tmp_path / "final"
    (part / "inner").mkdir(parents=True)
    (part / "inner" / "x").write_bytes(b"x")
    synced, real = list[str](), os.fsync

    def fsync(fd: int) -> None:
        synced.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    final.mkdir()  # an empty folder may be in its place
    publish_folder(part, final)
    assert synced == ["x", "inner", "part", tmp_path.name]
    assert (final / "inner" / "x").read_bytes() == b"x"
    part.mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*final: "):
        publish_folder(part, final)
    assert names(final) == ["inner"]
    assert part.is_dir()


HOLDS = """
import pathlib, sys, time
from agent.files import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_second_run_is_told_who_the_first_is_and_a_dead_one_does_not_block(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    with subprocess.Popen([sys.executable, "-c", HOLDS, part], stdout=subprocess.PIPE, cwd=ROOT) as first:
        assert first.stdout is not None
        first.stdout.readline()
        with pytest.raises(OutputError, match=r"x\.part is being written by another run") as caught, exclusive(part):
            pass
        if Path("/proc/locks").exists() and str(first.pid) in Path("/proc/locks").read_text():
            assert f"(process {first.pid})" in str(caught.value)
        first.kill()
        first.wait()
        with exclusive(part) as fd:
            os.write(fd, b"mine")
    assert part.read_bytes() == b"mine"


def test_the_part_stays_for_the_next_run_also_after_an_error(tmp_path: Path) -> None:
    part = tmp_path / "x.part"

    def broken_off() -> None:
        with exclusive(part) as fd:
            os.write(fd, b"half")
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        broken_off()
    with exclusive(part) as fd:
        assert os.read(fd, 10) == b"half"


def test_a_lock_on_a_file_that_was_published_meanwhile_is_not_a_lock_on_the_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other run publishes between our open and our lock: writing on would write into its finished file."""
    part, final = tmp_path / "x.part", tmp_path / "x"
    part.write_bytes(b"finished by the other run")
    real = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        if not final.exists():
            part.rename(final)
        real(fd, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(part) as fd:
        os.write(fd, b"ours")
    assert final.read_bytes() == b"finished by the other run"
    assert part.read_bytes() == b"ours"


def test_a_file_system_without_locks_still_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(fd: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with exclusive(tmp_path / "x.part") as fd:
        os.write(fd, b"ours")
    assert (tmp_path / "x.part").read_bytes() == b"ours"


def test_a_link_in_place_of_the_part_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / "x.part").symlink_to(tmp_path / "precious")
    with pytest.raises(OutputError, match="cannot write"), exclusive(tmp_path / "x.part") as fd:
        os.write(fd, b"gone")
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_room_is_reserved_and_what_is_there_stays(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    part.write_bytes(b"half")
    with exclusive(part) as fd:
        reserve(fd, 100_000, part)
        assert os.fstat(fd).st_size == 100_000
        assert os.fstat(fd).st_blocks * 512 >= 100_000
        assert os.read(fd, 4) == b"half"
        reserve(fd, 100_000, part)


@pytest.mark.parametrize("cannot", [errno.EOPNOTSUPP, errno.EINVAL])
def test_where_blocks_cannot_be_reserved_the_size_is_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cannot: int) -> None:
    def posix_fallocate(fd: int, offset: int, length: int) -> None:
        raise OSError(cannot, "no")

    monkeypatch.setattr(os, "posix_fallocate", posix_fallocate)
    with exclusive(tmp_path / "x.part") as fd:
        reserve(fd, 100_000, tmp_path / "x.part")
        assert os.fstat(fd).st_size == 100_000


def test_what_does_not_fit_is_refused_with_both_numbers(tmp_path: Path) -> None:
    part = tmp_path / "x.part"
    free = human_size(free_disk(tmp_path))
    with exclusive(part) as fd, pytest.raises(OutputError, match=r"^x\.part needs 1000000 TB, ") as caught:
        reserve(fd, 10**18, part)
    assert free.split()[1] in str(caught.value)
    assert f"free on {tmp_path}" in str(caught.value)
    assert part.stat().st_size == 0


def test_a_limit_on_file_sizes_is_one_line(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, resource, sys\n"
        "from agent.files import exclusive, reserve\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))\n"
        "part = pathlib.Path(sys.argv[1])\n"
        "try:\n"
        "    with exclusive(part) as fd: reserve(fd, 2 << 20, part)\n"
        "except Exception as e: print(type(e).__name__, e)\n"
    )
    said = run(program, tmp_path / "x.part").stdout
    assert said.startswith("OutputError ")
    assert "ulimit -f allows no file of 2 MB" in said


def test_free_space_is_known_for_a_place_that_is_not_there_yet(tmp_path: Path) -> None:
    assert abs(free_disk(tmp_path / "a" / "b" / "c.gguf") - free_disk(tmp_path)) < 1 << 30


def test_a_small_disk_refuses_at_once_and_takes_what_fits(disk: Path) -> None:
    part = disk / "x.part"
    with exclusive(part) as fd:
        with pytest.raises(OutputError, match=r"x\.part needs 2 MB, 1 MB free on"):
            reserve(fd, 2_000_000, part)
        assert os.fstat(fd).st_size == 0
        reserve(fd, 900_000, part)
        # Every reserved byte can be written, though nothing else fits any more.
        with pytest.raises(OutputError, match="the disk is full"):
            atomic_write(disk / "other", bytes(500_000))
        assert os.pwrite(fd, bytes(900_000), 0) == 900_000
    publish(part, disk / "x")
    assert names(disk) == ["x"]


def test_a_full_disk_does_not_cost_the_old_file(disk: Path) -> None:
    path = disk / "card.md"
    atomic_write(path, "old")
    (disk / "filler").write_bytes(bytes(free_disk(disk)))
    with pytest.raises(OutputError, match=r"the disk is full while writing .*card\.md"):
        atomic_write(path, "new" * 100_000)
    assert path.read_text() == "old"
    assert names(disk) == ["card.md", "filler"]
    (disk / "filler").unlink()
    atomic_write(path, "new")
    assert path.read_text() == "new"


def test_a_scratch_folder_takes_the_place_of_what_a_killed_run_left(tmp_path: Path) -> None:
    place = tmp_path / ".scratch"
    place.mkdir()
    (place / "old").touch()
    with scratch_folder(place) as folder:
        assert list(folder.iterdir()) == []
        (folder / "new").touch()
        with pytest.raises(OutputError, match="another run"), scratch_folder(place):
            pass
        assert (folder / "new").exists()
    assert list(tmp_path.iterdir()) == []
