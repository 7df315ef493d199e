"""What a confined command does to files outside, to other processes, to the machine, and to what decides what runs."""

from __future__ import annotations

import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.children import process, protected, sandbox
from agent.children.process import Finished, run_command
from agent.children.rules import Rules
from agent.tools.builtin.root import Root, RootError

HELD = process.report()
# What other machines have. Landlock alone: namespaces are forbidden, as in many containers. No Landlock: many boards' kernels.
KINDS = [kind for kind in ("namespaces+landlock+seccomp", "landlock+seccomp", "namespaces+seccomp")
         if set(kind.split("+")) <= set(HELD.split("+"))]  # fmt: skip
pytestmark = pytest.mark.skipif(not KINDS, reason=f"the kernel confines with {HELD} only")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(process, "report", lambda: request.param)
    return str(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def run(root: Path, script: str) -> Finished:
    return run_command(["sh", "-c", script], root, Rules(sandbox.system_paths(), (str(root),)), seconds=60)


def python(root: Path, code: str) -> list[str]:
    argv = [sys.executable, "-I", "-S", "-c", code]
    return run_command(argv, root, Rules(sandbox.system_paths(), (str(root),)), seconds=60).output.decode().splitlines()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "600"]) as child:
        yield child
        child.kill()


def test_files_outside_keep_modes_owners_times_and_attributes(kind: str, root: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("x")
    victim.chmod(0o600)
    victims = [str(victim), "/usr/bin/env", "/etc/passwd"]
    before = [Path(path).stat() for path in victims]
    code = f"""
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
def changes(path):
    p = path.encode()
    yield lambda: os.chmod(path, 0o777)
    yield lambda: os.chmod(path, 0o777, follow_symlinks=True, dir_fd=os.open("/", 0))
    yield lambda: os.chown(path, 12345, -1)
    yield lambda: os.lchown(path, 12345, -1)
    yield lambda: os.utime(path, (1, 1))
    yield lambda: os.utime(path, (1, 1), follow_symlinks=False)
    yield lambda: os.setxattr(path, "user.x", b"1")
    yield lambda: os.setxattr(path, "user.x", b"1", follow_symlinks=False)
    yield lambda: os.removexattr(path, "user.y")
    yield lambda: os.truncate(path, 0)
    yield lambda: 1 / libc.syscall(452, -100, p, 0o777, 0)
    yield lambda: os.chmod("/proc/self/root" + path, 0o777)
    yield lambda: os.link(path, "linked")
    yield lambda: os.rename(path, "moved")
for path in {victims!r}:
    for i, change in enumerate(changes(path)):
        try: change()
        except (OSError, ZeroDivisionError): continue
        print(path, i)
    try: fd = os.open(path, os.O_RDONLY)
    except OSError: continue
    for i, change in enumerate((lambda: os.fchmod(fd, 0o777), lambda: os.fchown(fd, 12345, -1), lambda: os.utime(fd, (1, 1)),
                                lambda: os.setxattr(fd, "user.x", b"1"))):
        try: change()
        except OSError: continue
        print("open", path, i)
"""
    said = python(root, code)
    assert [line for line in said if not line.endswith(" 10")] == [], "what went through"
    kept = ("st_mode", "st_uid", "st_gid", "st_mtime_ns", "st_size", "st_nlink")
    after = [Path(path).stat() for path in victims]
    assert [[getattr(s, name) for name in kept] for s in after] == [[getattr(s, name) for name in kept] for s in before]
    assert os.listxattr(victim) == []


def test_other_processes_are_left_alone(kind: str, root: Path, sleeper: subprocess.Popen[bytes]) -> None:
    code = f"""
import ctypes, os, resource, signal
def tried():
    for pid in ({sleeper.pid}, {os.getpid()}):
        yield lambda: resource.prlimit(pid, resource.RLIMIT_NOFILE, (5, 5))
        yield lambda: os.setpriority(os.PRIO_PROCESS, pid, 15)
        yield lambda: os.sched_setaffinity(pid, [0])
        yield lambda: os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))
        yield lambda: os.sched_setparam(pid, os.sched_param(0))
        yield lambda: os.kill(pid, signal.SIGTERM)
        yield lambda: os.pidfd_open(pid)
    if "namespaces" not in {kind!r}:
        yield lambda: os.setpriority(os.PRIO_USER, 0, 15)
        yield lambda: 1 // (1 + ctypes.CDLL(None).shmget(4242, 100, 0o1666))
for i, attempt in enumerate(tried()):
    try: attempt(); print("went through", i)
    except (OSError, ZeroDivisionError): pass
resource.prlimit(0, resource.RLIMIT_NOFILE, (50, 50)); os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])
os.setpriority(os.PRIO_PROCESS, 0, min(os.nice(0) + 5, 19)); print("itself it may", os.nice(1) - os.nice(0))
"""
    assert python(root, code) == ["itself it may 0"]
    assert sleeper.poll() is None
    assert os.getpriority(os.PRIO_PROCESS, sleeper.pid) == os.getpriority(os.PRIO_PROCESS, 0)
    assert resource.prlimit(sleeper.pid, resource.RLIMIT_NOFILE) == resource.getrlimit(resource.RLIMIT_NOFILE)


def test_the_machine_is_left_alone_also_by_root(kind: str, root: Path) -> None:
    code = """
import ctypes, errno, socket, time
libc = ctypes.CDLL(None, use_errno=True)
import os
x86 = os.uname().machine == "x86_64"
calls = {"swapoff": (168, 225), "swapon": (167, 224), "syslog": (103, 116), "reboot": (169, 142), "mount": (165, 40),
         "settimeofday": (164, 170), "acct": (163, 89), "vhangup": (153, 58), "unshare": (272, 97), "setns": (308, 268),
         "init_module": (175, 105), "kexec_load": (246, 104), "bpf": (321, 280), "chroot": (161, 51), "sethostname": (170, 161)}
for name, pair in calls.items():
    done = libc.syscall(ctypes.c_long(pair[not x86]), b"/nowhere", 0, 0, 0, 0)
    if done != -1 or ctypes.get_errno() != errno.EPERM: print(name, done, ctypes.get_errno())
try: time.clock_settime(time.CLOCK_REALTIME, time.time()); print("the clock")
except PermissionError: pass
try: status = open("/proc/self/status").read()
except PermissionError: status = ""
for line in status.splitlines():
    name, _, value = line.partition(":")
    if name in ("CapInh", "CapPrm", "CapEff", "CapAmb"): assert not int(value, 16), line
assert libc.prctl(39, 0, 0, 0, 0) == 1, "no new privileges"
for number in range(41): assert libc.prctl(23, number, 0, 0, 0) != 1 or os.getuid(), number
print("sessions", os.getsid(0) != 0, os.getpgid(0) == os.getsid(0))
"""
    assert python(root, code) == ["sessions True True"]


COMMON = """
set -e
echo one > a; cp -p a b; cp -r . /dev/null 2>/dev/null || true; mkdir d; cp -a a d/
tar cf t.tar a d; mkdir out; tar xf t.tar -C out; gzip -k a; gunzip -c a.gz; sort -o s a b; sed -i s/one/two/ a; cat a
printf 'all: made\\nmade: a\\n\\tcp a made\\n' > Makefile; command -v make > /dev/null && make -s
touch new; touch -d 2001-01-01 old; chmod +x new; mv new newer; ln -s a link; ln a hard; rm -r out
find . -name a | sort; echo done
"""


@pytest.mark.slow
def test_ordinary_programs_work_inside(kind: str, root: Path) -> None:
    if "namespaces" not in kind:
        pytest.skip("Landlock alone refuses modes and times by name: the next test")
    done = run(root, COMMON)
    assert done.output.decode().splitlines()[-1:] == ["done"], done.output
    assert (root / "old").stat().st_mtime < 1e9
    assert (root / "newer").stat().st_mode & stat.S_IXUSR
    assert python(root, "import shutil; shutil.copy2('a', 'c'); print(open('c').read())") == ["two", ""]


@pytest.mark.slow
def test_landlock_alone_refuses_modes_and_times_by_name_and_says_so(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if "landlock+seccomp" not in KINDS:
        pytest.skip("no Landlock here")
    monkeypatch.setattr(process, "report", lambda: "landlock+seccomp")
    done = run(root, "echo one > a && sort a && cp a b && mkdir d && mv a d/ && rm -r d && chmod 700 b; echo $?")
    assert done.output.decode().splitlines() == ["one", "chmod: changing permissions of 'b': Operation not permitted", "1"]


def repository(root: Path) -> None:
    git = ["git", "-c", "user.name=x", "-c", "user.email=x@y", "-c", "init.defaultBranch=main"]
    (root / "a").write_text("1\n")
    for words in (["init", "-q"], ["add", "a"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], cwd=root, check=True, env={**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null"})


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


WRITES = """
echo x > .git/config; echo x >> .git/config; cp a .git/hooks/post-checkout; mv .git old; rm -rf .git; rmdir .git/hooks
ln -f a .git/config; ln .git/config here && echo x > here; ln -s /dev/null .git/x; mkdir .git/y; chmod 777 .git/config
git config core.pager evil; git log -1 --output=.git/config; git -c core.fsmonitor=x commit -qam two; truncate -s0 .git/HEAD
python3 -c "import os; os.rename('.git', 'g')"; (cd .git && echo x > config); mv a .git/a; cp -r .git copy; rm -rf copy
echo x > sub/.git/config; mv sub/.git sub/g; echo x > .envrc; rm -f .envrc; mv -T a .envrc; echo x > .vscode/tasks.json
git status -s; git log --oneline; git diff --stat
"""


@pytest.mark.slow
def test_what_decides_what_runs_is_not_changed(kind: str, root: Path) -> None:
    repository(root)
    (root / "sub").mkdir()
    repository(root / "sub")
    (root / ".envrc").write_text("export A=1\n")
    (root / ".vscode").mkdir()
    (root / ".vscode/tasks.json").write_text("{}\n")
    before = {name: content(root / name) for name in (".git", "sub/.git", ".vscode")}
    done = run(root, WRITES)
    assert {name: content(root / name) for name in before} == before
    assert (root / ".envrc").read_text() == "export A=1\n"
    assert done.set_aside == ()
    assert " one\n" in done.output.decode(), "git log still works"
    failed = run(root, "git -c user.name=x -c user.email=y commit --allow-empty -qm two")
    assert failed.status
    assert ".git decides what runs here, so a command may not write it" in "".join(failed.notes)
    assert "runs it in a terminal" in "".join(failed.notes)
    assert run(root, "false").notes == [], "what has nothing to do with it is not told of it"


@pytest.mark.slow
def test_a_folder_that_is_moved_and_made_again_is_found_out(kind: str, root: Path) -> None:
    (root / "sub").mkdir()
    repository(root / "sub")
    config = (root / "sub/.git/config").read_text()
    done = run(root, "mv sub gone; mkdir -p sub/.git && echo evil > sub/.git/config; true")
    places = [folder / ".git/config" for folder in (root / "sub", root / "gone")]
    assert [place.read_text() for place in places if place.exists()] == [config], "it is nowhere but where it was, or was moved"
    assert done.set_aside == (("sub/.git",) if "namespaces" in kind else ())


NEW = [".git", ".GIT", ".Git.", "git~1", ".envrc", ".sprig", ".venv", "venv", ".husky", ".vscode", "deep/er/.git", "x/.envrc",
       ".config/autostart", "home/.local/bin", ".bashrc", ".pre-commit-config.yaml", ".ssh", ".hg", ".idea"]  # fmt: skip


@pytest.mark.slow
def test_what_decides_what_runs_and_is_new_gets_another_name(kind: str, root: Path) -> None:
    script = f"""
    for f in {" ".join(f"'{name}'" for name in NEW)}; do mkdir -p "$(dirname "$f")"; echo evil > "$f"; done
    ln -s a .mise.toml; git init -q d; git init -q --bare bare
    mkdir -p own/refs own/objects; echo ref: x > own/HEAD; echo fine > .config/fine; true
    """
    done = run(root, script)
    assert done.status == 0, done.output
    assert all(".set-aside" in path for path in protected.find(str(root)))
    assert set(done.set_aside) <= {*NEW, ".mise.toml", "d/.git", "bare/", "own/"}
    assert len(done.set_aside) == 20
    assert (root / ".config/fine").read_text() == "fine\n"
    assert (root / ".envrc.set-aside").read_text() == "evil\n", "nothing is lost"
    assert subprocess.run(["git", "-C", root / "own", "status"], capture_output=True, check=False).returncode
    assert ".envrc decides what runs here, so a command may not make or replace it: it is now called .envrc.set-aside" in "".join(
        done.notes
    )
    again = run(root, "echo evil > .envrc; ls > /dev/null")
    assert again.set_aside == (".envrc",)
    assert (root / ".envrc.set-aside-2").exists()


def test_where_git_is_told_to_look_is_protected_too(kind: str, root: Path) -> None:
    repository(root)
    subprocess.run(["git", "init", "-q", "--separate-git-dir", root / "meta", "."], cwd=root, check=True, capture_output=True)
    (root / "meta/config").open("a").write("[core]\n\thooksPath = tools/hooks\n[include]\n\tpath = ../shared.ini\n")
    (root / "tools/hooks").mkdir(parents=True)
    (root / "shared.ini").write_text("")
    (root / "link").mkdir()
    (root / ".venv").symlink_to("link")
    (root / "beside").mkdir()
    run(root, "for f in meta/config tools/hooks/pre-commit shared.ini link/python beside/f; do echo x > $f; done")
    assert "hooksPath" in (root / "meta/config").read_text()
    assert not list((root / "tools/hooks").iterdir())
    assert (root / "shared.ini").read_text() == ""
    assert not list((root / "link").iterdir())
    assert (root / "beside/f").exists()


def test_all_of_the_file_system_is_no_folder_for_commands() -> None:
    with pytest.raises(process.ProcessError, match="all of the file system"):
        run_command(["true"], Path("/"), Rules(sandbox.system_paths(), ("/",)), seconds=30)


def test_a_missing_folder_is_said(root: Path) -> None:
    if "namespaces" not in HELD:
        pytest.skip("no namespaces here")
    with pytest.raises(process.ProcessError, match="none is not there"):
        run_command(["true"], root, Rules(sandbox.system_paths(), (str(root), str(root / "none"))), seconds=30)


def test_the_folder_itself_becomes_no_repository(kind: str, root: Path) -> None:
    """git takes any folder with these names for one, and runs what its configuration names."""
    run(root, "mkdir objects refs && echo ref: refs/heads/main > HEAD && echo '[core] fsmonitor = touch owned' > config")
    assert not (root / "HEAD").exists()
    assert not (root / "config").exists()
    assert (root / "HEAD.set-aside").exists()


def test_a_repository_in_two_halves_is_found_out(kind: str, root: Path) -> None:
    run(root, "mkdir -p x y/objects y/refs && echo ref: refs/heads/m > x/HEAD && echo ../y > x/commondir")
    assert not (root / "x/HEAD").exists()


def test_modes_hide_nothing(kind: str, root: Path) -> None:
    run(root, "mkdir -p n/.git/hooks && chmod 500 n; mkdir -p m/.venv && chmod 300 m; true")
    for folder, name in (("n", ".git"), ("m", ".venv")):
        (root / folder).chmod(0o700)
        assert not (root / folder / name).exists()


def test_sprigs_own_home_below_the_root_is_kept(kind: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = root / "data" / "mine"
    home.mkdir(parents=True)
    (home / "settings.toml").write_text("model = 'a'\n")
    monkeypatch.setenv("SPRIG_HOME", str(home))
    run(root, "echo '[[rules]]' >> data/mine/settings.toml; true")
    if "namespaces" in kind or "landlock" in kind:
        assert (home / "settings.toml").read_text() == "model = 'a'\n"
    with pytest.raises(RootError, match="decides what runs"):
        Root(root).write("data/mine/settings.toml", b"x")
    with pytest.raises(RootError, match="decides what runs"):
        Root(root).write(".local/share/sprig/settings.toml", b"x")
    Root(root).write("data/other.txt", b"x")
