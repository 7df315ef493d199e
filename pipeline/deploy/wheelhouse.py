"""Which wheels of a folder a device can install, by what their names tell (PyPA, "Platform compatibility tags")."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.text import display

NEEDED = ("sprig_llm", "llama_cpp_python")
_LEAST = 11  # Python 3.11
_OLD_NAMES = {"manylinux1": (2, 5), "manylinux2010": (2, 12), "manylinux2014": (2, 17)}


@dataclass(frozen=True, slots=True)
class DevicePython:
    """A CPython 3 on a device.

    Attributes:
        minor: of its version.
        machine: "aarch64".
        glibc: its version; (0, 0) where there is none, as on Alpine.
    """

    minor: int
    machine: str
    glibc: tuple[int, int]


def chosen_wheels(folder: Path, target: DevicePython) -> list[Path]:
    """The wheels of a folder that fit a device, at least one of each project.

    Raises:
        SprigError: the folder is no wheelhouse of Sprig, or is one for another machine or another Python.
    """
    if target.minor < _LEAST:
        raise SprigError(f"Sprig needs Python 3.{_LEAST} or newer, not 3.{target.minor}")
    if not folder.is_dir():
        raise SprigError(
            f"there is no wheelhouse {display(str(folder))}: `make wheels` makes dist/wheelhouse-{display(target.machine)}"
        )
    projects: dict[str, list[Path]] = {}
    for wheel in sorted(folder.glob("*.whl")):
        projects.setdefault(wheel.name.partition("-")[0], []).append(wheel)
    if lost := [name for name in NEEDED if name not in projects]:
        raise SprigError(f"{display(str(folder))} is no wheelhouse of Sprig: it has no wheel of {lost[0]}")
    fitting = {name: [w for w in wheels if _fits(w.name, target)] for name, wheels in projects.items()}
    unfit = [name for name, wheels in fitting.items() if not wheels]
    if not unfit:
        return [wheel for wheels in fitting.values() for wheel in wheels]
    tags = [_tags(w.name) for name in unfit for w in projects[name]]
    machines = {re.sub(r"^(manylinux_\d+_\d+|[a-z0-9]+)_", "", place) for _, _, places in tags for place in places}
    where = f"Python 3.{target.minor} on {display(target.machine)}"
    if target.machine not in machines:
        raise SprigError(f"{display(str(folder))} is for {', '.join(sorted(machines))}, not for {where}")
    pythons = sorted({int(n) for pythons, _, _ in tags for python in pythons for n in re.findall(r"^cp3(\d+)$", python)})
    if target.minor not in pythons and pythons:
        known = ", ".join(f"3.{n}" for n in pythons)
        raise SprigError(f"{display(str(folder))} is for Python {known}, not for {where}: {unfit[0]} would not fit")
    glibc = ".".join(map(str, target.glibc)) if any(target.glibc) else "none"
    raise SprigError(f"{unfit[0]} of {display(str(folder))} needs a newer glibc than there is ({glibc})")


def _tags(wheel: str) -> list[list[str]]:
    """The Pythons, ABIs and platforms of a wheel's name."""
    return [part.split(".") for part in wheel.removesuffix(".whl").rsplit("-", 3)[-3:]]


def _fits(wheel: str, target: DevicePython) -> bool:
    if wheel.count("-") < 4:
        return False
    pythons, abis, places = _tags(wheel)
    return any(_python_fits(p, abis, target.minor) for p in pythons) and any(_place_fits(p, target) for p in places)


def _python_fits(python: str, abis: list[str], minor: int) -> bool:
    if python == "py3":
        return "none" in abis
    found = re.fullmatch(r"cp3(\d+)", python)
    if found is None:
        return False
    exact = int(found[1]) == minor and bool({f"cp3{minor}", "none"} & {*abis})
    return exact or (int(found[1]) <= minor and "abi3" in abis)


def _place_fits(place: str, target: DevicePython) -> bool:
    if place == "any":
        return True
    for least in _least_glibc(place, target.machine):
        return target.glibc >= least
    return False


def _least_glibc(place: str, machine: str) -> Iterator[tuple[int, int]]:
    prefix = place.removesuffix(f"_{machine}")
    if prefix == place:
        return
    if prefix == "linux":  # built on such a machine
        yield 0, 0
    elif prefix in _OLD_NAMES:
        yield _OLD_NAMES[prefix]
    elif found := re.fullmatch(r"manylinux_(\d+)_(\d+)", prefix):
        yield int(found[1]), int(found[2])
