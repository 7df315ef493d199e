"""What a shell offers while a command is typed: the protocol of the shells in real processes, and a real bash."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent.cli import completion
from agent.sessions.store import Store
from tests.fixtures.paths import ROOT

HEAVY = "agent.engine.handle", "agent.agent", "pipeline.cli.quantize", "textual", "rich", "numpy", "llama_cpp", "sqlite3"
CHILD = f"""
import sys, sprig
try: sprig.main()
except SystemExit: pass
print(*[name for name in {HEAVY!r} if sys.modules.get(name)], file=sys.stderr)
"""


@pytest.fixture
def full_home(home: Path) -> Path:
    """Two models and a conversation."""
    (home / "models").mkdir(parents=True)
    for name in ("qwen3-0.6b-Q4_0", "smollm2-Q8_0", "odd\x1b[2Jname"):
        (home / "models" / f"{name}.gguf").write_bytes(b"GGUF")
    return home


def offered(line: str, home: Path, shell: str = "bash") -> tuple[list[str], set[str]]:
    """What is offered at the end of a line, and which heavy modules it took."""
    words = {"COMP_WORDS": line, "COMP_CWORD": str(line.count(" ")), "_TYPER_COMPLETE_ARGS": line}
    done = subprocess.run(
        [sys.executable, "-c", CHILD], capture_output=True, text=True, cwd=ROOT, timeout=60,
        env={**os.environ, "SPRIG_HOME": str(home), "_SPRIG_COMPLETE": f"complete_{shell}", **words},
    )  # fmt: skip
    assert "Traceback" not in done.stderr
    return done.stdout.splitlines(), set(done.stderr.split())


@pytest.mark.slow
def test_commands_and_options_are_offered_and_little_is_loaded(full_home: Path) -> None:
    commands, heavy = offered("sprig ", full_home)
    assert {"chat", "ask", "quantize", "models"} <= set(commands)
    assert not heavy
    assert offered("sprig q", full_home)[0] == ["quantize"]
    options, heavy = offered("sprig ask --m", full_home)
    assert options == ["--model", "--mcp", "--memory", "--max-tokens"]
    assert not heavy
    assert "_arguments" in "".join(offered("sprig ask --m", full_home, "zsh")[0])


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("sprig ask -m ", ["qwen3-0.6b-Q4_0", "smollm2-Q8_0", "demo"]),
        ("sprig models remove smo", ["smollm2-Q8_0"]),
        ("sprig quantize org/model -q Q4_K", ["Q4_K_M", "Q4_K_S"]),
    ],
)
def test_names_of_what_is_here_are_offered(line: str, names: list[str], full_home: Path) -> None:
    found, heavy = offered(line, full_home)
    assert sorted(found) == sorted(names)
    assert not heavy & {"agent.engine.handle", "textual", "rich", "llama_cpp"}


def test_sessions_tools_and_devices(full_home: Path) -> None:
    assert completion.session_ids("") == []
    assert not (full_home / "sessions.db").exists(), "nothing is made for it"
    with Store() as store:
        kept = store.create(title="one").id
    assert completion.session_ids(kept[:3]) == [kept]
    assert completion.sessions_to_go_on_with("") == ["last", "new", kept]
    assert completion.tool_names("read_") == ["read_file"]
    assert "pi5" in completion.device_names("pi")
    (full_home / "sessions.db").write_bytes(b"damaged" * 200)
    assert completion.session_ids("") == [], "no error while somebody types"


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
def test_a_real_bash_completes_it(full_home: Path, tmp_path: Path) -> None:
    program = tmp_path / "sprig"
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -m sprig \"$@\"\n")
    program.chmod(0o755)
    lines = """
eval "$(_SPRIG_COMPLETE=source_bash sprig)"
COMP_WORDS=(sprig ask -m q); COMP_CWORD=3
_sprig_completion sprig
printf '%s\\n' "${COMPREPLY[@]}"
"""
    done = subprocess.run(
        ["bash", "--norc", "-c", lines], capture_output=True, text=True, cwd=ROOT, timeout=60,
        env={**os.environ, "SPRIG_HOME": str(full_home), "PATH": f"{tmp_path}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.stdout == "qwen3-0.6b-Q4_0\n", done.stderr
