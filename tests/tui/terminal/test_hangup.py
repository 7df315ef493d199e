"""A terminal is taken away without a word: the chat ends, with what was said, and leaves no process that spins."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agent.sessions.store import Store
from tests.fixtures.paths import ROOT

CHAT = """
import signal, sys, time
from tests.fixtures.fake_engine import FakeEngine, Say
from tui.app import SprigApp
from tui.settings.values import ChatSettings
from tui.talk.setup import Setup
signal.signal(signal.SIGHUP, signal.SIG_IGN)
slow = Say("word " * 4000, during=lambda said: time.sleep(0.02))
app = SprigApp(ChatSettings(), Setup(model="fake"), message="Talk", make_engine=lambda setup: FakeEngine([slow]))
app.run(inline=sys.argv[1] == "inline")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["whole", "inline"])
def test_the_chat_ends_with_its_terminal(tmp_path: Path, how: str) -> None:
    master, slave = pty.openpty()
    env = {**os.environ, "SPRIG_HOME": str(tmp_path), "TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    # In a session without a controlling terminal: no SIGHUP comes.
    child = subprocess.Popen(
        [sys.executable, "-c", CHAT, how], stdin=slave, stdout=slave, stderr=slave, env=env, cwd=ROOT, start_new_session=True
    )
    os.close(slave)
    try:
        seen, end = b"", time.monotonic() + 60
        while b"word word" not in seen:
            assert time.monotonic() < end, seen[-500:]
            if select.select([master], [], [], 0.2)[0]:
                seen += os.read(master, 65536)
            if how == "inline" and b"\x1b[6n" in seen:  # it asks where the cursor is
                os.write(master, b"\x1b[1;1R")
                seen = seen.replace(b"\x1b[6n", b"")
        os.close(master)
        assert child.wait(30) == 129
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    with Store(tmp_path / "sessions.db") as store:
        latest = store.latest()
        assert latest is not None
        said = latest.messages()
    assert said[0].message.text == "Talk"
    assert said[1].message.text.startswith("word word")
    assert said[1].state == "partial"
