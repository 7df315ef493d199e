"""Which wheels of a folder a device can install, by what their names tell (PyPA, "Platform compatibility tags")."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from packaging.tags import Tag, compatible_tags, cpython_tags
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from agent.errors import SprigError
from agent.text import display

NEEDED = ("sprig_llm", "llama_cpp_python")
_LEAST = 11  # Python 3.11
_OLD_NAMES = {"manylinux1": 5, "manylinux2010": 12, "manylinux2014": 17}  # which glibc 2 they need


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
        if _tags(wheel.name):
            projects.setdefault(wheel.name.partition("-")[0], []).append(wheel)
    if lost := [name for name in NEEDED if name not in projects]:
        raise SprigError(f"{display(str(folder))} is no wheelhouse of Sprig: it has no wheel of {lost[0]}")
    taken = _taken_by(target)
    fitting = {name: [w for w in wheels if taken & _tags(w.name)] for name, wheels in projects.items()}
    unfit = [name for name, wheels in fitting.items() if not wheels]
    if not unfit:
        return [wheel for wheels in fitting.values() for wheel in wheels]
    tags = {tag for name in unfit for w in projects[name] for tag in _tags(w.name)}
    machines = {re.sub(r"^(manylinux_\d+_\d+|[a-z0-9]+)_", "", tag.platform) for tag in tags}
    where = f"Python 3.{target.minor} on {display(target.machine)}"
    if target.machine not in machines:
        raise SprigError(f"{display(str(folder))} is for {', '.join(sorted(machines))}, not for {where}")
    pythons = sorted({int(tag.interpreter.removeprefix("cp3")) for tag in tags if re.fullmatch(r"cp3\d+", tag.interpreter)})
    if target.minor not in pythons and pythons:
        known = ", ".join(f"3.{n}" for n in pythons)
        raise SprigError(f"{display(str(folder))} is for Python {known}, not for {where}: {unfit[0]} would not fit")
    glibc = ".".join(map(str, target.glibc)) if any(target.glibc) else "none"
    raise SprigError(f"{unfit[0]} of {display(str(folder))} needs a newer glibc than there is ({glibc})")


def _tags(wheel: str) -> frozenset[Tag]:
    """What a wheel's name says it runs on; nothing when it is no name of a wheel."""
    try:
        return parse_wheel_filename(wheel)[3]
    except InvalidWheelFilename:
        return frozenset()


def _taken_by(target: DevicePython) -> frozenset[Tag]:
    """What pip takes on a device."""
    newest = target.glibc[1] if target.glibc[0] == 2 else 0
    kinds = ["linux", *(f"manylinux_2_{n}" for n in range(5, newest + 1)), *(old for old, n in _OLD_NAMES.items() if n <= newest)]
    places, version = [f"{kind}_{target.machine}" for kind in kinds], (3, target.minor)
    own = cpython_tags(version, [f"cp3{target.minor}"], places)
    return frozenset([*own, *compatible_tags(version, f"cp3{target.minor}", places)])
