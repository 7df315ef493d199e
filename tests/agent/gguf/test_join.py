"""The parts of a split GGUF, put behind one another, are the whole; what are not all its parts is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import GGUFError
from agent.gguf.join import joined_head
from agent.gguf.reader import Header, read_header
from tests.fixtures.tiny import llama_keys, llama_weights, write

KEYS: dict[str, Any] = llama_keys(general__name="oak \udcff", llama__rope__freq_base=10000.0)


def split(folder: Path, counts: list[int], **changes: Any) -> list[Path]:
    """A model whose parts have so many tensors each."""
    weights, paths, begin = llama_weights(), [], 0
    names = list(weights)
    for i, count in enumerate(counts):
        numbers = {
            "split.no": np.uint16(i), "split.count": np.uint16(len(counts)), "split.tensors.count": np.int32(len(names)),
        } | changes  # fmt: skip
        mine = {name: weights[name] for name in names[begin : begin + count]}
        paths.append(write(folder / f"{i}.gguf", (KEYS if i == 0 else {}) | numbers, mine))
        begin += count
    return paths


def joined(paths: list[Path]) -> bytes:
    headers = [read_header(path) for path in paths]
    bodies = [path.read_bytes()[header.data_offset :] for path, header in zip(paths, headers, strict=True)]
    return joined_head(headers, "oak") + b"".join(bodies)


@pytest.mark.parametrize("counts", [[11], [4, 7], [0, 11], [1] * 11, [5, 6, 0]])
def test_joined_parts_are_the_whole(tmp_path: Path, counts: list[int]) -> None:
    whole = write(tmp_path / "whole.gguf", KEYS, llama_weights())
    assert joined(split(tmp_path, counts)) == whole.read_bytes()


def test_what_are_not_all_the_parts_of_one_model_is_refused(tmp_path: Path) -> None:
    first, second, third = (read_header(path) for path in split(tmp_path, [4, 4, 3]))
    for wrong in ([first, second], [first, third, second], [second, third], [first, second, second]):
        with pytest.raises(GGUFError, match="oak is not whole"):
            joined_head(wrong, "oak")


def test_parts_of_another_count_or_alignment_are_refused(tmp_path: Path) -> None:
    headers = [read_header(path) for path in split(tmp_path, [4, 7], **{"split.tensors.count": np.int32(12)})]
    with pytest.raises(GGUFError, match="not whole"):
        joined_head(headers, "oak")
    whole = [read_header(path) for path in split(tmp_path, [4, 7])]
    with pytest.raises(GGUFError, match="do not fit behind one another"):
        joined_head([whole[0], _with(whole[1], alignment=64)], "oak")
    with pytest.raises(GGUFError, match="do not fit behind one another"):
        joined_head([_with(whole[0], file_size=whole[0].file_size + 3), whole[1]], "oak")


def _with(header: Header, **changes: int) -> Header:
    from dataclasses import replace

    return replace(header, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize("odd", [np.zeros(3, np.uint16), "0", ["a", "b"], 0.5])
def test_parts_whose_numbers_are_none_are_refused(tmp_path: Path, odd: Any) -> None:
    for key in ("split.no", "split.count", "split.tensors.count"):
        headers = [read_header(path) for path in split(tmp_path, [4, 7], **{key: odd})]
        with pytest.raises(GGUFError, match="oak is not whole"):
            joined_head(headers, "oak")
