"""What an install needs is gathered for several Pythons; a wheelhouse for another Python or machine is told in one line."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from zipfile import ZipFile

import pytest

from agent.errors import OutputError, SprigError
from install import wheelhouse
from install.library import requirement
from install.sbom import SBOM, parts_list
from install.wheelhouse import PYTHONS, Gathered, gather, locked, platforms, publish, selection
from install.wheels import main
from install.workshop import ROOT, Workshop, cause

NUMPY = "numpy-2.4.6-cp3{0}-cp3{0}-manylinux_2_27_aarch64.manylinux_2_28_aarch64.whl"
OWN = ("sprig_llm-0.1.0-py3-none-any.whl", "llama_cpp_python-0.3.36+sprig-py3-none-manylinux_2_28_aarch64.whl")


class FakeShop(Workshop):
    """A workshop whose pip puts one wheel for the asked Python into the folder, or fails."""

    def __init__(self, folder: Path, without: str = "") -> None:
        super().__init__(folder)
        object.__setattr__(self, "without", without)
        object.__setattr__(self, "asked", [])

    def pip(self, arguments: Sequence[str | Path], log: str, environment: Mapping[str, str] | None = None) -> None:
        self.asked.append(log)
        python = next(str(a).partition("=")[2] for a in arguments if str(a).startswith("--python-version"))
        if re.fullmatch(self.without, python):
            raise SprigError(f"{log}: No matching distribution found for numpy>=1.26")
        folder = Path(arguments[list(arguments).index("-d") + 1])
        folder.mkdir(parents=True)
        (folder / NUMPY.format(python.partition(".")[2])).write_text(python)
        (folder / "textual-8.2-py3-none-any.whl").write_text("textual")


@pytest.fixture
def own(tmp_path: Path) -> list[Path]:
    wheels = [tmp_path / "own" / name for name in OWN]
    wheels[0].parent.mkdir()
    for wheel in wheels:
        name, version = wheel.name.split("-")[:2]
        with ZipFile(wheel, "w") as held:
            told = f"Metadata-Version: 2.4\nName: {name}\nVersion: {version}\nLicense-Expression: Apache-2.0\n"
            held.writestr(f"{name}-{version}.dist-info/METADATA", told)
    return wheels


def test_wheels_of_all_pythons_are_gathered_once(tmp_path: Path, own: list[Path]) -> None:
    shop = FakeShop(tmp_path / "shop")
    gathered = gather(shop, "aarch64", own)
    assert gathered.missing == {}
    assert gathered.wheels.keys() == {NUMPY.format(minor) for minor in (11, 12, 13, 14)} | {
        "textual-8.2-py3-none-any.whl",
        *OWN,
    }
    assert gather(FakeShop(tmp_path / "shop", without=".*"), "aarch64", own) == gathered, "what is there is not fetched again"


def test_a_python_without_all_wheels_is_told_and_the_others_are_served(tmp_path: Path, own: list[Path]) -> None:
    gathered = gather(FakeShop(tmp_path / "shop", without=r"3\.14"), "aarch64", own)
    assert gathered.missing == {"3.14": "fetch-aarch64-3.14: No matching distribution found for numpy>=1.26"}
    assert NUMPY.format(13) in gathered.wheels
    shop = FakeShop(tmp_path / "shop")
    assert gather(shop, "aarch64", own).missing == {}
    assert shop.asked == ["fetch-aarch64-3.14"]


def test_without_a_registry_there_is_no_wheelhouse(tmp_path: Path, own: list[Path]) -> None:
    with pytest.raises(SprigError, match=r"no wheelhouse for aarch64: .*: No matching"):
        gather(FakeShop(tmp_path / "shop", without=".*"), "aarch64", own)


def test_a_wheelhouse_is_replaced_whole_or_not_at_all(tmp_path: Path, own: list[Path]) -> None:
    folder = tmp_path / "dist" / "wheelhouse-aarch64"
    publish(Gathered({wheel.name: wheel for wheel in own}, {}), folder)
    assert {f.name for f in folder.iterdir()} == {*OWN, SBOM}
    with pytest.raises(OutputError, match="cannot be written"):
        publish(Gathered({"first.whl": own[0], "second.whl": tmp_path / "not there"}, {}), folder)
    assert {f.name for f in folder.iterdir()} == {*OWN, SBOM}
    publish(Gathered({"new.whl": own[0]}, {}), folder)
    assert {f.name for f in folder.iterdir()} == {"new.whl", SBOM}
    assert [f.name for f in folder.parent.iterdir()] == ["wheelhouse-aarch64"]


def test_the_list_of_parts_names_every_wheel_with_its_hash(tmp_path: Path, own: list[Path]) -> None:
    wheels = {wheel.name: wheel for wheel in own}
    told = json.loads(parts_list(wheels))
    assert told["bomFormat"] == "CycloneDX"
    parts = {part["bom-ref"]: part for part in told["components"]}
    assert parts.keys() == wheels.keys()
    for name, part in parts.items():
        assert part["hashes"] == [{"alg": "SHA-256", "content": sha256(wheels[name].read_bytes()).hexdigest()}]
        assert part["licenses"] == [{"expression": "Apache-2.0"}]
        assert part["purl"].startswith(f"pkg:pypi/{part['name'].replace('_', '-')}@")
    assert parts_list(wheels) == parts_list(wheels)
    own[0].write_bytes(b"no wheel")
    with pytest.raises(SprigError, match=r"sprig_llm-.*\.whl is no wheel"):
        parts_list(wheels)


def test_a_python_is_given_its_own_lines_of_the_lock() -> None:
    """numpy's newest has no wheel for Python 3.11, and the lock names both; every line has the hashes that pip wants."""
    lines = {python: locked(python, "aarch64").splitlines() for python in PYTHONS}
    numpy = {python: next(line for line in kept if line.startswith("numpy==")).split()[0] for python, kept in lines.items()}
    assert numpy["3.11"] != numpy["3.14"]
    assert all(line.count("==") == 1 and "--hash=sha256:" in line for kept in lines.values() for line in kept)
    assert not [line for line in lines["3.13"] if line.startswith(("colorama", "llama"))], "for Windows, or compiled"


def test_what_pyproject_asks_of_a_device_is_locked() -> None:
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    for python in PYTHONS:
        names = dict(line.split(" ")[0].split("==") for line in locked(python, "aarch64").splitlines())
        names["llama-cpp-python"] = requirement().partition("==")[2]
        for line in (*project["dependencies"], *project["optional-dependencies"]["serve"]):
            wanted = Requirement(line)
            assert names[canonicalize_name(wanted.name)] in wanted.specifier, f"{line}: `make lock`"


def test_only_known_machines_are_built_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["armv7l"]) == 2
    assert capsys.readouterr().err == "make wheels knows ARCH=aarch64 and ARCH=x86_64, not 'armv7l'\n"


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "WARNING: Retrying after NewConnectionError: ...\nERROR: No matching distribution found for x\n",
            "registry cannot be reached",
        ),
        ("ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n", "the disk is full"),
        (
            "ERROR: Could not find a version\nERROR: No matching distribution found for x\n",
            "No matching distribution found for x",
        ),
        ("[1/9] building\nsrc/a.cpp:3:1: error: expected ';'\nninja: build stopped\n", "src/a.cpp:3:1: error: expected ';'"),
        ("", "said nothing"),
    ],
)
def test_the_cause_of_a_failure_is_one_line(log: str, said: str) -> None:
    assert said in cause(log)
    assert "\n" not in cause(log)


def test_a_program_that_fails_names_its_log(tmp_path: Path) -> None:
    shop = Workshop(tmp_path)
    with pytest.raises(SprigError, match=r"try: error: it broke \(all of it: .*/logs/try\.log\)"):
        shop.run(["sh", "-c", "echo begin; echo 'error: it broke'; exit 3"], "try")
    assert (tmp_path / "logs" / "try.log").read_text() == "begin\nerror: it broke\n"
    with pytest.raises(SprigError, match="no-such-program cannot be run"):
        shop.run(["no-such-program"], "none")


def test_no_room_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("install.workshop.free_disk", lambda path: 10**8)
    with pytest.raises(SprigError, match="100 MB are free"):
        _ = Workshop(tmp_path / "shop").python
    assert not (tmp_path / "shop").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_base_install_is_wheels_alone_on_aarch64(tmp_path: Path) -> None:
    """pip is asked, of the registry. llama-cpp-python has no wheel there; `make wheels` makes it."""
    everywhere: set[str] = set()  # lines whose wheel serves every Python: to ask again would read long lists for nothing
    for python in ("3.11", "3.13", "3.14"):
        assert python in PYTHONS
        wanted = {line.partition("==")[0].lower(): line for line in locked(python, "aarch64").splitlines()}
        asked = {name: line for name, line in wanted.items() if line not in everywhere}
        assert "numpy" in asked
        found = wheels_for(python, asked, tmp_path)
        assert found.keys() == asked.keys()
        everywhere |= {asked[name] for name, wheel in found.items() if wheel.endswith("-none-any.whl")}
    assert platforms("aarch64")[0] == "manylinux_2_28_aarch64"
    assert wheelhouse.GLIBC[0] == 28


def wheels_for(python: str, lines: Mapping[str, str], folder: Path) -> dict[str, str]:
    """The wheel that pip would install for each."""
    asked, told = folder / f"{python}.txt", folder / f"{python}.json"
    asked.write_text("\n".join(lines.values()))
    command = [
        *(
            sys.executable,
            "-m",
            "pip",
            "install",
            "--dry-run",
            "--ignore-installed",
            "--ignore-requires-python",
            "--retries",
            "1",
        ),
        *("--target", folder, "--report", told, *selection(python, "aarch64"), "--no-deps", "--require-hashes", "-r", asked),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    if done.returncode and "cannot be reached" in cause(done.stdout + done.stderr):
        pytest.skip("the package registry cannot be reached")
    assert done.returncode == 0, cause(done.stderr)
    found = json.loads(told.read_text())["install"]
    return {one["metadata"]["name"].replace("_", "-").lower(): one["download_info"]["url"] for one in found}
