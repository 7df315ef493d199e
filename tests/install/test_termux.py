"""The phone's install script, where `uname`, `df`, `pkg`, `python` and `nproc` are stand-ins that note how they were called.

Nothing here runs on Android; that the real library is imported there is tried in test_pack.py, as far as it can be.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.fixtures.paths import ROOT

SCRIPT = ROOT / "install" / "termux.sh"
GEN3 = "processor\t: 0\nFeatures\t: fp asimd evtstrm aes crc32 atomics fphp asimdhp cpuid asimdrdm asimddp i8mm bf16\n"

# Stands for every program: it notes its arguments and the switches for the build. A virtual environment gets a Python like it.
FAKE = """#!/bin/sh
printf '%s %s\\n' "${0##*/}" "$*" | sed "s|$HOME|~|g" >> "$LOG"
case "${0##*/} $*" in
  "uname -o") echo "${FAKE_SYSTEM:-Android}" ;;
  "uname -m") echo "${FAKE_MACHINE:-aarch64}" ;;
  nproc*) echo 8 ;;
  df*) printf 'Filesystem 1024-blocks Used Available\\n/data 1 1 %s\\n' "${FAKE_FREE:-9000000}" ;;
  pkg*) exit "${FAKE_PKG:-0}" ;;
  "python -m venv"*)
    for folder; do :; done
    mkdir -p "$folder/bin"
    cp "$0" "$folder/bin/python"
    ;;
  *find_spec*) [ -e "$HOME/built" ] || exit 1 ;;
  *"--no-binary llama-cpp-python"*)
    echo "CMAKE_ARGS $CMAKE_BUILD_PARALLEL_LEVEL $CMAKE_ARGS" >> "$LOG"
    touch "$HOME/built"
    exit "${FAKE_BUILD:-0}"
    ;;
esac
"""


class FakePhone:
    """A home, and a PATH on which stand-ins come before this machine's own programs."""

    def __init__(self, folder: Path) -> None:
        self.home, self.log, self.wheels = folder / "home", folder / "log", folder / "wheels"
        programs = folder / "bin"
        for path in (self.home, self.wheels, programs):
            path.mkdir()
        for name in ("uname", "nproc", "df", "pkg", "python"):
            (programs / name).write_text(FAKE)
            (programs / name).chmod(0o755)
        (self.wheels / "sprig_llm-0.1.0-py3-none-any.whl").touch()
        (folder / "cpuinfo").write_text(GEN3)
        (folder / "meminfo").write_text("MemTotal:        7700000 kB\n")
        self.programs = programs
        self.environment = {
            "PATH": f"{programs}{os.pathsep}/usr/bin:/bin", "HOME": str(self.home), "LOG": str(self.log),
            "SPRIG_CPUINFO": str(folder / "cpuinfo"), "SPRIG_MEMINFO": str(folder / "meminfo"),
        }  # fmt: skip

    def install(self, *arguments: str | Path, **told: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        return subprocess.run(
            ["sh", SCRIPT, *arguments], env={**self.environment, **told}, capture_output=True, text=True, timeout=30
        )

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()


@pytest.fixture
def phone(tmp_path: Path) -> FakePhone:
    return FakePhone(tmp_path)


def test_a_phone_gets_packages_a_library_built_for_it_and_sprig(phone: FakePhone) -> None:
    done = phone.install(phone.wheels)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.splitlines()[-1] == f"Ready: {phone.home}/sprig/bin/sprig chat"
    calls = [call for call in phone.calls if not call.startswith(("uname", "df", "nproc"))]
    assert calls[0] == "pkg install -y python python-numpy clang cmake ninja libandroid-spawn"
    assert calls[1] == "python -m venv --system-site-packages ~/sprig"
    switches = "-DGGML_OPENMP=OFF -DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH=armv8.2-a+dotprod+fp16+i8mm"
    left_out = phone.home / "sprig" / "only_used.cmake"
    assert f"CMAKE_ARGS 7 {switches} -DCMAKE_PROJECT_llama_cpp_INCLUDE={left_out}" in calls
    assert {*left_out.read_text().splitlines()} == {
        line for line in (ROOT / "install" / "only_used.cmake").read_text().splitlines() if line.startswith("set")
    }
    assert f"python -m pip install -q --find-links {phone.wheels} {phone.wheels}/sprig_llm-0.1.0-py3-none-any.whl" in calls
    assert not [call for call in calls if "pipeline" in call]


def test_it_may_be_run_again_and_builds_nothing_twice(phone: FakePhone) -> None:
    assert phone.install(phone.wheels).returncode == 0
    again = phone.install(phone.wheels)
    assert again.returncode == 0
    assert "Building" not in again.stdout
    assert not [call for call in phone.calls if "venv" in call or "--no-binary" in call]


def test_without_wheels_sprig_comes_from_the_checkout(phone: FakePhone) -> None:
    assert phone.install().returncode == 0
    assert f"python -m pip install -q {ROOT}" in phone.calls


@pytest.mark.parametrize(
    ("features", "arch"),
    [
        ("fp asimd evtstrm aes crc32", "armv8-a"),
        ("fp asimd asimddp", "armv8.2-a+dotprod"),
        ("fp asimd asimdhp asimddp", "armv8.2-a+dotprod+fp16"),
        ("fp asimd asimdhp", "armv8-a"),
    ],
)
def test_the_library_is_built_for_what_the_processor_has(features: str, arch: str, phone: FakePhone) -> None:
    Path(phone.environment["SPRIG_CPUINFO"]).write_text(f"Features\t: {features}\n")
    assert phone.install(phone.wheels).returncode == 0
    assert any(f"-DGGML_CPU_ARM_ARCH={arch} " in call for call in phone.calls)


def test_few_compilers_run_where_memory_is_short(phone: FakePhone) -> None:
    Path(phone.environment["SPRIG_MEMINFO"]).write_text("MemTotal:        2900000 kB\n")
    assert phone.install(phone.wheels).returncode == 0
    assert any(call.startswith("CMAKE_ARGS 2 ") for call in phone.calls)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"FAKE_SYSTEM": "GNU/Linux"}, "this is no Android"),
        ({"FAKE_MACHINE": "armv8l"}, "this phone's system is armv8l; Sprig needs a 64-bit one"),
        ({"FAKE_FREE": "1200000"}, "1171 MB are free"),
        ({"FAKE_PKG": "100"}, "pkg could not install them"),
        ({"FAKE_BUILD": "1"}, "llama.cpp could not be built"),
    ],
)
def test_what_is_missing_is_told_in_one_line(told: dict[str, str], said: str, phone: FakePhone) -> None:
    done = phone.install(phone.wheels, **told)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("termux.sh: ")
    assert said in done.stderr


def test_a_phone_with_too_little_memory_or_without_termux_is_told(phone: FakePhone) -> None:
    Path(phone.environment["SPRIG_MEMINFO"]).write_text("MemTotal:        1500000 kB\n")
    assert "this phone has 1464 MB of memory" in phone.install(phone.wheels).stderr
    (phone.programs / "pkg").unlink()
    done = phone.install(phone.wheels)
    assert done.returncode == 1
    assert "there is no pkg here: install Termux" in done.stderr


def test_a_folder_without_sprigs_wheel_is_refused_before_anything_is_installed(phone: FakePhone, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for folder, said in ((tmp_path / "empty", "has no wheel of Sprig"), (tmp_path / "none", "there is no folder")):
        done = phone.install(folder)
        assert done.returncode == 1
        assert said in done.stderr
        assert not [call for call in phone.calls if call.startswith("pkg")]


def test_the_script_is_what_a_plain_shell_reads() -> None:
    for shell in ("sh", "bash"):
        subprocess.run([shell, "-n", SCRIPT], check=True)
