"""The parts of a split GGUF as one file: the head that goes before their weights, which follow each other unchanged.

Split files carry ``split.no``, ``split.count`` and ``split.tensors.count``; all other keys stand in the first part
(llama.cpp's tools/gguf-split). A part's tensors lie one behind the other, each padded to the alignment, so that the weights of
all parts, put behind one another, are the weights of the whole.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from agent.errors import GGUFError
from agent.gguf.reader import Header

_SPLIT = "split."


def joined_head(parts: Sequence[Header], name: str) -> bytes:
    """The bytes before the weights of all parts, padded to the alignment.

    Args:
        parts: the headers in their order.
        name: of the model, for an error.

    Raises:
        GGUFError: they are not all the parts of one model.
    """
    first = parts[0]
    said = [(_number(part, "split.no"), _number(part, "split.count")) for part in parts]
    tensors = sum(len(part.tensors) for part in parts)
    whole = [(i, len(parts)) for i in range(len(parts))]
    if said != whole or _number(first, "split.tensors.count") not in (tensors, None):
        raise GGUFError(f"{name} is not whole: its {len(parts)} files are not all the parts of one model; take another one")
    keys = {key: raw for key, raw in first.raw_keys.items() if not key.startswith(_SPLIT)}
    head = [b"GGUF", struct.pack("<IQQ", 3, tensors, len(keys))]
    for key, raw in keys.items():
        head += [_string(key), raw]
    base = 0
    for part in parts:
        if part.alignment != first.alignment or base % first.alignment:
            raise GGUFError(f"the parts of {name} do not fit behind one another; take another one")
        for entry in part.tensors.values():
            dims = entry.shape[::-1]
            at = base + entry.offset - part.data_offset
            head += [_string(entry.name), struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, entry.type.id, at)]
        base += max(0, part.file_size - part.data_offset)
    raw_head = b"".join(head)
    return raw_head + bytes(-len(raw_head) % first.alignment)


def _number(header: Header, key: str) -> int | None:
    """A key that holds a number; -1 where it holds something else."""
    value = header.keys.get(key)
    return value if value is None or isinstance(value, int) else -1


def _string(text: str) -> bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw
