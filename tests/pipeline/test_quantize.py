"""The one pass, told from the outside: a folder goes in, a whole GGUF comes out, the same bytes each time."""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from safetensors.numpy import save_file

from agent.errors import CheckpointError, OutputError, RecipeError, SprigError, UnsupportedError
from agent.gguf.reader import read_header
from pipeline import Progress, quantize
from pipeline.format.gguf_file import Raw, TensorSpec, Value, lay_out, pack_value, padded
from pipeline.format.imatrix import write_imatrix
from pipeline.preflight import Preflight
from pipeline.quantize import dry_run, working_copy
from pipeline.recipes.names import RECIPES
from pipeline.sources.checkpoint import read_safetensors_header
from tests.fixtures.ggufs import SHAPES, importance, write_bf16
from tests.fixtures.random_llama import SMALL, LlamaShape, write_checkpoint
from tests.fixtures.safetensors_edit import copy_tensor, edit_tensor

FEW_LAYERS = replace(SHAPES[0], layers=3)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_checkpoint(tmp_path_factory.mktemp("hf") / "tiny-llama", SMALL, shards=3)


def test_a_folder_becomes_a_gguf_that_another_reader_understands(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = quantize(str(checkpoint), "Q4_K_M", tmp_path / "out.gguf", on_progress=seen.append)
    reader = GGUFReader(result.path)
    assert {t.name for t in reader.tensors} == set(read_header(result.path).tensors)
    assert reader.fields["general.architecture"].contents() == "llama"
    assert reader.fields["sprig.recipe"].contents() == "Q4_K_M"
    assert reader.fields["general.file_type"].contents() == RECIPES["Q4_K_M"].ftype
    assert result.path.stat().st_size == result.size == result.preflight.size
    assert {p.stage for p in seen} == {"quantize", "check"}
    assert [p.done for p in seen if p.stage == "quantize"] == sorted(p.done for p in seen if p.stage == "quantize")
    assert "Q4_K_M" in result.card.read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.gguf", "out.md"]


@pytest.mark.slow
def test_the_preflight_knows_the_size_to_the_byte_and_writes_nothing(checkpoint: Path, tmp_path: Path) -> None:
    for recipe in ("F32", "Q8_0", "IQ4_XS"):
        plan = dry_run(str(checkpoint), recipe, tmp_path / "out.gguf")
        assert list(tmp_path.iterdir()) == []
        assert quantize(str(checkpoint), recipe, tmp_path / "out.gguf").size == plan.size
        (tmp_path / "out.gguf").unlink()
        (tmp_path / "out.md").unlink()


def test_a_context_cut_to_a_window_is_said_and_may_be_overridden(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mistral"
    shutil.copytree(checkpoint, folder)
    config = json.loads((folder / "config.json").read_text())
    trained = config["max_position_embeddings"]
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mistral", "sliding_window": trained // 2}))

    def context(**more: int) -> tuple[object, list[str]]:
        plan = dry_run(str(folder), "Q8_0", tmp_path / "out.gguf", **more)  # type: ignore[arg-type]
        return plan.model.keys["llama.context_length"], [note for note in plan.notes if "context_length" in note]  # type: ignore[union-attr]

    found, (note,) = context()
    assert found == trained // 2
    assert f"not {trained:,}" in note
    assert "--context-length" in note
    found, (note,) = context(context_length=trained)
    assert found == trained
    assert f"{trained:,} as asked for" in note
    assert context(context_length=64) == (64, [])


def test_a_gguf_may_get_another_context_and_another_template(tmp_path: Path) -> None:
    source = write_bf16(tmp_path / "a.gguf", FEW_LAYERS)
    template = tmp_path / "t.jinja"
    template.write_text("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    keys = quantize(str(source), "Q8_0", tmp_path / "b.gguf", context_length=128, chat_template=template).preflight.model.keys
    assert keys["llama.context_length"] == 128
    assert keys["tokenizer.chat_template"] == template.read_text()


def test_recipes_are_named_as_people_say_them(checkpoint: Path, tmp_path: Path) -> None:
    plan = dry_run(str(checkpoint), "int8", tmp_path / "out.gguf")
    assert isinstance(plan, Preflight)
    assert plan.recipe.name == "Q8_0"
    assert plan.notes[0] == "'int8' was taken as Q8_0"
    assert not any("taken" in note for note in dry_run(str(checkpoint), "q8-0", tmp_path / "out.gguf").notes)  # type: ignore[union-attr]


@pytest.mark.slow
def test_two_runs_and_any_executor_give_the_same_bytes(checkpoint: Path, tmp_path: Path) -> None:
    one = quantize(str(checkpoint), "Q4_K_S", tmp_path / "one.gguf", threads=1).path.read_bytes()
    two = quantize(str(checkpoint), "Q4_K_S", tmp_path / "two.gguf", threads=4).path.read_bytes()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        three = quantize(str(checkpoint), "Q4_K_S", tmp_path / "three.gguf", executor=pool).path.read_bytes()
    assert one == two == three


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["Q4_0", "Q4_K_M"])
def test_a_detour_over_bf16_changes_no_tensor(recipe: str, checkpoint: Path, tmp_path: Path) -> None:
    """Q4_K_M asks how many layers there are, which a checkpoint and a GGUF say in their own ways."""
    direct = quantize(str(checkpoint), recipe, tmp_path / "direct.gguf")
    between = quantize(str(checkpoint), "BF16", tmp_path / "bf16.gguf")
    detour = quantize(str(between.path), recipe, tmp_path / "detour.gguf")
    a, b = GGUFReader(direct.path), GGUFReader(detour.path)
    assert [(t.name, t.tensor_type) for t in a.tensors] == [(t.name, t.tensor_type) for t in b.tensors]
    assert all(np.array_equal(x.data, y.data) for x, y in zip(a.tensors, b.tensors, strict=True))
    assert a.fields["tokenizer.ggml.tokens"].contents() == b.fields["tokenizer.ggml.tokens"].contents()


def test_q8_0_can_be_a_source_and_says_what_that_means(checkpoint: Path, tmp_path: Path) -> None:
    eight = quantize(str(checkpoint), "Q8_0", tmp_path / "eight.gguf")
    four = quantize(str(eight.path), "Q4_0", tmp_path / "four.gguf")
    assert any("Q8_0 already" in note for note in four.notes)
    with pytest.raises(UnsupportedError, match="already quantized"):
        quantize(str(four.path), "Q4_0", tmp_path / "again.gguf")


def test_a_duplicate_head_is_dropped_when_it_is_one_and_kept_when_it_is_not(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    kept = dry_run(str(folder), "Q8_0", tmp_path / "x.gguf")
    assert kept.model.tied_head is None
    assert "output.weight" in kept.choices
    assert any("differs" in note for note in kept.notes)
    copy_tensor(folder / "model.safetensors", "model.embed_tokens.weight", "lm_head.weight")
    result = quantize(str(folder), "Q8_0", tmp_path / "x.gguf")
    assert result.preflight.model.tied_head is not None
    assert "output.weight" not in read_header(result.path).tensors
    assert result.size < kept.size


def test_narrow_rows_are_named_before_the_work_and_a_better_choice_with_them(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", LlamaShape(288, 416, 2, 6, 2, 320))
    plan = dry_run(str(folder), "Q4_K_M", tmp_path / "x.gguf")
    note = next(n for n in plan.notes if "fall back" in n)
    assert "Q5_0" in note
    assert "288/416" in note
    assert "Q4_0" in note
    assert not any("fall back" in n for n in dry_run(str(folder), "Q4_0", tmp_path / "x.gguf").notes)


@pytest.mark.slow
def test_an_imatrix_is_used_and_recorded_and_one_of_another_model_refused(tmp_path: Path) -> None:
    shape = FEW_LAYERS
    source = write_bf16(tmp_path / "bf16.gguf", shape)
    sums, counts = importance(shape)
    matrix = tmp_path / "imatrix.gguf"
    write_imatrix(matrix, dict(sums), dict(counts), datasets=["wiki.txt"], chunks=3, chunk_size=512)
    result = quantize(str(source), "Q4_K_M", tmp_path / "with.gguf", imatrix=matrix)
    keys = read_header(result.path).keys
    assert keys["quantize.imatrix.dataset"] == "wiki.txt"
    assert keys["quantize.imatrix.entries_count"] == len(sums)
    assert len(keys["sprig.imatrix.sha256"]) == 64
    other = write_bf16(tmp_path / "other.gguf", replace(SHAPES[2], layers=3))
    with pytest.raises(RecipeError, match="another model"):
        quantize(str(other), "Q4_K_M", tmp_path / "no.gguf", imatrix=matrix)
    with pytest.raises(RecipeError, match="not an imatrix"):
        quantize(str(source), "Q4_K_M", tmp_path / "no.gguf", imatrix=source)
    for layers, says in (
        (2, "it has values for block 2, and this one has none there"),
        (4, "it has nothing for block 3 of this one"),
    ):
        longer = write_bf16(tmp_path / "longer.gguf", replace(shape, layers=layers))
        with pytest.raises(RecipeError, match=f"--imatrix: imatrix.gguf was collected on another model: {says}"):
            dry_run(str(longer), "Q4_0", tmp_path / "no.gguf", imatrix=matrix)


@pytest.mark.slow
def test_an_imatrix_of_zeros_makes_no_nan(tmp_path: Path) -> None:
    shape = FEW_LAYERS
    source = write_bf16(tmp_path / "bf16.gguf", shape)
    sums, counts = importance(shape)
    zeros = {n: np.where(np.arange(s.shape[-1]) % 512 < 256, 0, s).astype(np.float32) for n, s in sums.items()}
    write_imatrix(tmp_path / "i.gguf", zeros, dict(counts), datasets=["x"], chunks=1, chunk_size=512)
    for recipe in ("Q4_K_M", "IQ4_XS", "Q4_0", "Q3_K_M"):
        quantize(str(source), recipe, tmp_path / "out.gguf", imatrix=tmp_path / "i.gguf")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"recipe": "Q9_9"}, "'Q9_9' is not a recipe"),
        ({"tensor_types": [("nothing_like_it", "Q8_0")]}, "matches no tensor"),
        ({"tensor_types": [("(", "Q8_0")]}, "not a regular expression"),
        ({"tensor_types": [("ffn", "Q7_Z")]}, "'Q7_Z' is not a type"),
        ({"recipe": "F16", "tensor_types": [("ffn", "Q8_0")]}, "needs a quantized recipe"),
        ({"output_type": "IQ9"}, "--output-type"),
        ({"stream": True}, "--stream"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anything_is_written(
    more: dict[str, object], says: str, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(SprigError, match=says) as caught:
        quantize(str(checkpoint), out=tmp_path / "out.gguf", **more)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_head_and_embedding_take_the_types_they_are_given(checkpoint: Path, tmp_path: Path) -> None:
    result = quantize(str(checkpoint), "Q4_0", tmp_path / "o.gguf", output_type="F16", embedding_type="Q8_0")
    tensors = read_header(result.path).tensors
    assert tensors["output.weight"].type.name == "F16"
    assert tensors["token_embd.weight"].type.name == "Q8_0"
    pure = read_header(quantize(str(checkpoint), "Q4_0", tmp_path / "p.gguf", pure=True).path).tensors
    assert pure["output.weight"].type.name == "Q4_0"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("recipe", ["BF16", "Q4_K_M"])
def test_a_weight_that_is_not_a_number_is_found_and_named(bad: float, recipe: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    edit_tensor(folder / "model.safetensors", "model.layers.2.mlp.up_proj.weight", 777, bad)
    with pytest.raises(CheckpointError, match=r"blk\.2\.ffn_up\.weight.*NaN or infinite.*column 9"):
        quantize(str(folder), recipe, tmp_path / "out.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_a_weight_too_large_for_f16_says_which_type_holds_it(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    edit_tensor(folder / "model.safetensors", "model.layers.2.mlp.up_proj.weight", 777, 1e6)
    with pytest.raises(OutputError, match=r"blk\.2\.ffn_up\.weight.*does not fit F16.*BF16"):
        quantize(str(folder), "F16", tmp_path / "out.gguf")


@pytest.mark.slow
def test_a_card_never_overwrites_what_somebody_else_wrote(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.md").write_text("my notes on this model")
    first = quantize(str(checkpoint), "Q4_0", tmp_path / "notes.gguf")
    assert first.card.name == "notes.gguf.md"
    assert (tmp_path / "notes.md").read_text() == "my notes on this model"
    other = quantize(str(checkpoint), "Q4_0", tmp_path / "other.gguf")
    again = quantize(str(checkpoint), "Q8_0", tmp_path / "other.gguf")
    assert again.card == other.card
    assert "Q8_0" in again.card.read_text()


@pytest.mark.slow
def test_double_precision_and_mixed_types_are_read(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    reference = GGUFReader(quantize(str(folder), "F32", tmp_path / "a.gguf").path)
    infos = read_safetensors_header(folder / "model.safetensors")
    raw = (folder / "model.safetensors").read_bytes()
    arrays = {}
    for i, (name, info) in enumerate(sorted(infos.items())):
        bf16 = np.frombuffer(raw[info.offset : info.offset + info.nbytes], "<u2").astype(np.uint32) << 16
        kind = (np.float64, np.float32)[i % 2]
        arrays[name] = bf16.view(np.float32).reshape(info.shape).astype(kind)
    save_file(arrays, folder / "model.safetensors")
    mixed = GGUFReader(quantize(str(folder), "F32", tmp_path / "b.gguf").path)
    assert all(np.array_equal(x.data, y.data) for x, y in zip(reference.tensors, mixed.tensors, strict=True))
    quantize(str(folder), "Q4_K_M", tmp_path / "c.gguf")


def test_the_output_cannot_be_the_source(tmp_path: Path) -> None:
    source = write_bf16(tmp_path / "bf16.gguf", FEW_LAYERS)
    before = source.read_bytes()
    with pytest.raises(OutputError, match="is the source itself"):
        quantize(str(source), "Q4_0", source)
    assert source.read_bytes() == before


def test_an_output_is_a_folder_or_a_name_with_or_without_its_end(checkpoint: Path, tmp_path: Path) -> None:
    def out(text: str) -> Path:
        return dry_run(str(checkpoint), "Q8_0", text).out

    assert out(str(tmp_path)) == tmp_path / "tiny-llama-Q8_0.gguf"
    assert out(f"{tmp_path}/new/deep/") == tmp_path / "new" / "deep" / "tiny-llama-Q8_0.gguf"
    assert out(f"{tmp_path}/tiny-v1.5") == tmp_path / "tiny-v1.5.gguf"
    assert out(f"{tmp_path}/new/x.gguf") == tmp_path / "new" / "x.gguf"
    assert list(tmp_path.iterdir()) == []
    assert quantize(str(checkpoint), "Q8_0", f"{tmp_path}/new/deep/").path.is_file()


@pytest.mark.slow
def test_a_source_of_another_alignment_is_laid_out_anew(tmp_path: Path) -> None:
    """general.alignment says how the source lies, not how the output does."""
    bf16 = write_bf16(tmp_path / "bf16.gguf", FEW_LAYERS)
    header = read_header(bf16)
    for filler in range(4):  # whatever multiple of 32 the header's length is
        keys: dict[str, Value] = {
            **{k: Raw(v) for k, v in header.raw_keys.items()},
            "general.alignment": 64, "x.counts": np.array([1, 2], np.int64), "x.filler": "." * 16 * filler,
        }  # fmt: skip
        entries = [TensorSpec(t.name, t.shape, t.type) for t in header.tensors.values()]
        raw, body, table = bf16.read_bytes(), b"", b""
        for entry, old in zip(entries, header.tensors.values(), strict=True):
            dims = entry.shape[::-1]
            table += struct.pack("<Q", len(entry.name)) + entry.name.encode()
            table += struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, entry.type.id, len(body))
            body += raw[old.offset : old.offset + old.nbytes].ljust(padded(old.nbytes, 64), b"\0")
        head = lay_out(keys, []).header
        head = head[:8] + struct.pack("<Q", len(entries)) + head[16:]
        unpadded = sum(8 + len(k) + len(pack_value(v)) for k, v in keys.items()) + 24
        head = head[:unpadded] + table
        source = tmp_path / f"aligned-{filler}.gguf"
        source.write_bytes(head.ljust(padded(len(head), 64), b"\0") + body)
        made = read_header(quantize(str(source), "Q8_0", tmp_path / "out.gguf").path)
        assert made.alignment == 32
        assert list(made.keys["x.counts"]) == [1, 2]


def test_a_pattern_keeps_its_classes_and_ignores_case(checkpoint: Path, tmp_path: Path) -> None:
    plan = dry_run(str(checkpoint), "Q4_0", tmp_path / "o.gguf", tensor_types=[(r"^\D+0\.ATTN_V", "q8_0")])
    assert [name for name, choice in plan.choices.items() if choice.type.name == "Q8_0"] == ["blk.0.attn_v.weight"]


@pytest.mark.parametrize("change", ["touched", "removed"])
def test_a_source_that_changes_meanwhile_publishes_nothing(change: str, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    weights = folder / "model.safetensors"

    def meddle(progress: Progress) -> None:
        if progress.stage == "quantize" and weights.exists():
            os.utime(weights, (1, 1)) if change == "touched" else weights.unlink()

    with pytest.raises(CheckpointError, match="hf was changed while it was read"):
        quantize(str(folder), "Q4_0", tmp_path / "out.gguf", on_progress=meddle)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hf"]


def test_names_that_are_no_utf_8_are_names_too(tmp_path: Path) -> None:
    odd = write_checkpoint(tmp_path / os.fsdecode(b"m\xff"), SMALL)
    result = quantize(str(odd), "Q4_0", tmp_path / os.fsdecode(b"x\xff.gguf"))
    assert result.card.exists()
    assert sorted(os.fsencode(p.name) for p in tmp_path.iterdir()) == [b"m\xff", b"x\xff.gguf", b"x\xff.md"]


def test_a_name_alone_gives_no_model_phi_3s_tokenizer(tmp_path: Path) -> None:
    """llama.cpp strips space behind Phi-3's special tokens by general.name, and does not load a model that lacks them."""
    folder = write_checkpoint(tmp_path / "Not-Phi3-nor-phi-3.5", SMALL)
    made = quantize(str(folder), "Q4_0", tmp_path / "out.gguf")
    assert read_header(made.path).keys["general.name"] == "Not-Phi 3-nor-phi 3.5"


@pytest.mark.slow
def test_a_copy_to_compute_with_has_the_first_type_that_has_room(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = [dry_run(str(checkpoint), kind, tmp_path / "copy.gguf") for kind in ("F32", "F16")]
    f32, f16 = (plan.size for plan in plans if isinstance(plan, Preflight))

    def kind(kinds: tuple[str, ...] = ("F32", "F16"), most: float = math.inf) -> str:
        options = {"threads": 1, "gate": None, "pure": True}
        path = working_copy(str(checkpoint), tmp_path / "copy.gguf", options, kinds=kinds, most=most)
        return read_header(path).tensors["output.weight"].type.name

    assert kind() == "F32"
    assert kind(most=f32 - 1) == "F16"
    assert kind(("F32", "F16", "Q8_0"), f16 - 1) == "Q8_0"
    monkeypatch.setitem(working_copy.__globals__, "available_memory", lambda: 3 * f32)
    assert kind() == "F16"
