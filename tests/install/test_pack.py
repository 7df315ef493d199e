"""A build tree becomes a wheel that pip installs; a library that a device could not load is refused before that."""

from __future__ import annotations

import base64
import csv
import hashlib
import importlib.util
import os
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

from agent.errors import SprigError
from install.library import requirement
from tests.fixtures.elf import library

pytest.importorskip("elftools", reason="pyelftools is not installed (make setup)")

from install import pack as packing
from install.elf import needs
from install.pack import EDITS, pack

LIBRARIES = {
    "libllama.so": ("libggml.so", "libggml-base.so", "libm.so.6", "libc.so.6"),
    "libggml.so": ("libggml-base.so", "libdl.so.2", "libc.so.6"),
    "libggml-base.so": ("libpthread.so.0", "libc.so.6", "ld-linux-aarch64.so.1"),
    "libggml-cpu-armv8.0_1.so": ("libggml-base.so", "libc.so.6"),
    "libggml-cpu-armv8.6_0.so": ("libggml-base.so", "libc.so.6"),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """What the sdist of llama-cpp-python unpacks to, as far as it is packed."""
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.99\nRequires-Dist: numpy\n\nVersion: not this\n",
        "LICENSE.md": "MIT\n",
        "vendor/llama.cpp/LICENSE": "MIT too\n",
        "llama_cpp/__init__.py": '__version__ = "0.3.99"\n',
        "llama_cpp/py.typed": "",
        "llama_cpp/server/app.py": "",
        "llama_cpp/__pycache__/app.pyc": "",
        **{f"llama_cpp/{name}": f"if True:\n    {old}\n" for name, old, _ in EDITS[:1]},
        **{f"llama_cpp/{name}": f"import ctypes\n{old}\n" for name, old, _ in EDITS[1:]},
    }
    for name, text in files.items():
        (tmp_path / "source" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "source" / name).write_text(text)
    return tmp_path / "source"


def build(folder: Path, machine: str = "aarch64", **changed: bytes) -> Path:
    """The folder that the compiler leaves behind. ``changed`` names a library by its stem, with _ for -."""
    folder.mkdir()
    for name, needed in LIBRARIES.items():
        stem = name.removesuffix(".so").replace("-", "_").replace(".", "_")
        (folder / name).write_bytes(changed.get(stem, library(machine, needed=needed)))
    (folder / "llama-cli").write_bytes(b"not packed")
    return folder


@pytest.mark.slow
def test_pip_installs_what_is_packed(source: Path, tmp_path: Path) -> None:
    machine = os.uname().machine
    packed = pack(source, build(tmp_path / "bin", machine), machine, tmp_path / "out")
    assert packed.path.name == f"llama_cpp_python-0.3.99+sprig-py3-none-manylinux_2_28_{machine}.whl"
    assert packed.variants == ("armv8.0_1", "armv8.6_0")
    assert packed.size == packed.path.stat().st_size
    assert packed.glibc == (2, 17)
    command = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--no-compile",
        "--target",
        tmp_path / "site",
    ]
    subprocess.run([*command, packed.path], check=True, timeout=60)
    found = {str(f.relative_to(tmp_path / "site")) for f in (tmp_path / "site").rglob("*") if f.is_file()}
    assert {f"llama_cpp/lib/{name}" for name in LIBRARIES} <= found
    assert {"llama_cpp/__init__.py", "llama_cpp/py.typed", "llama_cpp/server/app.py"} <= found
    info = (tmp_path / "site/llama_cpp_python-0.3.99+sprig.dist-info/METADATA").read_text()
    assert info.startswith("Metadata-Version: 2.1\nName: llama_cpp_python\nVersion: 0.3.99+sprig\n")
    assert info.endswith("\nVersion: not this\n")


def test_the_record_names_every_file_with_its_digest(source: Path, tmp_path: Path) -> None:
    packed = pack(source, build(tmp_path / "bin"), "aarch64", tmp_path / "out")
    with zipfile.ZipFile(packed.path) as wheel:
        assert wheel.testzip() is None
        names = wheel.namelist()
        rows = {row[0]: row[1:] for row in csv.reader(wheel.read(names[-1]).decode().splitlines())}
        assert rows.keys() == set(names)
        assert rows.pop(names[-1]) == ["", ""]
        for name, (digest, size) in rows.items():
            data = wheel.read(name)
            assert digest == f"sha256={base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b'=').decode()}"
            assert int(size) == len(data)
    assert not [name for name in names if "pycache" in name or "llama-cli" in name]


def test_the_same_input_gives_the_same_bytes(source: Path, tmp_path: Path) -> None:
    first = pack(source, build(tmp_path / "bin"), "aarch64", tmp_path / "first")
    for file in source.rglob("*"):
        os.utime(file, (10**9, 10**9))
    second = pack(source, build(tmp_path / "again"), "aarch64", tmp_path / "second")
    assert first.path.read_bytes() == second.path.read_bytes()


@pytest.mark.parametrize(
    ("machine", "wrong", "said"),
    [
        ("aarch64", {"glibc": "2.34"}, "needs glibc 2.34, the wheel promises 2.28"),
        ("x86_64", {}, "is made for x86_64, not for aarch64"),
        ("riscv64", {}, "is made for EM_RISCV, not for aarch64"),
        ("aarch64", {"needed": ("libc.so.6", "libstdc++.so.6")}, "needs libstdc++.so.6, which a device may not have"),
        ("aarch64", {"needed": ("libggml-base.so",), "runpath": ""}, "looks for its libraries in the system"),
    ],
)
def test_a_library_that_a_device_could_not_load_is_refused(
    machine: str, wrong: dict[str, str], said: str, source: Path, tmp_path: Path
) -> None:
    libraries = build(tmp_path / "bin", libllama=library(machine, **wrong))
    with pytest.raises(SprigError, match=r"libllama\.so") as refused:
        pack(source, libraries, "aarch64", tmp_path / "out")
    assert said in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_what_is_no_library_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(SprigError, match=r"libggml\.so is no shared library"):
        pack(source, build(tmp_path / "bin", libggml=b"#!/bin/sh\n"), "aarch64", tmp_path / "out")
    (tmp_path / "bin" / "libllama.so").unlink()
    with pytest.raises(SprigError, match="not all there"):
        pack(source, tmp_path / "bin", "aarch64", tmp_path / "out")


def test_a_wheel_that_is_too_large_is_not_written(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(packing.LARGEST, "aarch64", 2000)
    with pytest.raises(SprigError, match="2 kB are allowed"):
        pack(source, build(tmp_path / "bin"), "aarch64", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", [name for name, _, _ in EDITS])
def test_another_release_whose_python_files_changed_is_not_edited_blindly(name: str, source: Path, tmp_path: Path) -> None:
    (source / "llama_cpp" / name).write_text("something new\n")
    with pytest.raises(SprigError, match=f"{name} has changed"):
        pack(source, build(tmp_path / "bin"), "aarch64", tmp_path / "out")


def test_the_version_of_the_wheel_is_one_that_sprig_takes() -> None:
    base = version("llama-cpp-python").partition("+")[0]
    assert f"{base}+{packing.TAG}" in SpecifierSet(requirement().removeprefix("llama-cpp-python"))


def test_what_a_real_library_needs_is_read() -> None:
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    found = needs(Path(spec.origin).parent / "lib" / "libllama.so")
    assert found.machine == os.uname().machine
    assert (2, 2) < found.glibc < (3,)
    assert any(name.startswith("libggml") for name in found.libraries)


@pytest.mark.slow
def test_the_packed_package_is_imported_on_android_and_loads_its_backends(tmp_path: Path) -> None:
    """The real package with the edits and its real library, in a Python that calls its platform "android"."""
    spec = importlib.util.find_spec("llama_cpp")
    assert spec is not None
    assert spec.origin is not None
    installed = Path(spec.origin).parent
    package = tmp_path / "llama_cpp"
    package.mkdir()
    edits = {name: (old, new) for name, old, new in EDITS}
    for file in installed.glob("*.py"):
        text = file.read_text()
        old, new = edits.get(file.name, ("", ""))
        if old:
            assert text.count(old) == 1 or new in text, f"{file.name} has changed: change install/pack.py with it"
            text = text if new in text else text.replace(old, new)
        (package / file.name).write_text(text)
    (package / "lib").symlink_to(installed / "lib")
    code = (
        "import sys; sys.platform = 'android'\n"
        "import llama_cpp\n"
        "llama_cpp.Llama\n"
        "lib = llama_cpp.llama_cpp.load_shared_library('ggml', llama_cpp.llama_cpp._base_path)\n"
        "print(llama_cpp.__file__, lib.ggml_backend_reg_count() > 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.split() == [str(package / "__init__.py"), "True"], done.stderr
    assert done.stderr == ""
