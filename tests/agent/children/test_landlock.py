"""Landlock by itself, as one process puts it around itself: what it lets through, and what it holds."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
from pathlib import Path
from typing import Any

import pytest

from agent.children import process, sandbox
from agent.children.rules import Rules
from tests.fixtures.forked import forked
from tests.fixtures.tries import READING, TRIES, furnish, works

HELD = process.report()
LANDLOCK = pytest.mark.skipif("landlock" not in HELD, reason="no Landlock here")


@LANDLOCK
def test_landlock_lets_do_in_a_folder_what_the_rules_say(tmp_path: Path) -> None:
    read, write, outside = (tmp_path / name for name in ("read", "write", "outside"))
    furnish(read, write, outside)
    rules = Rules((str(read), str(tmp_path / "none"), str(outside / "sub/file")), (str(write), str(tmp_path / "none")))

    def tried() -> list[Any]:
        sandbox.no_new_privileges()
        assert sandbox.landlock(rules)
        done = [sorted(works(folder)) for folder in (read, write, outside)]
        with open("/dev/null", "r+b") as nowhere:
            nowhere.write(nowhere.read() + b"x")
        return [*done, (outside / "sub/file").read_text(), works(outside / "sub") == {"read"}]

    assert forked(tried) == [sorted(READING), sorted(TRIES), [], "text", True]


@LANDLOCK
def test_landlock_keeps_what_lies_in_a_folder_and_the_folders_on_the_way_to_it(tmp_path: Path) -> None:
    write, kept, beside = tmp_path / "write", tmp_path / "write/a/kept", tmp_path / "write/a/kept-not"
    furnish(write, write / "a", kept, beside, write / "b", tmp_path / "out")
    (write / "way").symlink_to(tmp_path / "out")

    def tried() -> list[Any]:
        sandbox.no_new_privileges()
        assert sandbox.landlock(Rules((), (str(write),), kept=(str(kept), str(tmp_path / "elsewhere"))))
        return [sorted(works(folder)) for folder in (kept, write / "a", write, beside, write / "b", write / "way")]

    inside, *way, apart, other, led = map(set, forked(tried))
    assert inside == READING
    for around in way:
        assert around == {*READING, "write", "truncate", "truncate as it opens", "remove a file"}
    assert apart == other == set(TRIES)
    assert led == set(), "a link in the folder opens nothing outside"


def reached(network: bool) -> dict[str, bool]:
    """What a process under Landlock alone reaches beside files."""
    with contextlib.ExitStack() as stack:
        tcp, one, other = (stack.enter_context(socket.socket()) for _ in range(3))
        local, third = (stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2))
        for listener, address in ((tcp, ("127.0.0.1", 0)), (local, f"\0sprig-{os.getpid()}")):
            listener.bind(address)
            listener.listen()
        tries = {
            "connect": lambda: one.connect(tcp.getsockname()),
            "bind": lambda: other.bind(("127.0.0.1", 0)),
            "abstract": lambda: third.connect(local.getsockname()),
            "signal": lambda: os.kill(os.getppid(), 0),
        }

        def tried() -> dict[str, bool]:
            sandbox.no_new_privileges()
            assert sandbox.landlock(Rules(network=network))
            done = {}
            for name, attempt in tries.items():
                try:
                    attempt()
                except PermissionError:
                    done[name] = False
                else:
                    done[name] = True
            return done

        return dict(forked(tried))


class FakeKernel:
    """The system calls of Landlock as a kernel of this version of its interface takes them; writes down what it is given."""

    def __init__(self, abi: int, ruleset: int = 0, restricted: int = 0) -> None:
        self.abi, self.ruleset, self.restricted = abi, ruleset, restricted
        self.asked: list[tuple[Any, ...]] = []
        self.syscall: Any = self._call

    def _call(self, number: Any, *arguments: Any) -> int:
        values = tuple(getattr(a, "value", a) for a in arguments)
        self.asked.append((number.value, *values))
        if number.value == 444:
            if values == (None, 0, 1):  # LANDLOCK_CREATE_RULESET_VERSION
                return self.abi
            return self.ruleset if self.ruleset < 0 else os.open(os.devnull, os.O_RDONLY)
        return self.restricted if number.value == 446 else 0


def fake(monkeypatch: pytest.MonkeyPatch, *given: int) -> FakeKernel:
    kernel = FakeKernel(*given)
    call = kernel._call

    class Call:
        restype: Any = None

        def __call__(self, *arguments: Any) -> int:
            return call(*arguments)

    kernel.syscall = Call()
    monkeypatch.setattr(sandbox, "_libc", lambda: kernel)
    return kernel


# Of the kernel's document on Landlock: the version, all rights to files, to TCP ports, and what is scoped.
RIGHTS = {
    1: (0x1FFF,), 2: (0x3FFF,), 3: (0x7FFF,), 4: (0x7FFF, 3), 5: (0xFFFF, 3), 6: (0xFFFF, 3, 3), 7: (0xFFFF, 3, 3),
}  # fmt: skip


@pytest.mark.parametrize("network", [False, True])
@pytest.mark.parametrize("abi", RIGHTS)
def test_every_version_of_landlock_is_asked_for_all_that_it_has(
    abi: int, network: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "f").touch()
    kernel = fake(monkeypatch, abi)
    assert sandbox.landlock(Rules((str(tmp_path / "f"), str(tmp_path)), (str(tmp_path / "w"),), network))
    _, create, *rules, restrict = kernel.asked
    files, *rest = RIGHTS[abi]
    wanted = struct.pack(f"={1 + len(rest)}Q", files, *([0 if network else rest[0], *rest[1:]] if rest else []))
    assert create == (444, wanted, len(wanted), 0)
    assert [number for number, *_ in rules] == [445] * len(rules)
    assert {(kind, flags) for _, _, kind, _, flags in rules} == {(1, 0)}  # LANDLOCK_RULE_PATH_BENEATH
    reading, on_files = 0b1101, 0b101 | 0b10 | 1 << 14 | 1 << 15
    of_writable = [files & reading, files & ~(1 << 15)]
    assert [struct.unpack("=Qi", rule)[0] for _, _, _, rule, _ in rules] == [
        reading & on_files, reading, *of_writable, (0b110 | 1 << 14) & files,
    ]  # fmt: skip
    assert restrict[0] == 446
    assert restrict[2] == 0


@pytest.mark.parametrize(("given", "holds"), [((0,), False), ((-1,), False), ((1,), True), ((1, -1), False), ((1, 0, -1), False)])
def test_what_landlock_does_not_do_is_said(given: tuple[int, ...], holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, *given)
    assert sandbox.landlock(Rules()) == holds


@LANDLOCK
def test_landlock_opens_no_port_and_reaches_no_process_outside() -> None:
    with_network, without = reached(True), reached(False)
    assert with_network["connect"]
    assert with_network["bind"]
    import ctypes

    abi = ctypes.CDLL(None).syscall(444, None, 0, 1)
    assert (without["connect"], without["bind"]) == (abi < 4, abi < 4)
    assert (without["abstract"], without["signal"]) == (with_network["abstract"], with_network["signal"]) == (abi < 6, abi < 6)
