"""`sprig deploy --install`: wheels that fit go over, a venv is made there, and what cannot be is one line."""

from __future__ import annotations

import base64
import hashlib
import json
import sys
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.deploy.deploy import deploy
from pipeline.deploy.device import Device, DeviceError
from pipeline.deploy.install import install
from pipeline.deploy.wheelhouse import DevicePython, chosen_wheels
from tests.fixtures.board import Board
from tests.fixtures.command import one_line, sprig

PI = DevicePython(11, "aarch64", (2, 36))
WHEELS = (
    "sprig_llm-0.1.0-py3-none-any.whl",
    "llama_cpp_python-0.3.36-py3-none-manylinux_2_28_aarch64.whl",
    "numpy-2.4.6-cp311-cp311-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
    "numpy-2.4.6-cp313-cp313-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl",
    "markupsafe-3.0.3-cp311-cp311-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
    "markupsafe-3.0.3-cp313-cp313-manylinux2014_aarch64.manylinux_2_17_aarch64.whl",
    "psutil-7.2.2-cp36-abi3-manylinux2014_aarch64.whl",
)


def house(folder: Path, names: Iterable[str] = WHEELS) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"")
    return folder


def test_of_a_wheelhouse_only_what_fits_is_taken(tmp_path: Path) -> None:
    chosen = {w.name for w in chosen_wheels(house(tmp_path), PI)}
    assert chosen == {name for name in WHEELS if "cp313" not in name}
    house(tmp_path, ["built_here-1-cp311-cp311-linux_aarch64.whl", "odd.whl"])
    assert len(chosen_wheels(tmp_path, PI)) == 6
    (tmp_path / "built_here-1-cp311-cp311-linux_aarch64.whl").unlink()
    assert len(chosen_wheels(tmp_path, DevicePython(13, "aarch64", (2, 41)))) == 5


@pytest.mark.parametrize(
    ("target", "why"),
    [
        (DevicePython(11, "x86_64", (2, 36)), "is for aarch64, not for Python 3.11 on x86_64"),
        (
            DevicePython(12, "aarch64", (2, 36)),
            "is for Python 3.11, 3.13, not for Python 3.12 on aarch64: markupsafe would not fit",
        ),
        (DevicePython(11, "aarch64", (2, 19)), "llama_cpp_python of .* needs a newer glibc than there is .2.19."),
        (DevicePython(11, "aarch64", (0, 0)), "needs a newer glibc than there is .none."),
        (DevicePython(9, "aarch64", (2, 31)), "Sprig needs Python 3.11 or newer, not 3.9"),
    ],
)
def test_a_wheelhouse_for_something_else_is_one_line(tmp_path: Path, target: DevicePython, why: str) -> None:
    with pytest.raises(SprigError, match=why):
        chosen_wheels(house(tmp_path), target)


def test_what_is_no_wheelhouse_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(SprigError, match="has no wheel of llama_cpp_python"):
        chosen_wheels(house(tmp_path, ["sprig_llm-0.1.0-py3-none-any.whl", "odd.whl"]), PI)
    with pytest.raises(SprigError, match=r"there is no wheelhouse .*`make wheels` makes dist/wheelhouse-aarch64"):
        chosen_wheels(tmp_path / "none", PI)


def wheel(folder: Path, name: str, files: dict[str, str], scripts: str = "") -> None:
    """A wheel that pip installs: pure Python, with these files."""
    project, version = name.split("-")[:2]
    info = f"{project}-{version}.dist-info"
    files = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {project.replace('_', '-')}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{scripts}\n",
    }
    record = [
        f"{path},sha256={base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b'=').decode()},{len(text)}"
        for path, text in files.items()
    ]
    with zipfile.ZipFile(folder / name, "w") as archive:
        for path, text in {**files, f"{info}/RECORD": "\n".join([*record, f"{info}/RECORD,,"])}.items():
            archive.writestr(path, text)


def fake_house(folder: Path, answer: str) -> Path:
    """A wheelhouse whose Sprig gives this answer to everything."""
    folder.mkdir(exist_ok=True)
    said = json.dumps({"text": answer, "usage": {"generated_tokens": 1, "decode_seconds": 0.1}})
    code = f"import sys\ndef main():\n  print('sprig 0.1.0' if '--version' in sys.argv else {said!r})"
    wheel(folder, "sprig_llm-0.1.0-py3-none-any.whl", {"sprig_fake.py": code}, "sprig=sprig_fake:main")
    if not (folder / (llama := "llama_cpp_python-0.3.36-py3-none-any.whl")).exists():
        wheel(folder, llama, {"llama_fake.py": ""})
    return folder


@pytest.mark.slow
def test_sprig_is_installed_and_answers_and_the_next_time_nothing_is_sent(
    board: Board, model: Path, tmp_path: Path, home: Path
) -> None:
    board.command("python3", f'exec {sys.executable} "$@"')
    wheels = fake_house(tmp_path / "wheels", "the first")
    done = sprig("deploy", model, "board", "--install", "--wheelhouse", wheels, home=home)
    assert done.returncode == 0, done.stderr
    for told in ("Installing Sprig on board", "sprig 0.1.0 is installed there"):
        assert told in done.stderr
    assert "the first" in done.stdout
    place = board.home / ".local/share/sprig"
    assert (board.home / ".local/bin/sprig").resolve() == (place / "venv/bin/sprig").resolve()
    sent = {w.name: w.stat().st_mtime_ns for w in (place / "wheels").iterdir()}
    fake_house(wheels, "the second")
    done = sprig("deploy", model, "board", "--install", "--wheelhouse", wheels, home=home)
    assert "the second" in done.stdout, "the same version, and yet another wheel"
    now = {w.name: w.stat().st_mtime_ns for w in (place / "wheels").iterdir()}
    assert {name for name in now if now[name] != sent[name]} == {"sprig_llm-0.1.0-py3-none-any.whl"}
    assert deploy(model, "board").smoke_test is not None, "it is found there from now on"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("python", "why"),
    [
        ("", "it has no python3; on Debian and its kin: apt install python3-venv"),
        ("{venv: false}", "its Python has no venv; on Debian and its kin: apt install python3-venv"),
        ("{wide: false}", "its system is a 32-bit one"),
        ("{platform: android}", "Termux takes no wheels of Linux; install/termux.sh installs Sprig on a phone"),
        ("{version: [3, 9]}", "Sprig needs Python 3.11 or newer, not 3.9"),
        ("{machine: riscv64}", "is for aarch64, not for Python 3.13 on riscv64"),
        ("{machine: ../../x}", "its python3 says"),
        ("{libc: [1, 2]}", "needs a newer glibc than there is (none)"),
        ('{version: ["a", {}]}', "its python3 says"),
        ("nonsense", "its python3 says"),
    ],
)
def test_a_device_that_cannot_have_it_is_one_line(
    board: Board, model: Path, tmp_path: Path, home: Path, python: str, why: str
) -> None:
    about = {"version": [3, 13], "wide": True, "platform": "linux", "machine": "aarch64", "libc": ["glibc", "2.41"], "venv": True}
    if python.startswith("{"):
        key, _, value = python.strip("{}").partition(": ")
        about[key] = value if key in ("platform", "machine") else json.loads(value)
    tools = board.home / "tools"
    tools.mkdir()
    for tool in ("sh", "cat", "ls", "mkdir", "mv", "printf", "rm", "rmdir", "sleep", "sha256sum", "echo"):
        (tools / tool).symlink_to(f"/usr/bin/{tool}")
    board.configure(path=str(tools))
    if python:
        board.command("python3", f"echo '{python if python == 'nonsense' else json.dumps(about)}'")
    line = one_line(sprig("deploy", model, "board", "--wheelhouse", house(tmp_path / "wheels"), home=home))
    assert "Sprig cannot be installed on board" in line
    assert why in line
    assert board.left() == []


@pytest.mark.slow
def test_a_venv_that_cannot_be_made_leaves_nothing(board: Board, model: Path, tmp_path: Path) -> None:
    place = board.home / ".local/share/sprig"
    board.command(
        "python3",
        f"""
if [ "$1" = -m ]; then mkdir -p "$3"; echo 'no room for a venv' >&2; exit 1; fi
exec {sys.executable} "$@"
""",
    )
    with Device("board", model.name) as device, pytest.raises(DeviceError, match="install failed on board: no room for a venv"):
        install(device, fake_house(tmp_path / "wheels", "x"))
    assert not (place / "venv").exists()
