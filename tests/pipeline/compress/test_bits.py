"""Bits per byte on the very same bytes: pieces do not depend on a vocabulary, and llama.cpp's answer is that of its logits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SprigError
from pipeline.compress.bits import bits_command, bits_per_byte, cut_pieces
from pipeline.forward.process import ForwardProcess
from pipeline.quantize import quantize
from tests.fixtures.random_llama import LlamaShape, write_checkpoint

TEXT = "Some words stand in this line, and then a few more of them. " * 30


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bits")
    write_checkpoint(folder / "tiny", LlamaShape(64, 128, 1, 2, 1, 300))
    return quantize(str(folder / "tiny"), "F32", folder / "tiny.gguf", threads=1).path


@given(st.text(min_size=40, max_size=400), st.integers(64, 300), st.integers(1, 9))
def test_pieces_are_stretches_of_the_text(text: str, nbytes: int, count: int) -> None:
    text = text.encode("utf-8", "ignore").decode() + "x" * 64
    for piece in cut_pieces({"en": text}, nbytes, count):
        whole = piece.context + piece.scored
        assert whole in text
        assert len(whole.encode()) <= nbytes
        assert piece.scored


def test_pieces_are_shared_among_the_domains() -> None:
    found = cut_pieces({"en": TEXT, "de": TEXT}, 200, 6)
    assert [piece.domain for piece in found] == ["en"] * 3 + ["de"] * 3
    assert all(piece.scored.startswith(" ") for piece in found), "divided before a space, where every tokenizer divides"
    with pytest.raises(SprigError, match="the text en is too short to judge by: it has 4 bytes"):
        cut_pieces({"en": "four"}, 200, 6)


@pytest.mark.slow
def test_the_bits_are_those_of_the_logits(gguf: Path) -> None:
    (piece,) = cut_pieces({"en": TEXT}, 100, 1)
    (found,) = bits_per_byte(gguf, [piece], threads=1)
    with ForwardProcess(gguf, n_ctx=200, n_outputs=200, threads=1) as process:
        front = [process.bos] if process.add_bos else []
        before, after = [*front, *process.tokenize(piece.context)], process.tokenize(piece.scored)
        logits = np.array(process.logits([*before, *after], len(before) - 1), np.float64)[: len(after)]
    logs = logits - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True)) - logits.max(1, keepdims=True)
    bits = -logs[np.arange(len(after)), after].sum() / np.log(2)
    assert found == {"domain": "en", "bytes": len(piece.scored.encode()), "bits": pytest.approx(bits / found["bytes"], rel=1e-5)}


@pytest.mark.slow
def test_the_stage_reads_the_texts_that_it_is_given(gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text(TEXT)
    line = [str(gguf), f"--text={tmp_path / 'own.txt'}", "--windows=2", "--context=32", "--threads=1"]
    found = bits_command(line)["per_piece"]
    assert [one["domain"] for one in found] == ["own.txt"] * 2
    with pytest.raises(SprigError, match="was trained for 512 tokens"):
        bits_command([*line[:2], "--windows=1", "--context=512", "--threads=1"])
