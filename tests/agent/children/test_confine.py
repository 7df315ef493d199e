"""What a process may take, what it gives up, and all the walls together, as one process puts them around itself."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import os
import resource
import signal
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from agent.children import process, sandbox
from agent.children.rules import FREE, UNLIMITED, ResourceLimits, Rules
from tests.fixtures.forked import forked
from tests.fixtures.tries import fails, furnish

HELD = process.report()
LANDLOCK = pytest.mark.skipif("landlock" not in HELD, reason="no Landlock here")
SECCOMP = pytest.mark.skipif("seccomp" not in HELD, reason="no filter here")


def limits_after(limits: ResourceLimits, had: dict[str, tuple[int, int]], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The limits that are set where a process had these, soft and hard."""
    names = {getattr(resource, f"RLIMIT_{name}"): f"RLIMIT_{name}" for name in ("AS", "CPU", "FSIZE", "NOFILE", "NPROC", "CORE")}
    done: dict[str, tuple[int, int]] = {}
    with monkeypatch.context() as patch:
        patch.setattr(sandbox, "_own_processes", lambda: 1000)
        patch.setattr(resource, "getrlimit", lambda number: had.get(names[number], (-1, -1)))
        patch.setattr(resource, "setrlimit", lambda number, both: done.update({names[number]: both}))
        sandbox.set_limits(limits)
    return done


def test_limits_are_set_and_none_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ResourceLimits(memory=4000, cpu=10, file_size=500, processes=7, files=30)
    free = limits_after(wanted, {}, monkeypatch)
    assert free == {
        "RLIMIT_AS": (4000, 4000), "RLIMIT_CPU": (10, 11), "RLIMIT_FSIZE": (500, 500), "RLIMIT_NOFILE": (30, 30),
        "RLIMIT_NPROC": (1007, 1007), "RLIMIT_CORE": (0, 0),
    }  # fmt: skip
    for name, (soft, hard) in free.items():
        for most in {0, 1, soft - 1, soft, soft + 1, 10**9} - {-1}:  # which would be none
            got = limits_after(wanted, {name: (most, most)}, monkeypatch)
            assert got == free | {name: (min(soft, most), min(hard, most))}, "never more than the system gives"


@pytest.mark.parametrize("least", [0, 1])
def test_the_least_of_a_limit_is_a_limit(least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_to = limits_after(ResourceLimits(least, least, least, least, least), {}, monkeypatch)
    assert [soft - 1000 * (name == "RLIMIT_NPROC") for name, (soft, _) in set_to.items() if name != "RLIMIT_CORE"] == [least] * 5


def test_an_unlimited_one_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"memory": "AS", "cpu": "CPU", "file_size": "FSIZE", "files": "NOFILE", "processes": "NPROC"}
    for field, name in names.items():
        limits = dataclasses.replace(ResourceLimits(), **{field: UNLIMITED})
        left_out = limits_after(ResourceLimits(), {}, monkeypatch).keys() - limits_after(limits, {}, monkeypatch).keys()
        assert left_out == {f"RLIMIT_{name}"}


def test_what_a_process_may_take_unless_told_otherwise_is_enough_for_an_ordinary_program(tmp_path: Path) -> None:
    def work() -> int:
        sandbox.set_limits(ResourceLimits())
        (tmp_path / "file").write_bytes(bytes(5_000_000))
        with contextlib.ExitStack() as stack:
            return len([stack.enter_context(open(os.devnull)) for _ in range(50)])

    assert forked(work) == 50


def test_the_threads_of_this_user_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = {"1": 1, "20": 3, "300": 4, "self": 9, "sys": 2}
    users = {"1": os.getuid() + 1, "20": os.getuid(), "300": os.getuid(), "self": os.getuid(), "sys": os.getuid()}

    class Entry:
        def __init__(self, name: str) -> None:
            self.name = name

        def stat(self) -> Any:
            if self.name == "4":
                raise FileNotFoundError("it has ended meanwhile")
            return os.stat_result((0, 0, 0, 0, users[self.name], 0, 0, 0, 0, 0))

    with monkeypatch.context() as patch:
        patch.setattr(os, "scandir", lambda path: map(Entry, [path.strip("/")[4:] + "sys", "self", "1", "20", "4", "300"]))
        patch.setattr(os, "listdir", lambda path: ["x"] * threads[path.split("/")[2]])
        counted = sandbox._own_processes()
    assert counted == 7


def state() -> dict[str, int]:
    lines = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines() if line.count(":\t") == 1)
    return {name: int(lines[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Seccomp")}


@pytest.mark.parametrize("reads_all", [False, True])
def test_no_right_of_roots_is_left_but_to_read_where_that_is_asked_for(reads_all: bool) -> None:
    kept = 4 if reads_all and os.geteuid() == 0 else 0  # CAP_DAC_READ_SEARCH, the second bit of capabilities(7)
    after = forked(lambda: (sandbox.drop_capabilities(reads_all=reads_all), state())[1])
    assert (after["CapPrm"], after["CapEff"], after["CapInh"], after["CapAmb"]) == (kept, kept, 0, 0)
    assert after["CapBnd"] == 0 or os.geteuid()


def test_a_process_hides_adopts_and_gains_nothing() -> None:
    def asked() -> list[int]:
        import ctypes

        number, libc = ctypes.c_int(), ctypes.CDLL(None)
        libc.prctl(37, ctypes.byref(number), 0, 0, 0)  # PR_GET_CHILD_SUBREAPER
        return [libc.prctl(3, 0, 0, 0, 0), number.value, libc.prctl(39, 0, 0, 0, 0)]  # PR_GET_DUMPABLE, ..., PR_GET_NO_NEW_PRIVS

    def changed() -> list[Any]:
        sandbox.no_new_privileges()
        first = asked()
        sandbox.become_subreaper()
        second = asked()
        return [first, second, sandbox.hide_from_others(), asked(), sandbox._prctl(9999, 0)]

    assert forked(asked) == [1, 0, 0]
    assert forked(changed) == [[1, 0, 1], [1, 1, 1], True, [0, 1, 1], False]


def test_where_the_system_has_no_such_call_nothing_is_said_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "_libc", object)
    assert not any(ask() for ask in (sandbox.no_new_privileges, sandbox.become_subreaper, sandbox.hide_from_others))
    sandbox.drop_capabilities()


# ---- all of it together ----


@LANDLOCK
@SECCOMP
@pytest.mark.parametrize("layers", [layers for n in range(4) for layers in itertools.combinations(sandbox.LAYERS, n)])
def test_a_process_is_under_the_layers_that_it_is_told_to_hold(layers: tuple[str, ...], tmp_path: Path) -> None:
    write, outside = tmp_path / "write", tmp_path / "outside"
    furnish(write, outside)
    (write / ".git").mkdir()

    def tried(network: bool, programs: bool) -> list[Any]:
        system = sandbox.system_paths()
        held = sandbox.confine(Rules(system, (str(write),), network, kept=(str(write / ".git"),)), layers, programs=programs)
        done = {
            "outside": fails((outside / "file").read_text),
            "beside what is kept": fails((write / "beside").touch),
            "mode": fails(lambda: (write / "file").chmod(0o600)),
            "process": fails(lambda: Path("/proc/self/status").read_text()),
            "socket": fails(lambda: socket.socket().close()),
            "shared": "" if shared() else "EPERM",
            "run": fails(lambda: os.execv(f"{write}/program", ["program"])),
            "limit": str(resource.getrlimit(resource.RLIMIT_CORE)[1]),
        }
        return [held, done, *([state()] if not done["process"] else [])]

    for network, programs in ((False, False), (True, True)):
        held, done, *after = forked(lambda: tried(network, programs))  # noqa: B023
        filtered, walled, alone = "seccomp" in layers, "landlock" in layers, "namespaces" in layers
        assert held == ("+".join(layers) or "none")
        assert done == {
            "outside": "EACCES" if walled else "",
            "beside what is kept": "EACCES" if walled and not alone else "",
            "mode": "EPERM" if filtered and walled and not alone else "",
            "process": "EACCES" if walled and not alone else "",
            "socket": "EPERM" if filtered and not network else "",
            "shared": "EPERM" if filtered and not alone else "",
            "run": "EPERM" if filtered and not programs else "ENOEXEC",
            "limit": "0",
        }
        for status in after:
            assert (status["NoNewPrivs"], status["Seccomp"], status["CapEff"]) == (1, 2 * filtered, 0)


def shared() -> bool:
    import ctypes

    libc = ctypes.CDLL(None)
    number = libc.shmget(0, 100, 0o600)  # IPC_PRIVATE
    return number >= 0 and libc.shmctl(number, 0, None) == 0  # IPC_RMID


@LANDLOCK
@SECCOMP
@pytest.mark.parametrize(
    ("android", "deadly", "held"),
    [(False, (), "landlock+seccomp"), (True, (), "landlock+seccomp"), (True, ("landlock",), "seccomp"),
     (True, ("landlock", "seccomp"), "none")],
)  # fmt: skip
def test_what_runs_no_programs_confines_itself_as_far_as_the_trying_does_not_kill(
    android: bool, deadly: tuple[str, ...], held: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ANDROID_ROOT", raising=False)
    if android:
        monkeypatch.setenv("ANDROID_ROOT", "/system")
    confine = sandbox.confine

    def fragile(rules: Rules, layers: Iterable[str], **given: Any) -> str:
        if {*layers} & {*deadly}:
            os.kill(os.getpid(), signal.SIGSYS)
        return confine(rules, layers, **given)

    monkeypatch.setattr(sandbox, "confine", fragile)

    def tried() -> list[Any]:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        said = sandbox.confine_itself(Rules(("/proc", "/sys"), limits=FREE), reads_all=True)
        return [said, fails(lambda: os.execv("/proc/self/nothing", ["x"])) if said != "none" else "EPERM", state()["CapEff"]]

    assert forked(tried)[:2] == [held, "EPERM"]
    if os.geteuid() == 0 and held != "none":
        assert forked(tried)[2] == 4, "it may read what belongs to others"


# ---- what all may read ----


@pytest.mark.parametrize("root", [False, True])
def test_the_system_is_what_no_user_owns_and_nobody_keeps_to_himself(root: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    paths = sandbox.system_paths()
    assert len({*paths}) == len(paths)
    assert {"/usr", sys.prefix, sys.base_prefix} <= {*paths}
    assert all(Path(path).exists() for path in paths)
    private = [p for p in Path("/etc").iterdir() if p.name.startswith(("shadow", "gshadow", "sudoers", "ssh", "ssl"))]
    for path in private:
        assert not root or not {str(path), *map(str, path.parents)} & {*paths}, path
    assert ("/etc" in paths) == (not root)
    if root:
        assert {str(p) for p in Path("/etc").iterdir() if p.name in ("passwd", "hosts", "localtime")} <= {*paths}
        assert ("/etc/ssl/certs" in paths) == Path("/etc/ssl/certs").exists()


def test_a_python_that_lies_in_a_home_itself_does_not_open_the_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "me/venv").mkdir(parents=True)
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "me")
    for prefix, opened in ((tmp_path / "me/venv", True), (tmp_path / "me", False), (tmp_path, False)):
        monkeypatch.setattr(sys, "prefix", str(prefix))
        assert (str(prefix) in sandbox.system_paths()) == opened
    for prefix, opened in (("com.termux", True), ("other", False)):
        (tmp_path / prefix).mkdir()
        monkeypatch.setenv("PREFIX", str(tmp_path / prefix))
        assert (str(tmp_path / prefix) in sandbox.system_paths()) == opened


def test_rules_come_over_the_wire_as_they_were() -> None:
    rules = Rules(("/r",), ("/w", "/v"), True, ResourceLimits(1, 2, 3, 4, 5), ("/k",))
    assert Rules.from_dict(dataclasses.asdict(rules)) == rules
    assert Rules.from_dict(dataclasses.asdict(Rules())) == Rules()
    assert not Rules().network
    assert dataclasses.astuple(FREE) == (UNLIMITED,) * 5
