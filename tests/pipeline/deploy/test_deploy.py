"""`sprig deploy` to a real sshd on loopback: whatever happens on the way, the old model answers, whole."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.deploy.deploy import Deployed, deploy
from pipeline.deploy.device import ConnectionLostError, DeviceError, word
from tests.fixtures.board import Board, Line, unpacked
from tests.fixtures.command import one_line, only_json, sprig
from tests.fixtures.paths import ROOT

OLD = b"GGUF, and the old one at that" * 1000


@pytest.fixture
def old(board: Board, model: Path) -> Path:
    """What the board has under the model's name."""
    board.models.mkdir(parents=True)
    path = board.models / model.name
    path.write_bytes(OLD)
    return path


@pytest.mark.slow
def test_a_model_arrives_and_is_tried_before_it_gets_its_name(board: Board, model: Path, home: Path) -> None:
    board.fake_sprig("Paris.\\u001b[2J")
    done = sprig("deploy", model, "board", home=home)
    assert done.returncode == 0, done.stderr
    assert (board.models / model.name).read_bytes() == model.read_bytes()
    assert board.left() == [model.name], "nothing else is left there"
    assert [p.name for p in board.models.iterdir()] == [model.name]
    for told in (f"board:{board.models / model.name}", "Paris.␛[2J", "reads 80.0, writes 32.0 tokens/s", "SHA-256"):
        assert told in done.stdout
    assert "Trying it on board" in done.stderr
    again = only_json(sprig("deploy", model, "board", "--json", home=home))
    assert (again["sent"], again["replaced"], again["smoke_test"]["writes"]) == (0, False, 32.0)


@pytest.mark.slow
def test_without_sprig_there_it_says_what_was_checked(board: Board, model: Path, home: Path) -> None:
    done = sprig("deploy", model, "board", home=home)
    assert done.returncode == 0, done.stderr
    assert "not tried   board has no Sprig" in done.stdout
    told = only_json(sprig("deploy", model, "board", "--json", home=home))
    assert told["smoke_test"] is None
    assert told["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()


@pytest.mark.slow
def test_the_real_sprig_answers_there(board: Board, model: Path) -> None:
    board.command("sprig", f'PYTHONPATH={ROOT} exec {sys.executable} -m sprig "$@"')
    found = deploy(model, "board")
    assert found.smoke_test is not None
    assert found.smoke_test.writes > 0


# The way there breaks.


def through(line: Line, model: Path) -> Deployed | None:
    """Deploy through a line that may break."""
    with line:
        try:
            return deploy(model, line.host)
        except DeviceError:
            return None


@pytest.mark.slow
def test_cut_at_20_points_the_old_model_answers_and_the_next_run_goes_on(board: Board, model: Path) -> None:
    board.fake_sprig()
    new = model.read_bytes()
    with Line(board.server.port) as line:
        deploy(model, line.host)
    resumed = 0
    for n, point in enumerate(sorted(random.Random(9).sample(range(1, line.passed), 20))):
        models = board.home / str(n) / "models"  # what is left of the run before may still be at work in its own
        models.mkdir(parents=True)
        board.configure(SPRIG_HOME=str(models.parent))
        (models / model.name).write_bytes(OLD)
        found = through(Line(board.server.port, point), model)
        held = (models / model.name).read_bytes()
        if found is not None:
            assert held == new
        else:  # its last word may have got there, and the answer not back
            assert held == OLD or (held == new and point > len(new)), f"cut after {point} of {line.passed} bytes"
        part = models / f".{model.name}.deploy" / model.name
        arrived = part.read_bytes() if part.exists() else b""
        assert new.startswith(arrived)
        if n % 4 == 3:
            again = deploy(model, "board")
            assert (models / model.name).read_bytes() == new
            assert [p.name for p in models.iterdir()] == [model.name]
            assert again.sent <= len(new) - len(arrived)
            resumed += again.sent < len(new)
    assert resumed >= 2


@pytest.mark.slow
def test_a_cut_says_that_the_next_run_goes_on(board: Board, model: Path, home: Path) -> None:
    with Line(board.server.port, 600_000, until=lambda: board.has_some(model.name)) as line:
        done = sprig("deploy", model, line.host, home=home)
    assert f"the connection to {line.host} broke" in done.stderr.splitlines()[-1]
    assert "goes on from where it was" in one_line(done)
    again = sprig("deploy", model, "board", home=home)
    assert "are on board already; going on from there" in again.stderr


@pytest.mark.slow
def test_a_host_that_disappears_is_given_up(board: Board, old: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.deploy.device._UNANSWERED", 2)
    began = time.monotonic()
    with (
        Line(board.server.port, 500_000, silent=True) as line,
        pytest.raises(ConnectionLostError, match="goes on from where it was"),
    ):
        deploy(model, line.host, silence=1)
    assert time.monotonic() - began < 30
    assert old.read_bytes() == OLD


@pytest.mark.slow
def test_ctrl_c_leaves_a_part_for_the_next_run(board: Board, old: Path, model: Path, home: Path) -> None:
    def stop(step: object) -> None:
        if getattr(step, "done", 0) > 900_000:
            deadline = time.monotonic() + 20  # what is on its way is lost, so something must have arrived
            while not board.has_some(model.name) and time.monotonic() < deadline:
                time.sleep(0.01)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match="the same command goes on from there"):
        deploy(model, "board", on_progress=stop)
    assert old.read_bytes() == OLD
    assert deploy(model, "board").sent < model.stat().st_size
    assert board.left() == [model.name]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["a byte", "longer", "another"])
def test_a_part_that_is_not_the_beginning_of_the_file_is_sent_anew(board: Board, old: Path, model: Path, damage: str) -> None:
    part = board.part(model.name)
    part.parent.mkdir()
    new = model.read_bytes()
    part.write_bytes({"a byte": new[:5000] + b"x" + new[5001:90_000], "longer": new + b"x", "another": OLD}[damage])
    said: list[str] = []
    assert deploy(model, "board", say=said.append).sent == len(new)
    assert old.read_bytes() == new
    assert "it is sent anew" in said[0]


@pytest.mark.slow
def test_what_is_damaged_on_the_way_to_the_disk_never_gets_the_name(board: Board, old: Path, model: Path) -> None:
    """The board's cat writes something else than it was given."""
    board.command("cat", "exec sed 's/blk/BLK/'")
    with pytest.raises(DeviceError, match="is not what was sent, and was removed"):
        deploy(model, "board")
    assert old.read_bytes() == OLD
    assert board.left() == [model.name]


# The device cannot take it.


@pytest.mark.slow
@pytest.mark.parametrize("known", [True, False], ids=["known before", "full on the way"])
def test_a_full_disk_is_one_line(board: Board, model: Path, known: bool) -> None:
    disk = board.server.disk
    if not disk.is_dir():
        pytest.skip("only root may mount a small disk")
    board.configure(SPRIG_HOME=str(board.server.folder / "disk"))
    (disk / "models").mkdir(exist_ok=True)
    old = disk / "models" / model.name
    old.write_bytes(OLD)
    if not known:
        board.command("df", "exit 1")
    with pytest.raises(DeviceError, match=r"no room on board: .*(are missing, .* free at|No space left)"):
        deploy(model, "board")
    assert old.read_bytes() == OLD


@pytest.mark.slow
def test_a_limit_on_files_is_one_line(board: Board, old: Path, model: Path) -> None:
    board.configure(first="ulimit -f 600")
    with pytest.raises(DeviceError, match=r"no room on board: File (size limit exceeded|too large); make some there"):
        deploy(model, "board")
    assert old.read_bytes() == OLD


@pytest.mark.slow
def test_a_model_that_fails_its_test_is_removed_and_the_old_one_stays(board: Board, old: Path, model: Path, home: Path) -> None:
    board.command("sprig", """echo '{"error": {"kind": "EngineError", "message": "it needs 3 GB\\u001b of memory"}}'; exit 1""")
    done = sprig("deploy", model, "board", home=home)
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "did not pass its test on board and was removed there; nothing else was changed: it needs 3 GB␛ of memory" in last
    assert old.read_bytes() == OLD
    assert board.left() == [model.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("exit 0", "its sprig command gave no answer"),
        ("echo No such option: --settings >&2; exit 2", "gave no answer: No such option: --settings"),
        ("yes | head -c 3000000", "the answer of board was too late or too long"),
        ("""echo '{"text": "", "usage": {"generated_tokens": NaN}}'""", "it wrote nothing"),
        ("echo '[1]'; echo '{'; echo '{}'", "it gave no answer"),
    ],
)  # fmt: skip
def test_a_sprig_there_that_says_nonsense_is_no_test(board: Board, old: Path, model: Path, script: str, why: str) -> None:
    board.command("sprig", script)
    with pytest.raises(DeviceError, match=why):
        deploy(model, "board")
    assert old.read_bytes() == OLD


TOOLBOX = ("sh", "cat", "ls", "mkdir", "mv", "printf", "rm", "rmdir", "sleep")


@pytest.mark.slow
def test_a_test_without_end_is_ended(board: Board, old: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board.command("sprig", f"echo $$ >{board.home}/pid; exec sleep 60")
    monkeypatch.setattr("pipeline.deploy.deploy._TEST_SECONDS", 1)
    with pytest.raises(ConnectionLostError, match="the answer of board was too late"):
        deploy(model, "board")
    assert gone(int((board.home / "pid").read_text()))
    assert old.read_bytes() == OLD


def gone(process: int) -> bool:
    """Whether a process ends soon."""
    end = time.monotonic() + 20
    while Path(f"/proc/{process}").exists() and time.monotonic() < end:
        time.sleep(0.05)
    return not Path(f"/proc/{process}").exists()


@pytest.mark.slow
def test_a_device_without_sha256sum_is_told_of(board: Board, model: Path) -> None:
    board.configure(path=str(toolbox(board, {tool: str(shutil.which(tool)) for tool in TOOLBOX})))
    with pytest.raises(DeviceError, match="board has no sha256sum command"):
        deploy(model, "board")


@pytest.mark.slow
@pytest.mark.parametrize(("box", "shell"), [("busybox", "busybox"), ("toybox", "mksh")])
def test_what_small_devices_have_is_enough(board: Board, old: Path, model: Path, box: str, shell: str) -> None:
    """busybox is all that many boards have; Android's own are toybox and mksh."""
    programs = {name: unpacked(name) for name in (box, shell)}
    if None in programs.values():
        pytest.skip(f"no {box} or no {shell} on this machine")
    board.fake_sprig()
    tools = dict.fromkeys((*TOOLBOX, "sha256sum", "df", "uname", "id", "sync"), str(programs[box])) | {"sh": str(programs[shell])}
    board.configure(path=str(toolbox(board, tools | {"head": str(shutil.which("head"))})))
    broken = Line(board.server.port, 700_000, until=lambda: board.has_some(model.name))
    with broken as line, pytest.raises(ConnectionLostError):
        deploy(model, line.host)
    found = deploy(model, "board")
    assert found.sent < found.size
    assert found.smoke_test is not None
    assert old.read_bytes() == model.read_bytes()
    assert board.left() == [model.name]
    lock = board.part(model.name).parent / "lock"
    lock.mkdir(parents=True)
    deploy(model, "board", stale=1)
    assert [p.name for p in board.models.iterdir()] == [model.name]


def toolbox(board: Board, tools: dict[str, str]) -> Path:
    """A folder with these commands and no other."""
    folder = board.home / "tools"
    folder.mkdir()
    for name, program in tools.items():
        (folder / name).symlink_to(program)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("home", ["relative", "/proc/nowhere"])
def test_an_odd_sprig_home_is_one_line(board: Board, model: Path, home: str) -> None:
    board.configure(SPRIG_HOME=home)
    with pytest.raises(DeviceError, match=r"must be an absolute path|cannot take models: .*/proc/nowhere"):
        deploy(model, "board")


# The connection is refused.


def test_a_wrong_key_and_a_refused_port_and_no_such_host_are_one_line_each(
    board: Board, model: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    line = one_line(sprig("deploy", model, f"ssh://127.0.0.1:{port}", home=home))
    assert "Connection refused; does `ssh ssh://127.0.0.1" in line
    key = board.server.folder / "key.pub"
    known = key.read_text()
    try:
        key.write_text((board.server.folder / "host.pub").read_text())
        line = one_line(sprig("deploy", model, "board", home=home))
        assert "ssh does not get to board: " in line
        assert "Permission denied (publickey)" in line
    finally:
        key.write_text(known)
    assert "is no host" in one_line(sprig("deploy", model, "--", "-oProxyCommand=touch x", home=home))
    monkeypatch.setenv("PATH", str(home))
    assert "there is no ssh command on this machine" in one_line(sprig("deploy", model, "board", home=home))


# Two at once.


@pytest.mark.slow
def test_of_two_deployments_at_once_the_second_says_so(board: Board, old: Path, model: Path) -> None:
    board.fake_sprig(before=f"until [ -e {board.home}/go ]; do sleep 0.02; done")
    found: list[Deployed] = []
    first = threading.Thread(target=lambda: found.append(deploy(model, "board")))
    first.start()
    while not (board.part(model.name).parent / "lock" / "settings.toml").exists():
        time.sleep(0.02)
    with pytest.raises(DeviceError, match=r"another run is sending new\.gguf to board at this moment"):
        deploy(model, "board")
    (board.home / "go").touch()
    first.join()
    assert old.read_bytes() == model.read_bytes()
    assert len(found) == 1


@pytest.mark.slow
def test_the_lock_of_a_dead_run_is_taken_over(board: Board, old: Path, model: Path) -> None:
    lock = board.part(model.name).parent / "lock"
    lock.mkdir(parents=True)
    (lock / "beat").touch()
    (lock / "owner").write_text("sprig-of-long-ago\n")
    deploy(model, "board", stale=1)
    assert board.left() == [model.name]


@pytest.mark.slow
def test_a_run_that_lost_its_lock_changes_nothing(board: Board, old: Path, model: Path) -> None:
    board.fake_sprig()
    owner = board.part(model.name).parent / "lock" / "owner"

    def rob(line: str) -> None:
        if line.startswith("Trying"):
            owner.write_text("somebody else\n")

    with pytest.raises(DeviceError, match=r"another run has taken over new\.gguf"):
        deploy(model, "board", say=rob)
    assert old.read_bytes() == OLD
    assert owner.exists(), "the lock is not its own any more"


@pytest.mark.slow
def test_a_killed_run_leaves_neither_lock_nor_process(board: Board, old: Path, model: Path, home: Path) -> None:
    board.command("sprig", f"echo $$ >{board.home}/pid; exec sleep 60")
    command = [sys.executable, "-m", "sprig", "deploy", str(model), "board"]
    with (
        tempfile.TemporaryDirectory() as short,
        subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL, env={**os.environ, "TMPDIR": short}) as run,
    ):
        while not (board.home / "pid").exists() or not (number := (board.home / "pid").read_text().strip()):
            time.sleep(0.05)
        run.send_signal(signal.SIGKILL)
    lock = board.part(model.name).parent / "lock"
    assert gone(int(number))
    end = time.monotonic() + 20
    while lock.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not lock.exists()
    assert old.read_bytes() == OLD


# Names.

NASTY = [
    "with space",
    "it's",
    'say "x"',
    "$(touch x)",
    "`id`;rm -rf *",
    "-rf",
    "ünï 日本",
    "back\\slash\\",
    "a\nb",
    "%s%n!",
    "~",
    "\udcff",
]


@pytest.mark.slow
def test_every_name_arrives(board: Board, model: Path, tmp_path: Path) -> None:
    """Also through the shells that a login may have."""
    names = ["".join(NASTY[:6]), "".join(NASTY[6:]), *NASTY[5:6]]
    for name, shell in zip(names, ["bash", "sh", "sh"], strict=True):
        board.configure(shell=shell, SPRIG_HOME=str(board.home / "it's \\ $HOME"))
        file = tmp_path / f"{name}.gguf"
        shutil.copy(model, file)
        found = deploy(file, "board")
        assert Path(found.path).read_bytes() == model.read_bytes()
        assert Path(found.path).name == file.name
    assert sorted(p.name for p in board.home.iterdir()) == ["it's \\ $HOME"]


@pytest.mark.parametrize("shell", ["sh", "bash", "zsh", "fish", "ksh", "busybox sh"])
def test_a_word_is_one_word_to_every_shell(shell: str) -> None:
    program, *rest = shell.split()
    found = unpacked(program)
    if found is None:
        pytest.skip(f"no {program} on this machine")
    words = [*NASTY, "".join(NASTY), "", "\\'", "'\\''"]
    for text in words:
        said = subprocess.run([found, *rest, "-c", f"printf %s {word(text)}"], capture_output=True, check=True).stdout
        assert said == os.fsencode(text), shell


@pytest.mark.slow
def test_what_a_login_prints_is_not_taken_for_an_answer(board: Board, model: Path, old: Path) -> None:
    board.configure(first="echo 'sprig-0000 home /tmp/elsewhere'; echo ready; echo 'Welcome!'; echo 'and more' >&2")
    assert deploy(model, "board").path == str(old)


@pytest.mark.parametrize("name", [".hidden.gguf", "no-model.gguf"])
def test_what_no_store_can_list_or_no_device_can_load_is_not_sent(board: Board, model: Path, tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(model.read_bytes() if name.startswith(".") else model.read_bytes()[:5000])
    with pytest.raises(SprigError, match=r"begins with a dot|no-model"):
        deploy(file, "board")
    assert not board.models.exists()
