"""Whether a wheelhouse is one for this Python and this machine; if not, what is wrong, in one line.

`make setup WHEELHOUSE=FOLDER` asks, before there is anything but a Python: ``python install/check_wheelhouse.py FOLDER``. What a
wheel runs on is in its name (PyPA, "Platform compatibility tags").
"""

from __future__ import annotations

import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path

_OLD = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True)
class Here:
    """A Python 3 on a machine: its minor version, the machine's name, the version of glibc ((0, 0) where there is none)."""

    minor: int
    machine: str
    glibc: tuple[int, int]


def here() -> Here:
    """The Python that runs this."""
    name, version = platform.libc_ver()
    found = re.match(r"(\d+)\.(\d+)", version) if name == "glibc" else None
    return Here(sys.version_info.minor, platform.machine(), (int(found[1]), int(found[2])) if found else (0, 0))


def wrong_with(folder: Path, where: Here) -> str | None:
    """What keeps a Python from installing from the folder, or None."""
    if not folder.is_dir():
        return f"there is no folder {folder}: make wheels makes dist/wheelhouse-{where.machine}"
    projects: dict[str, list[str]] = {}
    for wheel in sorted(folder.glob("*.whl")):
        projects.setdefault(wheel.name.partition("-")[0], []).append(wheel.name)
    if "llama_cpp_python" not in projects:
        return f"{folder} is no wheelhouse of Sprig: it has no wheel of llama-cpp-python"
    places = [place for name in projects["llama_cpp_python"] for place in _tags(name)[2]]
    if not any(place.endswith(f"_{where.machine}") for place in places):
        machine = re.sub(r"manylinux_\d+_\d+_", "", places[0])
        return f"{folder} is for {machine}, this machine is {where.machine}: take dist/wheelhouse-{where.machine}"
    if not any(_place_fits(place, where) for place in places):
        return f"{folder} needs Linux with glibc 2.28 or newer, and this system has {'.'.join(map(str, where.glibc))}"
    if unfit := [project for project, names in projects.items() if not any(_fits(name, where) for name in names)]:
        tagged = {int(minor) for project in unfit for name in projects[project] for minor in re.findall(r"-cp3(\d+)-", name)}
        pythons = ", ".join(f"3.{minor}" for minor in sorted(tagged))
        return f"{folder} is for Python {pythons}, this is 3.{where.minor}: its {', '.join(unfit)} cannot be installed here"
    return None


def _tags(wheel: str) -> list[list[str]]:
    """Pythons, ABIs and platforms that the name of a wheel tells."""
    return [part.split(".") for part in wheel.removesuffix(".whl").rsplit("-", 3)[1:]]


def _fits(wheel: str, where: Here) -> bool:
    pythons, abis, places = _tags(wheel)
    return any(_python_fits(python, abis, where.minor) for python in pythons) and any(_place_fits(p, where) for p in places)


def _python_fits(python: str, abis: list[str], minor: int) -> bool:
    if python == "py3":
        return "none" in abis
    if not (found := re.fullmatch(r"cp3(\d+)", python)):
        return False
    return (int(found[1]) == minor and bool({f"cp3{minor}", "none"} & {*abis})) or (int(found[1]) <= minor and "abi3" in abis)


def _place_fits(place: str, where: Here) -> bool:
    if place == "any":
        return True
    found = re.fullmatch(rf"(manylinux_(\d+)_(\d+)|{'|'.join(_OLD)})_{re.escape(where.machine)}", place)
    return found is not None and where.glibc >= ((int(found[2]), int(found[3])) if found[2] else _OLD[found[1]])


if __name__ == "__main__":
    if wrong := wrong_with(Path(sys.argv[1]), here()):
        raise SystemExit(f"WHEELHOUSE: {wrong}")
