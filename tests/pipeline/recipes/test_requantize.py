"""A GGUF that is quantized already may be a source when it is asked for, and becomes what llama-quantize makes of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.errors import UnsupportedError
from pipeline import quantize
from pipeline.quantize import dry_run
from pipeline.recipes.names import RECIPES
from tests.fixtures.ggufs import SHAPES, write_bf16
from tests.fixtures.llama_quantize import llama_quantize
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.fixtures.shared import shared
from tests.pipeline.recipes.test_same_bytes import ROWS, assert_same, sprig_quantize

SOURCES = ("Q4_0", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q5_K_M")


@pytest.fixture(scope="module")
def sources() -> Path:
    """llama.cpp's own files, one a recipe."""

    def make(folder: Path) -> None:
        plain = write_bf16(folder / "plain.gguf", replace(SHAPES[0], rows=ROWS))
        for name in SOURCES:
            llama_quantize(plain, folder / f"{name}.gguf", RECIPES[name].ftype, None)

    return shared("requantize", make)


@pytest.mark.parametrize("recipe", ["Q4_0", "Q8_0", pytest.param("Q4_K_M", marks=pytest.mark.slow), "F16"])
@pytest.mark.parametrize("source", ["Q4_0", "Q4_K_M", *(pytest.param(s, marks=pytest.mark.slow) for s in SOURCES[2:])])
def test_types_and_data_are_those_of_llama_quantize(source: str, recipe: str, sources: Path, tmp_path: Path) -> None:
    llama_quantize(sources / f"{source}.gguf", tmp_path / "theirs.gguf", RECIPES[recipe].ftype, None)
    sprig_quantize(sources / f"{source}.gguf", tmp_path / "ours.gguf", recipe, None, allow_requantize=True)
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")


def test_without_the_option_it_is_refused_and_the_option_named(sources: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"already quantized.*Q6_K.*--allow-requantize"):
        dry_run(str(sources / "Q4_K_M.gguf"), "Q4_0", tmp_path / "out.gguf")


def test_what_it_costs_is_said(sources: Path, tmp_path: Path) -> None:
    def note(source: str, recipe: str) -> str:
        plan = dry_run(str(sources / f"{source}.gguf"), recipe, tmp_path / "out.gguf", allow_requantize=True)
        return " ".join(plan.notes)

    assert "the source is Q4_K, Q6_K" in note("Q4_K_M", "Q4_0")
    assert "this rounding loses more on top of it" in note("Q4_K_M", "Q4_0")
    assert "stays lost" in note("Q4_0", "F16")
    assert "on top" not in note("Q4_0", "F16")
    assert note("plain", "Q4_0") == ""


def test_from_end_to_end(tmp_path: Path) -> None:
    four = quantize(str(write_checkpoint(tmp_path / "hf", SMALL)), "Q4_K_M", tmp_path / "four.gguf")
    again = quantize(str(four.path), "Q4_0", tmp_path / "again.gguf", allow_requantize=True)
    assert any("Q4_K" in note for note in again.notes)
    assert "loses more on top of it" in again.card.read_text()
