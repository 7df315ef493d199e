"""While another process or thread works on the same files: nothing outside is reached, and nobody sees half a file."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time

import pytest

from agent.tools.builtin.root import Root, RootError
from tests.fixtures.place import Place

SWAPPER = """
import ctypes, sys
libc = ctypes.CDLL(None)
a, b = sys.argv[1].encode(), sys.argv[2].encode()
print("swapping", flush=True)
while True:
    if libc.renameat2(-100, a, -100, b, 2): sys.exit(1)  # RENAME_EXCHANGE: there is always something at both names
"""


@pytest.mark.slow
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


@pytest.mark.slow
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
