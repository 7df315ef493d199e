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
from tests.fixtures.trespass import held

pytestmark = pytest.mark.usefixtures("started")
HELD = process.report()

TRIED = """
import ctypes, os, sys
from pathlib import Path
from agent.children.computing import confine_to
from tests.fixtures.trespass import went_through
model, folder, secret = sys.argv[1:]
print(confine_to([model], [folder]))
Path(folder, "kept").write_text("x"); print("kept", Path(model).read_text(), os.listdir(folder))
import email.mime.text, decimal; print("modules", Path("/proc/self/statm").read_text() != "")
print("went through", went_through(model, folder, secret))
print("no new privileges", ctypes.CDLL(None).prctl(39, 0, 0, 0, 0))
"""


@pytest.mark.skipif("landlock+seccomp" not in HELD, reason=f"the kernel confines with {HELD} only")
def test_a_process_with_a_model_reads_that_and_writes_prefixes_and_nothing_else(tmp_path: Path) -> None:
    model, folder, secret = tmp_path / "m" / "model.gguf", tmp_path / "prefix", tmp_path / "s" / "secret"
    for path in (model, secret):
        path.parent.mkdir()
        path.write_text("weights")
    folder.mkdir()
    argv = [sys.executable, "-c", TRIED, *map(str, (model, folder, secret))]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
    said = ["landlock+seccomp", "kept weights ['kept']", "modules True", "went through []", "no new privileges 1"]
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
