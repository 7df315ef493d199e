"""What the processes hold that read a model or render its template: neither has a use for a network, a program or a secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.children import process
from agent.children.launch import plain_environment
from agent.engine.handle import Engine
from agent.templates.process import RenderJob, TemplateProcess
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.paths import ROOT

HELD = process.report()

TRIED = """
import ctypes, os, socket, subprocess, sys
from pathlib import Path
from agent.children.computing import confine_to
model, folder, secret, before = sys.argv[1:]
print(confine_to([model], [folder]))
Path(folder, "kept").write_text("x"); print("kept", Path(model).read_text(), os.listdir(folder))
import email.mime.text, decimal; print("modules", Path("/proc/self/statm").read_text() != "")
libc = ctypes.CDLL(None, use_errno=True)
tried = {
    "read": lambda: open(secret).read(), "list": lambda: os.listdir(os.path.dirname(secret)), "model": lambda: open(model, "a"),
    "beside": lambda: open(model + ".x", "w"), "secret": lambda: open(secret, "a"), "socket": lambda: socket.socket(),
    "unix": lambda: socket.socket(socket.AF_UNIX), "run": lambda: subprocess.run(["true"]),
    "exec": lambda: os.execv("/bin/true", ["t"]), "chmod": lambda: os.chmod(secret, 0o777),
    "utime": lambda: os.utime(model, (1, 1)), "rename": lambda: os.rename(model, model + "y"),
    "unlink": lambda: os.unlink(model), "kill": lambda: os.kill(os.getppid(), 15),
    "link": lambda: os.link(secret, folder + "/l"), "parent": lambda: open(f"/proc/{os.getppid()}/environ").read(),
    "priority": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 9),
}
for name, attempt in tried.items():
    try: attempt(); print("went through:", name)
    except OSError: pass
print("no new privileges", libc.prctl(39, 0, 0, 0, 0))
"""


@pytest.mark.skipif("landlock+seccomp" not in HELD, reason=f"the kernel confines with {HELD} only")
def test_a_process_with_a_model_reads_that_and_writes_prefixes_and_nothing_else(tmp_path: Path) -> None:
    model, folder, secret = tmp_path / "m" / "model.gguf", tmp_path / "prefix", tmp_path / "s" / "secret"
    for path in (model, secret):
        path.parent.mkdir()
        path.write_text("weights")
    folder.mkdir()
    argv = [sys.executable, "-c", TRIED, *map(str, (model, folder, secret, tmp_path))]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    said = ["landlock+seccomp", "kept weights ['kept']", "modules True", "no new privileges 1"]
    assert done.stdout.splitlines() == said, done.stderr


def test_where_the_trying_kills_the_weaker_layer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Android."""
    monkeypatch.setenv("ANDROID_ROOT", "/system")
    code = """
import os
from agent.children import sandbox
from agent.children.rules import FREE, Rules
def kills(rules): os.kill(os.getpid(), 31)
sandbox.landlock = kills
print(sandbox.confine_itself(Rules(limits=FREE)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.stdout in ("seccomp\n", "none\n")


def held(pid: int) -> list[dict[str, str]]:
    """What the kernel says of each thread of a process."""
    threads = []
    for status in Path(f"/proc/{pid}/task").glob("*/status"):
        threads.append(dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line))
    return threads


@pytest.mark.skipif("seccomp" not in HELD, reason=f"the kernel confines with {HELD} only")
def test_the_worker_and_the_template_process_are_held_and_know_no_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "HF_TOKEN",
        "OPENAI_API_KEY",
        "SSH_AUTH_SOCK",
        "AWS_SECRET_ACCESS_KEY",
        "SPRIG_API_TOKEN",
        "DBUS_SESSION_BUS_ADDRESS",
    ):
        monkeypatch.setenv(name, "sprigsecret")
    monkeypatch.setenv("GGML_ANY", "kept")
    assert plain_environment()["GGML_ANY"] == "kept"
    template = TemplateProcess("{{ messages[0].content }}")
    with Engine(chat_model(tmp_path / "m.gguf", "hermes"), context=256) as engine:
        engine.wait()
        assert template.render([RenderJob([{"role": "user", "content": "hi"}])])[0].text == "hi"
        assert template._child is not None
        for pid in (engine._connection.child.pid, template._child.process.pid):
            assert b"sprigsecret" not in Path(f"/proc/{pid}/environ").read_bytes()
            for thread in held(pid):
                assert (thread["Seccomp"], thread["NoNewPrivs"]) == ("2", "1")
                assert int(thread["CapBnd"], 16) == 0 or os.geteuid()
    template.close()
