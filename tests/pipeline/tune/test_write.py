"""The tuned copy: whole or not there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import OutputError
from agent.gguf.check import check
from agent.gguf.reader import read_header
from pipeline.tune.write import rewritten
from tests.fixtures.tiny import llama


def test_a_copy_with_other_rows_lies_beside_its_place_while_it_is_looked_at(tmp_path: Path) -> None:
    gguf = llama(tmp_path / "tiny.gguf")
    entry = read_header(gguf).tensors["output_norm.weight"]
    rows = np.linspace(1, 2, entry.nbytes // 4, dtype=np.float32).view(np.uint8).reshape(1, -1)
    before = gguf.read_bytes()
    with rewritten(gguf, tmp_path / "out.gguf", [(entry, rows)]) as part:
        assert part.parent == tmp_path
        check(part, data=True)
        expected = before[: entry.offset] + rows.tobytes() + before[entry.offset + entry.nbytes :]
        assert part.read_bytes() == expected
    assert list(tmp_path.iterdir()) == [gguf], "nobody gave it a name"
    assert gguf.read_bytes() == before


def test_what_llama_cpp_would_not_take_is_not_written(tmp_path: Path) -> None:
    gguf = llama(tmp_path / "tiny.gguf")
    entry = read_header(gguf).tensors["output_norm.weight"]
    nan = np.full(entry.nbytes // 4, np.nan, np.float32).view(np.uint8).reshape(1, -1)
    for rows in (nan, nan[:, :8]):
        with (
            pytest.raises(OutputError, match=r"made output_norm\.weight what llama\.cpp does not take"),
            rewritten(gguf, tmp_path / "out.gguf", [(entry, rows)]),
        ):
            pytest.fail("it was given out")
    assert list(tmp_path.iterdir()) == [gguf]


def test_a_place_that_cannot_be_written_is_told_in_one_line(tmp_path: Path) -> None:
    gguf = llama(tmp_path / "tiny.gguf")
    with (
        pytest.raises(OutputError, match="No such file or directory"),
        rewritten(gguf, tmp_path / "nowhere" / "out.gguf", []),
    ):
        pytest.fail("it was given out")
