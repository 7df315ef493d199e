"""What a shared library asks of the machine that loads it: processor, C library, other libraries."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.dynamic import DynamicSection
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from agent.errors import SprigError

_MACHINES = {"EM_AARCH64": "aarch64", "EM_X86_64": "x86_64"}


@dataclass(frozen=True, slots=True)
class Needs:
    """Of one library.

    Attributes:
        machine: as ``uname -m`` says it.
        glibc: newest version of the C library whose symbols it uses; (0,) for none.
        libraries: names that it is linked against.
        runpath: where these are looked for.
    """

    machine: str
    glibc: tuple[int, ...]
    libraries: frozenset[str]
    runpath: str


def needs(path: Path) -> Needs:
    """Read a library's dynamic section and version needs (ELF; Linux Standard Base, "Symbol Versioning").

    Raises:
        SprigError: it is no shared library.
    """
    glibc: tuple[int, ...] = (0,)
    libraries: set[str] = set()
    runpath = ""
    try:
        with path.open("rb") as f:
            elf = ELFFile(f)
            machine = _MACHINES.get(elf["e_machine"], elf["e_machine"])
            for section in elf.iter_sections():
                if isinstance(section, DynamicSection):
                    for tag in section.iter_tags():
                        if tag.entry.d_tag == "DT_NEEDED":
                            libraries.add(tag.needed)
                        elif tag.entry.d_tag in ("DT_RUNPATH", "DT_RPATH"):
                            runpath = getattr(tag, tag.entry.d_tag[3:].lower())
                elif isinstance(section, GNUVerNeedSection):
                    names = [version.name for _, versions in section.iter_versions() for version in versions]
                    glibc = max([glibc, *(_version(name) for name in names if name.startswith("GLIBC_") and name[6].isdigit())])
    except (ELFError, OSError) as e:
        raise SprigError(f"{path} is no shared library: {e}") from None
    return Needs(machine, glibc, frozenset(libraries), runpath)


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.removeprefix("GLIBC_").split("."))
