"""A rounded file is rounded once more for its own inputs: closer to the original, of the same types, or left as it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from agent.errors import GGUFError, SprigError
from agent.gguf.reader import read_header
from pipeline.evaluate.compare import divergences
from pipeline.evaluate.windows import Window
from pipeline.quantize import quantize
from pipeline.refine.again import RoundingAgain
from pipeline.refine.refine import refine
from pipeline.refine.sums import SumsOfBoth
from pipeline.refine.target import Corrections
from tests.fixtures.tiny import WIDTH, llama

WINDOWS = [[1, *np.random.default_rng(i).integers(3, 286, 60).tolist()] for i in range(16)]
HELD_OUT = [Window("", (1, *np.random.default_rng(100 + i).integers(3, 286, 60).tolist()), 0) for i in range(4)]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny model in F32, and rounded to Q4_0."""
    folder = tmp_path_factory.mktemp("refine")
    original = llama(folder / "tiny.gguf")
    return original, quantize(str(original), "Q4_0", folder / "rounded.gguf").path


@pytest.fixture(scope="module", autouse=True)
def _compiled(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whoever rounds a file again has rounded it before, and so compiled the loops: what the confined child compiles is lost."""
    copy = tmp_path_factory.mktemp("compiled") / "a.gguf"
    rows = np.random.default_rng(0).standard_normal((256, WIDTH), np.float32)
    shutil.copyfile(files[1], copy)
    assert RoundingAgain(copy, files[0], 1).input("q", ["blk.0.attn_q.weight"], rows, rows + 0.1, [128, 128], 1)


def sums(inputs: np.ndarray, original: np.ndarray) -> SumsOfBoth:
    return SumsOfBoth.of(original, inputs)


def test_a_correction_answers_new_inputs_as_the_original_answered_its_own() -> None:
    rng = np.random.default_rng(0)
    original = rng.standard_normal((3000, 32)).astype(np.float32)
    inputs = (0.8 * original + 0.1 * rng.standard_normal(original.shape)).astype(np.float32)
    weights = rng.standard_normal((8, 32)).astype(np.float32)
    found = Corrections([sums(inputs[:1000], original[:1000]), sums(inputs[1000:2000], original[1000:2000])]).of(weights)
    unseen, wanted = inputs[2000:], original[2000:] @ weights.T
    assert found is not None
    assert np.square(unseen @ found.T - wanted).sum() < 0.4 * np.square(unseen @ weights.T - wanted).sum()


def test_a_correction_that_the_other_half_does_not_confirm_is_left_out() -> None:
    rng = np.random.default_rng(1)
    inputs = rng.standard_normal((40, 32)).astype(np.float32)
    noise = inputs + 0.1 * rng.standard_normal(inputs.shape).astype(np.float32)
    weights = rng.standard_normal((8, 32)).astype(np.float32)
    assert Corrections([sums(inputs[:20], noise[:20]), sums(inputs[20:], noise[20:])]).of(weights) is None


@pytest.mark.slow
def test_the_same_text_ends_in_the_same_bytes(files: tuple[Path, Path], tmp_path: Path) -> None:
    original, rounded = files
    once, twice = tmp_path / "once.gguf", tmp_path / "twice.gguf"
    for copy in (once, twice):
        shutil.copyfile(rounded, copy)
        refine(copy, original, WINDOWS, threads=1)
    assert once.read_bytes() == twice.read_bytes()


def test_a_text_of_one_window_is_refused(files: tuple[Path, Path]) -> None:
    with pytest.raises(SprigError, match="two are needed"):
        refine(files[1], files[0], WINDOWS[:1])


def test_a_text_that_llama_cpp_does_not_compute_leaves_the_file_as_it_is(files: tuple[Path, Path], tmp_path: Path) -> None:
    original, rounded = files
    copy = tmp_path / "a.gguf"
    shutil.copyfile(rounded, copy)
    with pytest.raises(GGUFError, match="does not run in llama"):
        refine(copy, original, [WINDOWS[0], [1, 10**6]], threads=1)
    assert copy.read_bytes() == rounded.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.slow
def test_the_file_comes_closer_to_the_original_with_the_same_types(files: tuple[Path, Path], tmp_path: Path) -> None:
    original, rounded = files
    copy = tmp_path / "a.gguf"
    shutil.copyfile(rounded, copy)
    found = refine(copy, original, WINDOWS, threads=1)
    before, after = divergences(original, rounded, HELD_OUT, threads=1), divergences(original, copy, HELD_OUT, threads=1)
    assert found.changed
    assert found.note.startswith(f"{len(found.changed)} of {found.tensors} tensors")
    assert after.mean() < before.mean()
    body = min(t.offset for t in read_header(rounded).tensors.values())
    assert copy.read_bytes()[:body] == rounded.read_bytes()[:body]
    assert [p.name for p in tmp_path.iterdir()] == ["a.gguf"]


@pytest.mark.slow
def test_what_lies_on_a_grid_stays_exactly_as_it_is(files: tuple[Path, Path], tmp_path: Path) -> None:
    _, rounded = files
    on_grid = quantize(str(rounded), "F32", tmp_path / "grid.gguf", allow_requantize=True).path
    copy = tmp_path / "a.gguf"
    shutil.copyfile(rounded, copy)
    found = refine(copy, on_grid, WINDOWS[:4], threads=1)
    assert (found.changed, found.tensors) == ((), 0)
    assert copy.read_bytes() == rounded.read_bytes()
