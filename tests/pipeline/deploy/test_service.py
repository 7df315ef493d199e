"""`sprig deploy --service`: a unit that is tight, that runs what there is, and that gives way to the old one if it does not.

systemd itself is a stand-in here: no test may start a service of the machine that it runs on.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.deploy import service
from pipeline.deploy.device import Device, DeviceError
from pipeline.deploy.service import unit_text
from tests.fixtures.board import Board
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import only_json, sprig
from tests.fixtures.paths import ROOT

MDWE = """
import ctypes, os, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0): sys.exit(77)
os.execv(sys.argv[1], sys.argv[1:])
"""


@pytest.fixture
def served(board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Board:
    """A board with a sprig command of this Python, and a systemd that remembers what it was told."""
    monkeypatch.setattr(service, "UNIT", str(tmp_path / "sprig.service"))
    monkeypatch.setattr(service, "_START_SECONDS", 2)
    said = '{"text": "Paris.", "usage": {"generated_tokens": 1}}'
    board.command("sprig", "").write_text(f"#!{sys.executable}\nprint({said!r})\n")
    board.command(
        "systemctl",
        f"""
echo "$@" >>{tmp_path}/systemctl
case $1 in
show) echo 0123 ;;
is-active) [ ! -e {tmp_path}/dead ] ;;
esac
""",
    )
    board.command("journalctl", f"cat {tmp_path}/journal")
    (tmp_path / "journal").write_text("Open http://127.0.0.1:8420/?token=x\n")
    return board


def unprivileged(board: Board, sudo: str) -> None:
    board.command("id", "echo 1000")
    board.command("sudo", sudo)


@pytest.mark.slow
@pytest.mark.parametrize("root", [True, False], ids=["root", "sudo"])
def test_the_service_runs_and_the_way_to_it_is_told(served: Board, model: Path, tmp_path: Path, home: Path, root: bool) -> None:
    if not root:
        unprivileged(served, '[ "$1" = -n ] && shift && exec "$@"')
    else:
        served.command("id", "echo 0")
    done = sprig("deploy", model, "board", "--service", home=home)
    assert done.returncode == 0, done.stderr
    assert "ssh -L 8420:127.0.0.1:8420 board" in done.stdout
    assert "Starting the service on board" in done.stderr
    unit = (tmp_path / "sprig.service").read_text()
    assert f"--model {served.models / model.name}\n" in unit
    assert f"ExecStart={sys.executable} -P -m sprig chat --serve --host 127.0.0.1 --port 8420 " in unit
    told = (tmp_path / "systemctl").read_text().splitlines()
    assert told[:3] == ["daemon-reload", "enable -q sprig.service", "restart sprig.service"]
    assert not list(tmp_path.glob("sprig.service.*"))
    assert only_json(sprig("deploy", model, "board", "--service", "--json", home=home))["service"]["running"] is True


@pytest.mark.slow
def test_without_rights_there_a_person_is_told_the_two_commands(served: Board, model: Path, tmp_path: Path, home: Path) -> None:
    unprivileged(served, "echo 'a password is required' >&2; exit 1")
    done = sprig("deploy", model, "board", "--service", home=home)
    assert done.returncode == 0, done.stderr
    place = served.home / ".local/share/sprig/sprig.service"
    for told in ("does not run yet", f"sudo cp {place} ", "sudo systemctl enable --now sprig.service", "\nDynamicUser=yes\n"):
        assert told in done.stdout
    assert place.read_text() in done.stdout
    assert not (tmp_path / "sprig.service").exists()


@pytest.mark.slow
@pytest.mark.parametrize("old", ["[Service]\n", ""])
def test_a_service_that_does_not_run_gives_way_to_the_old_one(served: Board, model: Path, tmp_path: Path, old: str) -> None:
    served.command("id", "echo 0")
    unit = tmp_path / "sprig.service"
    if old:
        unit.write_text(old)
    (tmp_path / "dead").touch()
    (tmp_path / "journal").write_text("sprig: port 8420 is in use\n")
    done = sprig("deploy", model, "board", "--service", home=tmp_path / "home")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "the model is in its place on board, but has no service: service failed on board: sprig: port 8420 is in use" in last
    assert (served.models / model.name).read_bytes() == model.read_bytes()
    assert (unit.read_text() if unit.exists() else "") == old
    told = (tmp_path / "systemctl").read_text().splitlines()
    assert told[-1] == ("restart sprig.service" if old else "daemon-reload")


@pytest.mark.slow
def test_what_can_have_no_service_is_one_line(board: Board, model: Path, tmp_path: Path, home: Path) -> None:
    done = sprig("deploy", model, "board", "--service", home=home)
    assert "a service needs Sprig on board: --install brings it" in done.stderr
    about = '{"python": "/usr/bin/python3", "serve": false, "folders": []}'
    board.command("python", f"""[ "$2" != -c ] || echo '{about}'""")
    board.fake_sprig()
    done = sprig("deploy", model, "board", "--service", home=home)
    assert "/usr/bin/python3 -m pip install textual-serve there" in done.stderr
    board.command("python", "echo nonsense")
    assert "does not say what it is" in sprig("deploy", model, "board", "--service", home=home).stderr
    assert sprig("deploy", model, "--to", tmp_path, "--service", home=home).returncode == 2


@pytest.mark.slow
def test_what_systemd_would_read_as_something_else_is_refused(served: Board) -> None:
    with Device("board", "x.gguf") as device:
        command = str(served.bin / "sprig")
        text = unit_text(device, command, "/home/pi/models/a b ü.gguf")
        assert '--model "/home/pi/models/a b ü.gguf"\n' in text
        assert "BindReadOnlyPaths=/home/pi/models" in text
        for name in ('a".gguf', "a%n.gguf", "$HOME.gguf", "a\\x20.gguf", "a\nb.gguf", "a:b.gguf"):
            with pytest.raises(DeviceError, match="a service cannot have"):
                unit_text(device, command, f"/home/pi/models/{name}")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze on this machine")
def test_systemd_finds_the_unit_sound_and_tight(served: Board, tmp_path: Path) -> None:
    file = tmp_path / "sprig.service"
    with Device("board", "x.gguf") as device:
        file.write_text(unit_text(device, str(served.bin / "sprig"), "/home/pi/models/x.gguf"))
    verified = subprocess.run(["systemd-analyze", "verify", file], capture_output=True, text=True)
    assert verified.stderr == ""
    rated = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--no-pager", file], capture_output=True, text=True, check=True
    )
    level = re.search(r"exposure level for sprig\.service: ([0-9.]+)", rated.stdout)
    assert level is not None
    assert float(level[1]) <= 1.1


@pytest.mark.slow
def test_the_worker_needs_no_memory_that_is_both_written_and_executed(tmp_path: Path, home: Path) -> None:
    """MemoryDenyWriteExecute in the unit; the kernel's own switch for it is prctl(PR_SET_MDWE), since Linux 6.3."""
    model = chat_model(tmp_path / "tiny.gguf", "chatml")
    command = [
        sys.executable,
        "-P",
        "-m",
        "sprig",
        "ask",
        "hello",
        "-m",
        str(model),
        "--max-tokens",
        "4",
        "--tool",
        "none",
        "--json",
    ]
    done = subprocess.run(
        [sys.executable, "-c", MDWE, *command], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    if done.returncode == 77:
        pytest.skip("this kernel has no PR_SET_MDWE")
    assert '"generated_tokens": ' in done.stdout, done.stderr
