"""What llama-quantize makes of a BF16 GGUF, Sprig makes too, bit for bit, with and without an imatrix."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.errors import RecipeError
from agent.gguf.reader import read_header
from pipeline.format.imatrix import write_imatrix
from pipeline.onepass.journal import Journal
from pipeline.onepass.tensors import write_tensors
from pipeline.quantize import dry_run
from pipeline.recipes.names import RECIPES
from pipeline.sources.checkpoint import MappedCheckpoint
from tests.fixtures.ggufs import SHAPES, Shape, importance, write_bf16
from tests.fixtures.llama_quantize import in_child, llama_quantize, llama_types, quantize_here
from tests.fixtures.shared import shared

ROWS = 8  # of each matrix; what is chosen and computed depends on names, the length of rows and the number of layers


@pytest.fixture(scope="module")
def models() -> dict[str, tuple[Path, Path]]:
    """Shape -> (BF16 GGUF, imatrix)."""

    def make(folder: Path) -> None:
        for i, shape in enumerate(SHAPES):
            write_bf16(folder / f"{i}.gguf", replace(shape, rows=ROWS), seed=i)
            sums, counts = importance(shape)
            matrix = folder / f"{i}.imatrix.gguf"
            write_imatrix(matrix, dict(sums), dict(counts), datasets=["made up"], chunks=1, chunk_size=512)

    folder = shared("same-bytes", make)
    return {shape.name: (folder / f"{i}.gguf", folder / f"{i}.imatrix.gguf") for i, shape in enumerate(SHAPES)}


def sprig_quantize(source: Path, out: Path, recipe: str, matrix: Path | None, **more: object) -> None:
    """The pass alone, without the trial of each file: there are many of them."""
    plan = dry_run(str(source), recipe, out, imatrix=matrix, **more)  # type: ignore[arg-type]
    with out.open("wb+") as f, ThreadPoolExecutor(2) as pool, MappedCheckpoint(source.parent, plan.model.infos) as checkpoint:
        f.truncate(plan.size)
        f.write(plan.layout.header)
        f.flush()
        journal = Journal(out.with_suffix(".journal"), "", f.fileno(), resume=False)
        with closing(journal):
            write_tensors(plan, checkpoint, pool, 2, f.fileno(), journal)


def assert_same(ours: Path, theirs: Path) -> None:
    a, b = read_header(ours), read_header(theirs)
    assert {n: t.type.name for n, t in a.tensors.items()} == {n: t.type.name for n, t in b.tensors.items()}
    assert list(a.tensors) == list(b.tensors)
    x, y = (np.memmap(p, dtype=np.uint8, mode="r") for p in (ours, theirs))
    for name, t in a.tensors.items():
        u = b.tensors[name]
        assert np.array_equal(x[t.offset : t.offset + t.nbytes], y[u.offset : u.offset + u.nbytes]), name
    assert a.keys["general.file_type"] == b.keys["general.file_type"]
    assert ours.stat().st_size - a.data_offset == theirs.stat().st_size - b.data_offset


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_types_are_those_of_llama_quantize(shape: Shape, models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    source, matrix = models[shape.name]
    jobs = [(recipe, used) for recipe in RECIPES for used in (None, matrix)]
    theirs = llama_types(source, [(RECIPES[recipe].ftype, used) for recipe, used in jobs])
    for (recipe, used), (types, refused) in zip(jobs, theirs, strict=True):
        if refused:
            with pytest.raises(RecipeError, match="needs an importance matrix"):
                dry_run(str(source), recipe, tmp_path / "ours.gguf", imatrix=used)
            continue
        plan = dry_run(str(source), recipe, tmp_path / "ours.gguf", imatrix=used)
        ours = {n: c.type.name for n, c in plan.choices.items() if c.type != plan.model.stored[n]}
        assert ours == types, (recipe, used)


# Their kernels make tables for seconds before the first block, those of IQ2_XXS the fewest.
SLOW_TABLES = ("IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS")
NEED_IMATRIX = ("IQ3_XS", "Q2_K_S")
# Which types there are without an imatrix is tested above, so one shape will do.
CASES = [
    (shape, recipe, with_imatrix)
    for shape in SHAPES
    for recipe in RECIPES
    for with_imatrix in (False, True)
    if recipe not in SLOW_TABLES and (with_imatrix or (shape is SHAPES[0] and recipe not in NEED_IMATRIX))
]


@pytest.mark.slow
@pytest.mark.parametrize(("shape", "recipe", "with_imatrix"), CASES, ids=lambda v: getattr(v, "name", None))
def test_types_and_data_are_those_of_llama_quantize(
    shape: Shape, recipe: str, with_imatrix: bool, models: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    source, matrix = models[shape.name]
    used = matrix if with_imatrix else None
    llama_quantize(source, tmp_path / "theirs.gguf", RECIPES[recipe].ftype, used)
    sprig_quantize(source, tmp_path / "ours.gguf", recipe, used)
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")


def both(source: Path, matrix: Path, recipe: str, folder: Path) -> None:
    """Quantize with llama.cpp and with Sprig in one process, which makes each table once."""
    quantize_here(source, folder / "theirs.gguf", RECIPES[recipe].ftype, matrix)
    sprig_quantize(source, folder / "ours.gguf", recipe, matrix)


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SLOW_TABLES[-1:])
def test_two_bits_are_those_of_llama_quantize(recipe: str, models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    source, matrix = models["qwen3moe, eight experts"]
    in_child(both, source, matrix, recipe, tmp_path)
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")


def test_overrides_are_those_of_llama_quantize(models: dict[str, tuple[Path, Path]], tmp_path: Path) -> None:
    source, _ = models[SHAPES[0].name]
    overrides = [("ffn_down", 8), (r"blk\.[0-3]\.attn_k", 30), ("attn_", 14)]
    names = {8: "Q8_0", 30: "BF16", 14: "Q6_K"}
    llama_quantize(source, tmp_path / "theirs.gguf", RECIPES["Q4_K_M"].ftype, None, overrides)
    sprig_quantize(source, tmp_path / "ours.gguf", "Q4_K_M", None, tensor_types=[(p, names[t]) for p, t in overrides])
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")


@pytest.mark.parametrize("recipe", ["Q4_K_M", "Q4_0", pytest.param("IQ4_XS", marks=pytest.mark.slow)])
@pytest.mark.parametrize("shape", SHAPES, ids=lambda s: s.name)
def test_a_pure_file_is_that_of_llama_quantize(
    shape: Shape, recipe: str, models: dict[str, tuple[Path, Path]], tmp_path: Path
) -> None:
    source, _ = models[shape.name]
    llama_quantize(source, tmp_path / "theirs.gguf", RECIPES[recipe].ftype, None, pure=True)
    sprig_quantize(source, tmp_path / "ours.gguf", recipe, None, pure=True)
    assert_same(tmp_path / "ours.gguf", tmp_path / "theirs.gguf")
