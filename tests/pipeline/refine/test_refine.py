"""A rounded file is rounded once more for its own inputs: closer to the original, of the same types, or left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agent.errors import OutputError
from agent.gguf.reader import read_header
from pipeline.calibrate.inputs import Input
from pipeline.evaluate.compare import divergences
from pipeline.evaluate.windows import Window
from pipeline.forward.process import ForwardProcess
from pipeline.quantize import quantize
from pipeline.refine.refine import _parts, refine
from pipeline.refine.sums import SumsOfBoth
from pipeline.refine.target import Corrections
from tests.fixtures.tiny import llama

WINDOWS = [[1, *np.random.default_rng(i).integers(3, 286, 60).tolist()] for i in range(16)]
HELD_OUT = [Window("", (1, *np.random.default_rng(100 + i).integers(3, 286, 60).tolist()), 0) for i in range(4)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model in F32, and rounded to Q4_0."""
    folder = tmp_path_factory.mktemp("refine")
    original = llama(folder / "tiny.gguf")
    return original, quantize(str(original), "Q4_0", folder / "rounded.gguf").path


def sums(inputs: np.ndarray, original: np.ndarray) -> SumsOfBoth:
    return SumsOfBoth(inputs.T @ inputs, (original - inputs).T @ inputs, len(inputs))


def test_a_correction_answers_new_inputs_as_the_original_answered_its_own() -> None:
    rng = np.random.default_rng(0)
    original = rng.standard_normal((3000, 32)).astype(np.float32)
    inputs = (0.8 * original + 0.1 * rng.standard_normal(original.shape)).astype(np.float32)
    weights = rng.standard_normal((8, 32)).astype(np.float32)
    found = Corrections([sums(inputs[:1000], original[:1000]), sums(inputs[1000:2000], original[1000:2000])]).of(weights)
    unseen, wanted = inputs[2000:], original[2000:] @ weights.T
    assert found.length == 1
    assert np.square(unseen @ found.weights.T - wanted).sum() < 0.4 * np.square(unseen @ weights.T - wanted).sum()


def test_a_correction_that_the_other_half_does_not_confirm_is_left_out() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((40, 32)).astype(np.float32)
    noise = inputs + 0.1 * rng.standard_normal(inputs.shape).astype(np.float32)
    weights = rng.standard_normal((8, 32)).astype(np.float32)
    found = Corrections([sums(inputs[:20], noise[:20]), sums(inputs[20:], noise[20:])]).of(weights)
    assert found.length == 0
    assert found.weights is weights


def test_both_files_are_measured_on_the_same_tokens(files: tuple[Path, Path], tmp_path: Path) -> None:
    original, rounded = files
    with ForwardProcess(rounded, "pipeline.refine.child", n_ctx=64, threads=1, repack=False, original=str(original)) as process:
        inputs = [Input.from_dict(one) for one in process.ask("scout", ids=WINDOWS[0][:32])["inputs"]]
        first, down = inputs[0], next(one for one in inputs if "ffn_down" in one.name)
        places = [tmp_path / "0.npz", tmp_path / "1.npz"]
        process.ask("begin", inputs=[first.to_dict(), down.to_dict()], files=[str(place) for place in places])
        process.ask("window", ids=WINDOWS[0])
        process.ask("window", ids=WINDOWS[1])
        process.ask("keep")
    early, late = (SumsOfBoth.load(place, one.columns) for place, one in zip(places, (first, down), strict=True))
    assert early.tokens == late.tokens == 2 * len(WINDOWS[0])
    assert np.abs(late.cross).max() > 1e-3 * np.abs(late.hessian).max()


def test_where_memory_is_short_there_are_more_groups() -> None:
    inputs = [Input((f"blk.{block}.{name}.weight",), 100, 1, False, False) for block in range(6) for name in ("attn_q", "ffn_up")]
    assert [len(part) for part in _parts(inputs, 2, 1 << 30)] == [6, 6]
    assert [len(part) for part in _parts(inputs, 2, 250_000)] == [4, 4, 4]
    assert _parts([], 4, 1) == []
    with pytest.raises(OutputError, match=r"one layer take 120 kB of memory"):
        _parts(inputs, 2, 100_000)


def test_the_file_comes_closer_to_the_original_with_the_same_types(files: tuple[Path, Path], tmp_path: Path) -> None:
    original, rounded = files
    copy = tmp_path / "a.gguf"
    shutil.copyfile(rounded, copy)
    parts: list[tuple[int, int]] = []
    found = refine(copy, original, WINDOWS, threads=1, on_progress=lambda done, total: parts.append((done, total)))
    before, after = divergences(original, rounded, HELD_OUT, threads=1), divergences(original, copy, HELD_OUT, threads=1)
    assert found.changed
    assert found.note.startswith(f"{len(found.changed)} of {found.tensors} tensors")
    assert after.mean() < before.mean()
    assert parts[-1][0] == parts[-1][1]
    body = min(t.offset for t in read_header(rounded).tensors.values())
    assert copy.read_bytes()[:body] == rounded.read_bytes()[:body]
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


def test_what_lies_on_a_grid_stays_exactly_as_it_is(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, rounded = files
    on_grid = quantize(str(rounded), "F32", tmp_path / "grid.gguf", allow_requantize=True).path
    copy = tmp_path / "a.gguf"
    shutil.copyfile(rounded, copy)
    found = refine(copy, on_grid, WINDOWS[:4], threads=1)
    assert (found.changed, found.tensors) == ((), 0)
    assert copy.read_bytes() == rounded.read_bytes()
