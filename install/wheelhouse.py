"""A wheelhouse: one folder with every wheel that Sprig needs on a kind of device, for several Pythons.

What is fetched is what install/device.lock names, each file with the hash that stands there.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agent.errors import OutputError, SprigError
from agent.files import atomic_write
from install.sbom import SBOM, parts_list
from install.workshop import ROOT, Workshop, digest

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
LOCK = ROOT / "install" / "device.lock"
GLIBC = range(28, 16, -1)  # 2.28 down to 2.17, the oldest that wheels are made for


@dataclass(frozen=True, slots=True)
class Gathered:
    """The wheels of a wheelhouse by name, and why a Python has not all of them."""

    wheels: dict[str, Path]
    missing: dict[str, str]


def platforms(machine: str) -> list[str]:
    """The platform tags whose wheels run where glibc is 2.28 or newer."""
    return [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]


def locked(python: str, machine: str) -> str:
    """What an install on a device asks for, but llama.cpp: the lines of the lock for one Python, as a file for pip.

    pip judges an environment's marks by the Python that runs it, so they are judged here.
    """
    from packaging.requirements import Requirement

    place = {
        "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux", "platform_system": "Linux",
        "os_name": "posix", "platform_machine": machine, "implementation_name": "cpython", "extra": "",
    }  # fmt: skip
    kept = []
    for entry in LOCK.read_text().replace("\\\n", " ").splitlines():
        line, *hashes = entry.split(" --hash=")
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate(place):
            kept.append(" --hash=".join([f"{wanted.name}{wanted.specifier}", *(h.strip() for h in hashes)]))
    return "\n".join(kept) + "\n"


def selection(python: str, machine: str) -> list[str]:
    """pip's switches for wheels alone, of another Python and machine."""
    abis = [f"--abi={abi}" for abi in (f"cp{python.replace('.', '')}", "abi3", "none")]
    places = [f"--platform={platform}" for platform in platforms(machine)]
    return ["--only-binary=:all:", f"--python-version={python}", "--implementation=cp", *abis, *places]


def own_wheel(shop: Workshop) -> Path:
    """Sprig's wheel, built from a copy, so that nothing is left in the checkout and nothing old gets in."""
    copy, out = shop.folder / "sprig", shop.folder / "sprig.wheel"
    for folder in (copy, out):
        shutil.rmtree(folder, ignore_errors=True)
    for package in ("agent", "pipeline", "tui"):
        shutil.copytree(ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("sprig.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy)
    from_tools = ["--no-deps", "--no-index", "--no-build-isolation"]
    shop.pip(["wheel", "-q", *from_tools, "-w", out, copy], "sprig", {"SOURCE_DATE_EPOCH": "315532800"})
    return next(out.glob("*.whl"))


def gather(shop: Workshop, machine: str, own: Sequence[Path]) -> Gathered:
    """Fetch what an install on a device needs, for each Python that has it.

    Args:
        own: Sprig's wheel, and that of llama-cpp-python for this machine; they go in and are not fetched.

    Raises:
        SprigError: no Python has all of it, or the registry cannot be reached.
    """
    with ThreadPoolExecutor() as pool:
        tried = dict(zip(PYTHONS, pool.map(lambda python: _fetch(shop, machine, python), PYTHONS), strict=True))
    missing = {python: found for python, found in tried.items() if isinstance(found, str)}
    if len(missing) == len(PYTHONS):
        raise SprigError(f"no wheelhouse for {machine}: {missing[PYTHONS[0]]}")
    wheels = {wheel.name: wheel for found in tried.values() if isinstance(found, Path) for wheel in found.glob("*.whl")}
    return Gathered({**wheels, **{wheel.name: wheel for wheel in own}}, missing)


def _fetch(shop: Workshop, machine: str, python: str) -> Path | str:
    """The folder with the wheels for one Python, or why it has not all of them. What was fetched before is used again."""
    folder = shop.folder / "fetched" / f"{machine}-{python}"
    stamp = folder / "stamp"
    lines = locked(python, machine)
    mark = digest(lines.encode(), *(line.encode() for line in selection(python, machine)))
    if stamp.exists() and stamp.read_text() == mark:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    wanted = folder.with_name(f"{folder.name}.lock")
    atomic_write(wanted, lines)
    exactly: list[str | Path] = ["--no-deps", "--require-hashes", "-r", wanted]
    try:
        shop.pip(["download", "-q", *selection(python, machine), "-d", folder, *exactly], f"fetch-{machine}-{python}")
    except SprigError as e:
        return str(e)
    atomic_write(stamp, mark)
    return folder


def publish(gathered: Gathered, folder: Path) -> None:
    """Make the folder hold these wheels and their list of parts (sbom.cdx.json), and nothing else. OutputError in one line.

    It is filled beside its place, then renamed.
    """
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        for name, wheel in gathered.wheels.items():
            shutil.copyfile(wheel, part / name)
        (part / SBOM).write_text(parts_list(gathered.wheels))
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"{folder} cannot be written: {e.strerror or e}") from None
