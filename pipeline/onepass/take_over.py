"""Tensors of another file of the same model that are already as they shall be: they are copied, not quantized again.

A file says what its bytes follow from: the hash of the weights, the importance matrix, the program. Where all that is the same,
a tensor of the same type has the same bytes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np

from agent.errors import GGUFError
from agent.gguf.reader import Header, read_header
from pipeline.onepass.journal import Journal, Slab
from pipeline.onepass.order import units_of
from pipeline.preflight import ENCODER, TUNED, WEIGHTS, Preflight

_SAME = (WEIGHTS, "sprig.version", ENCODER, "sprig.imatrix.sha256")


def take_over(plan: Preflight, part: Path, fd: int, journal: Journal) -> int:
    """Copy what other files beside the output have, and note it in the journal as done.

    Args:
        part: the file under work; it has its header and its size.
        fd: of the same, for writing.

    Returns:
        How many bytes were copied. Files that cannot be read are passed over.
    """
    wanted, copied = read_header(part), 0
    # A tensor that was tuned, or rounded for what the rounded ones before it give, fits its own file alone.
    if WEIGHTS not in wanted.keys or wanted.keys.get(ENCODER) in (TUNED, "gptq"):
        return 0
    done = {slab.offset for slab in journal.done}
    for path, header in _kin(plan.out, wanted):
        data = np.memmap(path, np.uint8, "r")
        for slab, start in _slabs(plan, header):
            raw = data[start : start + slab.length]
            if slab.offset not in done and len(raw) == slab.length:
                os.pwrite(fd, raw.data, slab.offset)
                proved = Slab(slab.offset, slab.length, zlib.crc32(raw.data))
                journal.record(proved)
                journal.done.append(proved)
                done.add(slab.offset)
                copied += slab.length
    return copied


def _kin(out: Path, wanted: Header) -> Iterator[tuple[Path, Header]]:
    """The files beside the output, of the same beginning of a name, whose bytes follow from the same."""
    for path in sorted(out.parent.glob("*.gguf")):
        if not path.name.startswith(out.stem.partition("-budget-")[0]):
            continue
        try:
            header = read_header(path)
        except (GGUFError, OSError):
            continue
        if all(header.keys.get(key) == wanted.keys.get(key) for key in _SAME):
            yield path, header


def _slabs(plan: Preflight, header: Header) -> Iterator[tuple[Slab, int]]:
    """The slabs of all tensors that the other file has in the same type and shape, and where they lie in it."""
    for tensor, entry, offset in zip(plan.tensors, plan.layout.entries, plan.layout.offsets, strict=True):
        other = header.tensors.get(tensor.name)
        if other is None or (other.type, other.shape) != (entry.type, entry.shape):
            continue
        places = [*(unit.offset for unit in units_of(plan, tensor, offset)), offset + entry.nbytes]
        for begin, end in pairwise(places):
            yield Slab(begin, end - begin, 0), other.offset + begin - offset
