"""A confined process: what it reaches, what it takes, how it ends, and what is left of it, which is nothing."""

from __future__ import annotations

import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agent.children import process, sandbox
from agent.children.launch import launch
from agent.children.process import Finished, ProcessError, Ring, run_command, run_function
from agent.children.rules import ResourceLimits, Rules
from tests.fixtures.paths import ROOT

HELD = process.report()
needs_landlock = pytest.mark.skipif("landlock" not in HELD, reason=f"the kernel confines with {HELD} only")
needs_seccomp = pytest.mark.skipif("seccomp" not in HELD, reason=f"the kernel confines with {HELD} only")


def run(
    script: str, root: Path, *, seconds: float = 20.0, network: bool = False, limits: ResourceLimits | None = None
) -> Finished:
    rules = Rules(sandbox.system_paths(), (str(root),), network, limits or ResourceLimits())
    return run_command(["sh", "-c", script], root, rules, seconds=seconds)


def python(code: str, root: Path, *, network: bool = False, limits: ResourceLimits | None = None) -> str:
    rules = Rules(sandbox.system_paths(), (str(root),), network, limits or ResourceLimits())
    done = run_command([sys.executable, "-I", "-S", "-c", code], root, rules, seconds=20)
    return done.output.decode()


def processes_with(word: str) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                if word.encode() in (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes():
                    found.append(entry.name)
            except OSError:
                continue
    return found


def test_what_holds_is_said_and_known_words() -> None:
    assert set(HELD.split("+")) <= {*sandbox.LAYERS, "none"}
    assert process.confines_files() == ("landlock" in HELD or "namespaces" in HELD)


def test_status_output_and_order_of_both_streams(tmp_path: Path) -> None:
    done = run("echo out; echo err >&2; echo more; exit 3", tmp_path)
    assert (done.status, done.output, done.cut, done.confined) == (3, b"out\nerr\nmore\n", 0, HELD)


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ProcessError, match="no such command: nonsuch"):
        run_command(["nonsuch"], tmp_path, Rules(sandbox.system_paths()), seconds=5)


@needs_landlock
def test_files_outside_are_out_of_reach(tmp_path: Path) -> None:
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    secret = outside / "secret"
    secret.write_text("the secret")
    (root / "link").symlink_to(secret)
    (root / "up").symlink_to(outside)
    script = f"""
    cat {secret}; cat link; cat up/secret; cat /proc/1/environ; cat /proc/$PPID/environ; ls {outside}; ls ~root
    echo x > {outside}/new; echo x > up/new; rm {secret}; mv {secret} .; ln {secret} hard; echo x >> {secret}
    chmod 0 /proc/self/root{secret}
    cd ..; echo x > sideways; cat /proc/self/root{secret}
    echo y > /tmp/sprig-test-outside; echo inside > {root}/new; cat {root}/new
    """
    done = run(script, root)
    assert b"the secret" not in done.output
    refusals = (b"enied", b"not permitted", b"No such file", b"ead-only", b"nonexistent")
    assert sum(done.output.count(words) for words in refusals) >= 15
    assert b"inside" in done.output
    assert sorted(p.name for p in outside.iterdir()) == ["secret"]
    assert secret.read_text() == "the secret"
    assert not Path("/tmp/sprig-test-outside").exists()
    assert sorted(p.name for p in root.iterdir()) == ["link", "new", "up"]


@pytest.mark.slow
@needs_seccomp
def test_no_socket_of_any_kind_is_opened(tmp_path: Path) -> None:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    code = """
import socket, asyncio
stream, datagram = socket.SOCK_STREAM, socket.SOCK_DGRAM
for family, kind in [(socket.AF_INET, stream), (socket.AF_INET6, datagram), (socket.AF_UNIX, stream), (16, 3)]:
    try: socket.socket(family, kind); print("opened", family)
    except PermissionError: print("refused")
asyncio.run(asyncio.sleep(0)); print("pairs work")
"""
    assert python(code, tmp_path) == "refused\n" * 4 + "pairs work\n"
    port = listener.getsockname()[1]
    connect = f"import socket; socket.create_connection(('127.0.0.1', {port}), 5); print('connected')"
    assert "PermissionError" in python(connect, tmp_path)
    assert python(connect, tmp_path, network=True) == "connected\n"
    listener.close()


@needs_seccomp
def test_calls_that_reach_out_of_the_box_are_refused(tmp_path: Path) -> None:
    code = """
import ctypes, errno, os, platform
libc = ctypes.CDLL(None, use_errno=True)
x86 = platform.machine() == "x86_64"
calls = {"ptrace": (101, 117), "unshare": (272, 97), "mount": (165, 40), "bpf": (321, 280), "keyctl": (250, 219),
         "io_uring_setup": (425, 425),
         "process_vm_readv": (310, 270), "setns": (308, 268), "open_by_handle_at": (304, 265), "clone3": (435, 435)}
for name, (a, b) in calls.items():
    libc.syscall(ctypes.c_long(a if x86 else b), 0x10000000, 0, 0, 0, 0)
    print(name, errno.errorcode[ctypes.get_errno()])
import fcntl
read, write = os.pipe()
try: fcntl.ioctl(read, 0x5412, b"x")
except OSError as e: print("TIOCSTI", errno.errorcode[e.errno])
print("no new privileges", libc.prctl(39, 0, 0, 0, 0))
"""
    said = python(code, tmp_path).splitlines()
    assert {line.split()[1] for line in said[:-2]} <= {"EPERM", "ENOSYS"}
    assert said[-2:] == ["TIOCSTI EPERM", "no new privileges 1"]


def test_no_secret_of_ours_is_in_its_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "PYTHONPATH",
        "LD_LIBRARY_PATH",
        "http_proxy",
    ):
        monkeypatch.setenv(name, "sprigsecret")
    done = run("env; tty; cat; echo $HOME; ls -A ~; id -u", tmp_path)
    assert b"sprigsecret" not in done.output
    names = {line.partition(b"=")[0] for line in done.output.splitlines() if b"=" in line}
    assert names <= {b"PATH", b"HOME", b"TMPDIR", b"LANG", b"TERM", b"PWD", b"OLDPWD", b"SHLVL", b"_"}
    assert b"not a tty" in done.output


def test_its_private_folder_is_gone_afterwards(tmp_path: Path) -> None:
    done = run("echo x > ~/file; echo y > $TMPDIR/other; cd ~; pwd; chmod 500 .", tmp_path)
    assert (done.status, done.output.strip()[:1]) == (0, b"/")
    assert not Path(done.output.decode().strip()).exists()


@pytest.mark.slow
def test_a_gigabyte_of_output_takes_no_memory(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = run("head -c 1000000000 /dev/zero; echo; echo the end", tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 16_000  # kB
    assert done.status == 0
    assert done.cut == 1_000_000_009 - process.KEEP
    assert len(done.output) < process.KEEP + 100
    assert done.output.endswith(b"\0\nthe end\n")
    assert f"[... {done.cut:,} bytes left out ...]".encode() in done.output


@pytest.mark.parametrize("pieces", [[b"abc"], [b"a" * 5, b"b" * 5], [b"x" * 100], [b"12345678"] * 30, [b"", b"a", b""]])
def test_the_ring_keeps_head_and_tail(pieces: list[bytes]) -> None:
    ring = Ring(16)
    for piece in pieces:
        ring.add(piece)
    whole = b"".join(pieces)
    kept, cut = ring.bytes()
    assert cut == max(0, len(whole) - 16)
    assert kept.startswith(whole[:8])
    assert kept.endswith(whole[-8:])
    assert cut or kept == whole


@pytest.mark.slow
def test_a_deaf_process_is_killed_two_seconds_after_it_was_told_to_end(tmp_path: Path) -> None:
    began = time.monotonic()
    done = run("trap '' TERM INT HUP; while :; do sleep 1 & wait; done", tmp_path, seconds=1)
    assert 3 < time.monotonic() - began < 7
    assert done.timed_out
    assert done.status == -signal.SIGKILL


@pytest.mark.slow
def test_a_polite_process_may_say_its_last_words(tmp_path: Path) -> None:
    done = run("trap 'echo bye; exit 0' TERM; sleep 20 & wait", tmp_path, seconds=1)
    assert (done.timed_out, done.output) == (True, b"bye\n")
    assert done.seconds < 4


@pytest.mark.slow
def test_nothing_outlives_it_not_even_what_holds_its_output(tmp_path: Path) -> None:
    mark = f"sprig-survivor-{os.getpid()}"
    script = f"""
    M={mark}; export M
    sleep 300 &
    (setsid sleep 300 &) &
    setsid sh -c 'trap "" TERM HUP; (sleep 300; sleep 300) & sleep 300' &
    (nohup sleep 300 >/dev/null 2>&1 &)
    sleep 0.2; echo started
    """
    began = time.monotonic()
    done = run(script, tmp_path)
    assert time.monotonic() - began < 5
    assert (done.status, done.output) == (0, b"started\n")
    assert done.left >= 4
    assert processes_with(mark) == []


@pytest.mark.slow
def test_cancelling_ends_it_and_its_children(tmp_path: Path) -> None:
    mark = f"sprig-cancelled-{os.getpid()}"
    cancelled = threading.Event()
    threading.Timer(0.4, cancelled.set).start()
    rules = Rules(sandbox.system_paths(), (str(tmp_path),))
    script = f"M={mark}; export M; setsid sleep 300 & sleep 300"
    done = run_command(["sh", "-c", script], tmp_path, rules, seconds=30, cancelled=cancelled)
    assert done.seconds < 5
    assert done.cancelled
    assert processes_with(mark) == []


@pytest.mark.slow
def test_it_ends_when_the_agent_is_killed(tmp_path: Path) -> None:
    mark = f"sprig-orphan-{os.getpid()}"
    code = f"""
import sys, threading; sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from agent.children import process, sandbox
rules = sandbox.Rules(sandbox.system_paths(), ({str(tmp_path)!r},))
script = "M={mark}; export M; echo $$ > started; setsid sleep 300 & sleep 300"
process.run_command(["sh", "-c", script], Path({str(tmp_path)!r}), rules, seconds=100)
"""
    import subprocess

    agent = subprocess.Popen([sys.executable, "-c", code])
    end = time.monotonic() + 20
    while not (tmp_path / "started").exists() and time.monotonic() < end:
        time.sleep(0.02)
    while len(processes_with(mark)) < 2 and time.monotonic() < end:
        time.sleep(0.02)
    agent.kill()
    agent.wait()
    while processes_with(mark) and time.monotonic() < end:
        time.sleep(0.05)
    assert processes_with(mark) == []


def test_it_may_delete_its_working_directory_or_kill_its_group(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    rules = Rules(sandbox.system_paths(), (str(tmp_path),))
    done = run_command(["sh", "-c", "rmdir ../gone && echo removed"], tmp_path / "gone", rules, seconds=5)
    assert done.output == b"removed\n"
    done = run("kill -9 $PPID; kill -9 0; sleep 20", tmp_path, seconds=10)
    assert done.seconds < 5
    assert done.status in (-signal.SIGKILL, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "limits", "ends"),
    [
        ("x = bytearray(900_000_000)", ResourceLimits(memory=400_000_000), "MemoryError"),
        ("f = open('big', 'wb'); f.write(bytes(2_000_000)); f.flush()", ResourceLimits(file_size=1_000_000), "File too large"),
        ("fs = [open('/dev/null') for _ in range(100)]", ResourceLimits(files=32), "Too many open files"),
        ("while True: pass", ResourceLimits(cpu=1), ""),
    ],
)
def test_limits_hold(code: str, limits: ResourceLimits, ends: str, tmp_path: Path) -> None:
    rules = Rules(sandbox.system_paths(), (str(tmp_path),), limits=limits)
    done = run_command([sys.executable, "-I", "-S", "-c", code], tmp_path, rules, seconds=20)
    assert done.status != 0
    assert ends in done.output.decode()
    assert done.seconds < 10
    if not ends:
        assert done.status in (-signal.SIGXCPU, -signal.SIGKILL)


def test_a_function_of_ours_is_run_the_same_way(tmp_path: Path) -> None:
    assert run_function("agent.children.supervisor:probed", {"any": 1}, Rules(), seconds=10) == "held"
    with pytest.raises(ProcessError, match="no_such"):
        run_function("agent.children.supervisor:no_such", None, Rules(), seconds=10)


@needs_landlock
def test_a_function_that_reaches_the_network_reads_no_file_of_a_person(tmp_path: Path) -> None:
    """As `fetch_url` runs: what it could read, it could send."""
    (tmp_path / "diary").write_text("dear diary")
    assert run_function("os:listdir", str(tmp_path), Rules(read=(str(tmp_path),), network=True), seconds=10) == ["diary"]
    with pytest.raises(ProcessError, match=r"Permission denied|No such file"):
        run_function("os:listdir", str(tmp_path), Rules(network=True), seconds=10)
    with pytest.raises(ProcessError, match=r"Permission denied|No such file"):
        run_function("os:listdir", str(Path.home()), Rules(network=True), seconds=10)


def test_where_the_trying_kills_it_is_told_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Android's app filter kills a process that asks for Landlock; the next weaker layer is then tried."""
    tried: list[tuple[str, ...]] = []

    def probe(layers: tuple[str, ...]) -> str:
        tried.append(layers)
        return "seccomp" if layers == ("seccomp",) else ""

    monkeypatch.setattr(process, "probe", probe)
    process.report.cache_clear()
    try:
        assert process.report() == "seccomp"
        assert not process.confines_files()
        assert tried == [sandbox.LAYERS, ("landlock", "seccomp"), ("seccomp",)]
        monkeypatch.setattr(process, "probe", lambda layers: "+".join(layers) if "landlock" in layers else "")
        process.report.cache_clear()
        assert process.report() == "namespaces+landlock+seccomp"
        monkeypatch.setattr(process, "probe", lambda layers: "")
        process.report.cache_clear()
        assert process.report() == "none"
    finally:
        monkeypatch.undo()
        process.report.cache_clear()


def test_system_paths_hold_nothing_of_a_user() -> None:
    home = str(Path.home())
    for path in sandbox.system_paths():
        assert not home.startswith(path + "/")
        assert path not in ("/", home)


@pytest.mark.slow
def test_a_job_that_a_stopped_supervisor_does_not_read_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is larger than a pipe holds, so that writing it would wait for ever."""
    monkeypatch.setattr(process, "_PATIENCE", 0.1)
    monkeypatch.setattr(process, "GRACE", 0.1)
    process.report()  # it starts processes too
    started: list[int] = []

    def launch_stopped(*args: Any, **given: Any) -> subprocess.Popen[bytes]:
        child = launch(*args, **given)
        started.append(child.pid)
        os.kill(child.pid, signal.SIGSTOP)
        return child

    monkeypatch.setattr(process, "launch", launch_stopped)
    begun = time.monotonic()
    with pytest.raises(ProcessError, match="the process of this tool failed"):
        run_function("agent.children.supervisor:probed", "x" * 3_000_000, Rules(), seconds=0.2)
    assert time.monotonic() - begun < 5
    assert not Path(f"/proc/{started[0]}").exists()
