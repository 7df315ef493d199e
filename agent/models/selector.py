"""Which GGUFs of a repository are models, and which of them a person means by a quantization or a file's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TypeVar

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE | re.DOTALL)
_PROJECTOR = re.compile(r"(?:^|[-._/])mmproj(?:$|[-._/])", re.IGNORECASE)
_IMATRIX = re.compile(r"(?:^|[-._/])imatrix(?:$|[-._/])", re.IGNORECASE)
_KIND = re.compile(
    r"(?:^|[-._/])((?:UD-)?(?:I?Q|TQ)\d(?:_[A-Z0-9]+)*|B?F16|FP16|F32|FP32|MXFP4(?:_MOE)?)(?=$|[-._/])", re.IGNORECASE
)
T = TypeVar("T")


def is_model(name: str) -> bool:
    """Whether a file of this name may hold a model: a GGUF, but no vision projector and no importance matrix."""
    if not name.lower().endswith(".gguf") or _PROJECTOR.search(name):
        return False
    return not _IMATRIX.search(name) or bool(quantization(name))


def split_part(name: str) -> tuple[str, int, int] | None:
    """Of a model in several files: the name of the whole, the number of this part from 1, and how many there are."""
    found = _PART.fullmatch(name)
    return (f"{found[1]}.gguf", int(found[2]), int(found[3])) if found else None


def is_later_part(name: str) -> bool:
    """Whether a file is the second or a later one of a model in several files, of which the first stands for all."""
    part = split_part(name)
    return part is not None and part[1] != 1


def quantization(name: str) -> str:
    """The quantization that a file's name tells, like "Q4_K_M"; "" where it tells none."""
    found = _KIND.findall(_bare(name))
    return str(found[-1]).upper() if found else ""


def stem(name: str) -> str:
    """A file's own name without folders, without ``.gguf`` and without the number of a part."""
    return _bare(name).rpartition("/")[2]


def select(models: Iterable[T], selector: str, name_of: Callable[[T], str]) -> list[T]:
    """The models that a selector means: the file of this name; else all whose name ends in it, or has it in its middle."""
    models, wanted = list(models), _bare(selector.strip()).lower()
    if not wanted:
        return []
    before = rf"(?:^|[-./{'_' if quantization(wanted) else ''}]){re.escape(wanted)}"  # "K_M" is no word of "Q4_K_M"
    tiers: tuple[Callable[[str], bool], ...] = (
        lambda name: name == wanted,
        lambda name: name.rpartition("/")[2] == wanted,
        lambda name: bool(re.search(f"{before}$", name)) or wanted in name.split("/")[:-1],
        lambda name: bool(re.search(f"{before}[-._/]", name)),
    )
    for fits in tiers:
        if found := [model for model in models if fits(_bare(name_of(model)).lower())]:
            return found
    return []


def _bare(name: str) -> str:
    part = split_part(name)
    name = part[0] if part else name
    return name[:-5] if name.lower().endswith(".gguf") else name
