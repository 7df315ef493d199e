"""The header is gguf's own, and what the agent knows of ggml's types without gguf is what gguf knows."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import pytest

from agent.gguf.reader import read_header
from agent.gguf.types import TYPES_BY_ID, TYPES_BY_NAME
from pipeline.format.gguf_file import Raw, TensorSpec, Value, lay_out, padded
from pipeline.recipes.names import RECIPES


def test_the_agents_table_of_types_is_that_of_gguf() -> None:
    ours = {kind.id: (kind.name, kind.block, kind.nbytes) for kind in TYPES_BY_ID.values()}
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in gguf.GGML_QUANT_SIZES.items()}
    # gguf has 40 bytes for a block of Q8_1, ggml 36 since its two scales are halves; no file holds that type.
    assert {i: kind for i, kind in theirs.items() if kind[0] != "Q8_1"}.items() <= ours.items()


def test_a_header_is_what_gguf_writes_with_its_own_means(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "theirs.gguf", "llama")
    writer.add_name("Größe 7 ▁")
    writer.add_block_count(3)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_add_bos_token(False)
    writer.add_token_list(["<s>", "▁a", "€"])
    writer.add_token_scores([0.0, -1.5, -2.25])
    writer.add_token_types([3, 1, 1])
    writer.add_sliding_window_pattern([True, False, True])
    writer.add_uint64("x.wide", 2**40)
    writer.add_key_value("x.negative", -4, gguf.GGUFValueType.INT32)
    shapes = {"a.weight": (3, 2, 256), "b": (5,), "c": ()}
    for name, shape in shapes.items():
        writer.add_tensor_info(name, shape, np.dtype(np.float32), 4 * int(np.prod(shape)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    theirs = (tmp_path / "theirs.gguf").read_bytes()
    keys: dict[str, Value] = {
        "general.architecture": "llama", "general.name": "Größe 7 ▁", "llama.block_count": 3,
        "llama.attention.layer_norm_rms_epsilon": 1e-5, "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.tokens": ["<s>", "▁a", "€"], "tokenizer.ggml.scores": [0.0, -1.5, -2.25],
        "tokenizer.ggml.token_type": [3, 1, 1], "llama.attention.sliding_window_pattern": [True, False, True],
        "x.wide": np.uint64(2**40), "x.negative": -4,
    }  # fmt: skip
    layout = lay_out(keys, [TensorSpec(name, shape, TYPES_BY_NAME["F32"]) for name, shape in shapes.items()])
    assert layout.header == theirs.ljust(padded(len(theirs)), b"\0")
    assert layout.offsets[0] == len(layout.header)
    assert layout.size == layout.offsets[-1] + 32


def test_what_stood_in_another_file_is_taken_over_byte_for_byte(tmp_path: Path) -> None:
    """An empty array has no type that could be seen, and a text need not be UTF-8."""
    odd: dict[str, Value] = {
        "general.architecture": "llama", "x.empty": np.zeros(0, np.int16), "x.bytes": b"\xff\xfe", "x.surrogate": "\udcff",
        "x.none": "", "x.list": [b"\xff", "a"],
    }  # fmt: skip
    (tmp_path / "a.gguf").write_bytes(lay_out(odd, []).header)
    read = read_header(tmp_path / "a.gguf")
    again = lay_out({key: Raw(raw) for key, raw in read.raw_keys.items()}, []).header
    assert again == (tmp_path / "a.gguf").read_bytes()
    assert read.types["x.empty"] == "arr[i16]"
    assert read.keys["x.none"] == ""


@pytest.mark.parametrize("value", [[], [1, "a"], [True, 1]])
def test_what_gguf_cannot_hold_is_a_type_error(value: Value) -> None:
    with pytest.raises(TypeError):
        lay_out({"x": value}, [])


def test_every_recipe_has_a_file_type() -> None:
    names = {recipe: gguf.LlamaFileType(RECIPES[recipe].ftype).name for recipe in RECIPES}
    assert names == {recipe: "ALL_F32" if recipe == "F32" else f"MOSTLY_{recipe}" for recipe in RECIPES}
