"""A wheelhouse: one folder with every wheel that Sprig needs on a kind of device, for several Pythons."""

from __future__ import annotations

import contextlib
import shutil
import tomllib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from agent.errors import OutputError, SprigError
from agent.files import atomic_write
from install.workshop import ROOT, Workshop, digest

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
GLIBC = range(28, 16, -1)  # 2.28 down to 2.17, the oldest that wheels are made for


@dataclass(frozen=True, slots=True)
class Gathered:
    """The wheels of a wheelhouse by name, and why a Python has not all of them."""

    wheels: dict[str, Path]
    missing: dict[str, str]


def platforms(machine: str) -> list[str]:
    """The platform tags whose wheels run where glibc is 2.28 or newer."""
    return [f"manylinux_2_{minor}_{machine}" for minor in GLIBC] + [f"manylinux2014_{machine}"]


def dependencies() -> list[str]:
    """What an install on a device asks for: the base, and the chat in a browser."""
    with (ROOT / "pyproject.toml").open("rb") as f:
        project = tomllib.load(f)["project"]
    return [*project["dependencies"], *project["optional-dependencies"]["serve"]]


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
        tried = dict(zip(PYTHONS, pool.map(lambda python: _fetch(shop, machine, python, own), PYTHONS), strict=True))
    missing = {python: found for python, found in tried.items() if isinstance(found, str)}
    if len(missing) == len(PYTHONS):
        raise SprigError(f"no wheelhouse for {machine}: {missing[PYTHONS[0]]}")
    wheels = {wheel.name: wheel for found in tried.values() if isinstance(found, Path) for wheel in found.glob("*.whl")}
    return Gathered({**wheels, **{wheel.name: wheel for wheel in own}}, missing)


def _fetch(shop: Workshop, machine: str, python: str, own: Sequence[Path]) -> Path | str:
    """The folder with the wheels for one Python, or why it has not all of them. What was fetched before is used again."""
    folder = shop.folder / "fetched" / f"{machine}-{python}"
    stamp = folder / "stamp"
    mark = digest(*(line.encode() for line in [*dependencies(), *selection(python, machine)]), *(w.name.encode() for w in own))
    if stamp.exists() and stamp.read_text() == mark:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    links = [f"--find-links={wheel.parent}" for wheel in own]
    wanted = [f"{wheel}[serve]" for wheel in own if wheel.name.startswith("sprig")]
    try:
        shop.pip(["download", "-q", *links, *selection(python, machine), "-d", folder, *wanted], f"fetch-{machine}-{python}")
    except SprigError as e:
        return str(e)
    for wheel in own:
        (folder / wheel.name).unlink(missing_ok=True)  # they change while the rest stays
    atomic_write(stamp, mark)
    return folder


def publish(gathered: Gathered, folder: Path) -> None:
    """Make the folder hold these wheels and nothing else: filled beside its place, then renamed. OutputError in one line."""
    part, old = folder.with_name(f".{folder.name}.part"), folder.with_name(f".{folder.name}.old")
    try:
        for leftover in (part, old):
            shutil.rmtree(leftover, ignore_errors=True)
        part.mkdir(parents=True)
        for name, wheel in gathered.wheels.items():
            shutil.copyfile(wheel, part / name)
        with contextlib.suppress(FileNotFoundError):
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as e:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"{folder} cannot be written: {e.strerror or e}") from None
