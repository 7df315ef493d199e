"""A checkpoint that a quantizer has packed reads as the plain floats that it stands for, and becomes the same GGUF."""

from __future__ import annotations

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SourceError, SprigError, UnsupportedError
from agent.gguf.reader import read_header
from pipeline import Progress, quantize
from pipeline.inspect_model import inspect_model
from pipeline.onepass.journal import Journal
from pipeline.onepass.tensors import write_tensors
from pipeline.quantize import dry_run
from pipeline.sources.checkpoint import Checkpoint, TensorInfo
from pipeline.sources.packed.find import find_packing, readable
from pipeline.sources.packed.shared.bits import E4M3, E5M2, look_up, unpack, unpack_words
from pipeline.sources.source import headers, open_checkpoint, open_source
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.packed_forms import FORMS, Floats, Stored, Tensors, e4m3, pack, write_safetensors
from tests.fixtures.random_llama import LlamaShape, config, write_small_files

SHAPE = LlamaShape(64, 96, 2, 4, 2, 320)
ODD = (96, 160)  # rows and columns of a weight that is read by slabs


def plain_weights() -> dict[str, Floats]:
    rng = np.random.default_rng(5)
    return {name: rng.normal(0, 0.02, shape).astype("<f4") for name, shape in SHAPE.shapes().items()}


def write_model(folder: Path, tensors: Tensors, **more: Any) -> Path:
    write_small_files(folder, SHAPE)
    (folder / "config.json").write_text(json.dumps(config(SHAPE) | more))
    write_safetensors(folder / "model.safetensors", tensors)
    return folder


def write_pair(folder: Path, name: str) -> tuple[Path, Path]:
    """A model with packed projections, and the plain model that it stands for."""
    form, rng = FORMS[name], np.random.default_rng(6)
    packed: Tensors = {}
    plain: Tensors = {}
    for tensor, values in plain_weights().items():
        own: Tensors = {tensor: Stored("F32", values)}
        if "_proj" in tensor:
            own, values = form.pack(tensor.removesuffix(".weight"), (values.shape[0], values.shape[1]), rng)
        packed |= own
        plain[tensor] = Stored("F32", values)
    return write_model(folder / "a" / "tiny", packed, **{form.key: dict(form.settings)}), write_model(
        folder / "b" / "tiny", plain
    )


def converted(model: Path, out: Path, recipe: str = "F32") -> bytes:
    """All that follows the header, by the pass alone: the trial of a file is a story of its own."""
    plan = dry_run(str(model), recipe, out)
    source = open_source(str(model))
    with out.open("wb+") as f, ThreadPoolExecutor(2) as pool, open_checkpoint(source) as checkpoint:
        f.truncate(plan.size)
        with closing(Journal(out.with_suffix(".journal"), "", f.fileno(), resume=False)) as journal:
            write_tensors(plan, checkpoint, pool, 2, f.fileno(), journal)
        f.seek(len(plan.layout.header))
        return f.read()


def opened(folder: Path, tensors: Tensors, settings: object, key: str = "quantization_config") -> Checkpoint:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps({key: settings}))
    write_safetensors(folder / "model.safetensors", tensors)
    return open_checkpoint(open_source(str(folder)))


@pytest.mark.parametrize("name", FORMS)
def test_any_rows_are_the_floats_that_the_codes_mean(name: str, tmp_path: Path) -> None:
    form = FORMS[name]
    tensors, weight = form.pack("m", ODD, np.random.default_rng(1))
    with opened(tmp_path, {**tensors, "n.weight": Stored("F32", np.ones(3, "<f4"))}, form.settings, form.key) as checkpoint:
        assert set(checkpoint.tensors) == {"m.weight", "n.weight"}
        info = checkpoint.tensors["m.weight"]
        assert (info.dtype, info.shape, info.nbytes, info.packed) == ("F32", ODD, weight.nbytes, form.label)
        for start, stop in ((0, 96), (0, 1), (95, 96), (3, 10), (31, 65)):
            rows = checkpoint.rows("m.weight", start, stop)
            assert np.array_equal(rows.view("<f4"), weight[start:stop]), (start, stop)
        assert np.array_equal(checkpoint.rows("n.weight", 0, 1).view("<f4"), np.ones((1, 3)))


@pytest.mark.parametrize("name", FORMS)
def test_the_file_is_that_of_the_plain_checkpoint(name: str, tmp_path: Path) -> None:
    packed, plain = write_pair(tmp_path, name)
    assert converted(packed, tmp_path / "packed.gguf") == converted(plain, tmp_path / "plain.gguf")
    notes = dry_run(str(packed), "Q4_0", tmp_path / "x.gguf").notes
    assert f"the checkpoint is {FORMS[name].label} already: what its rounding lost stays lost" in notes


@pytest.mark.slow
def test_from_end_to_end_with_a_line_on_what_was_lost(tmp_path: Path) -> None:
    packed, plain = write_pair(tmp_path, "gptq 4, act-order")
    one = quantize(str(packed), "Q4_0", tmp_path / "one.gguf")
    two = quantize(str(plain), "Q4_0", tmp_path / "two.gguf")
    a, b = (path.read_bytes()[read_header(path).data_offset :] for path in (one.path, two.path))
    assert a == b
    assert any("GPTQ 4 bit already" in note for note in one.notes)
    assert "GPTQ 4 bit already" in one.card.read_text()
    seen = inspect_model(str(packed))
    assert {t.type for t in seen.tensors} == {"F32", "GPTQ 4 bit"}
    assert seen.size == (packed / "model.safetensors").stat().st_size


@pytest.mark.slow
def test_a_run_that_was_stopped_goes_on_where_it_was_unless_the_settings_changed(tmp_path: Path) -> None:
    packed, _ = write_pair(tmp_path, "gptq 4, no g_idx")

    def stop(progress: Progress) -> None:
        if progress.stage == "quantize" and progress.done > progress.total / 2:
            raise KeyboardInterrupt

    whole = quantize(str(packed), "Q4_0", tmp_path / "whole.gguf").path.read_bytes()
    for change in (False, True):
        with pytest.raises(KeyboardInterrupt):
            quantize(str(packed), "Q4_0", tmp_path / "out.gguf", on_progress=stop, resume=True)
        if change:
            said = json.loads((packed / "config.json").read_text())
            said["quantization_config"]["checkpoint_format"] = "gptq_v2"
            (packed / "config.json").write_text(json.dumps(said))
        result = quantize(str(packed), "Q4_0", tmp_path / "out.gguf", resume=True)
        assert (result.resumed > 0) == (not change)
        assert (result.path.read_bytes() == whole) == (not change)


def test_a_stack_of_experts_is_read_expert_by_expert(tmp_path: Path) -> None:
    """gpt-oss has blocks of bytes in four dimensions; FP8 stacks have a table of scales for each expert."""
    rng = np.random.default_rng(2)
    codes, small = rng.integers(0, 256, (3, 5, 2, 16), dtype=np.uint8), rng.integers(120, 130, (3, 5, 2), dtype=np.uint8)
    tensors = {"e.up_blocks": Stored("U8", codes), "e.up_scales": Stored("U8", small), "e.up_bias": Stored("U8", small[0])}
    with opened(tmp_path / "a", tensors, {"quant_method": "mxfp4"}) as checkpoint:
        assert checkpoint.tensors["e.up.weight"].shape == (3, 5, 64)
        assert "e.up_bias" in checkpoint.tensors
        levels = np.array([0, 0.5, 1, 1.5, 2, 3, 4, 6, 0, -0.5, -1, -1.5, -2, -3, -4, -6])
        apart = np.stack([levels[codes & 15], levels[codes >> 4]], axis=-1).reshape(15, 2, 32)
        want = (apart * 2.0 ** (small.reshape(15, 2, 1).astype(float) - 127)).reshape(15, 64)
        assert np.array_equal(checkpoint.rows("e.up.weight", 2, 13).view("<f4"), want[2:13].astype(np.float32))
    eight, scale = rng.integers(0, 127, (3, 6, 8), dtype=np.uint8), rng.uniform(1, 2, (3, 2, 2)).astype("<f4")
    tensors = {"e.up": Stored("F8_E4M3", eight), "e.up_scale_inv": Stored("F32", scale)}
    with opened(tmp_path / "b", tensors, {"quant_method": "fp8", "weight_block_size": [4, 5]}) as checkpoint:
        spread = np.repeat(np.repeat(scale, 4, 1)[:, :6], 5, 2)[:, :, :8]
        want = np.vectorize(e4m3)(eight).astype(np.float32) * spread
        assert np.array_equal(checkpoint.rows("e.up", 4, 15).view("<f4"), want.reshape(18, 8)[4:15])


@given(st.integers(1, 8), st.integers(1, 4), st.integers(1, 40), st.booleans(), st.randoms(use_true_random=False))
def test_fields_of_any_width_are_found_where_they_were_put(bits: int, rows: int, count: int, gaps: bool, random: Any) -> None:
    codes = np.array([[random.randrange(1 << bits) for _ in range(count)] for _ in range(rows)])
    words = pack(codes, bits, 32 // bits if gaps else None)
    found = unpack_words(words, bits) if gaps else unpack(words.view(np.uint8), bits)
    assert np.array_equal(found[:, :count], codes)
    assert not found[:, count:].any()
    if not gaps:
        table = np.cos(np.arange(256, dtype=np.float32))
        assert np.array_equal(look_up(words.view(np.uint8), bits, table), table[found])


def test_small_floats_are_those_of_torch() -> None:
    torch = pytest.importorskip("torch")
    codes = torch.arange(256, dtype=torch.uint8)
    for table, kind in ((E4M3, torch.float8_e4m3fn), (E5M2, torch.float8_e5m2)):
        assert np.array_equal(table, codes.view(kind).float().numpy(), equal_nan=True)


def test_one_module_may_have_settings_of_its_own(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    a, wide = FORMS["mlx 4"].pack("a", (32, 64), rng)
    b, fine = FORMS["mlx 8"].pack("b", (32, 64), rng)
    settings = {"group_size": 32, "bits": 4, "b": {"group_size": 32, "bits": 8}, "c": False}
    with opened(tmp_path / "mlx", a | b | {"c.weight": Stored("F32", wide)}, settings) as checkpoint:
        assert np.array_equal(checkpoint.rows("a.weight", 0, 32).view("<f4"), wide)
        assert np.array_equal(checkpoint.rows("b.weight", 0, 32).view("<f4"), fine)
        assert checkpoint.tensors["b.weight"].packed == "MLX 4/8 bit"
    a, wide = FORMS["gptq 2"].pack("model.a", (32, 64), rng)
    b, fine = FORMS["gptq 3"].pack("model.b", (32, 64), rng)
    settings = {"quant_method": "gptq", "bits": 2, "group_size": 32, "dynamic": {"-:.*c$": {}, r"+:model\.b": {"bits": 3}}}
    with opened(tmp_path / "gptq", a | b, settings) as checkpoint:
        assert np.array_equal(checkpoint.rows("model.a.weight", 0, 32).view("<f4"), wide)
        assert np.array_equal(checkpoint.rows("model.b.weight", 0, 32).view("<f4"), fine)
    a, wide = FORMS["pack-quantized 4"].pack("model.a", (32, 64), rng)
    b, fine = FORMS["pack-quantized 8"].pack("model.b", (32, 64), rng)
    groups = {"0": {"targets": ["Linear"], "weights": {"num_bits": 4, "group_size": 32}},
              "1": {"targets": [r"re:.*\.b$"], "weights": {"num_bits": 8, "group_size": 32}}}  # fmt: skip
    settings = {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": groups}
    with opened(tmp_path / "ct", a | b, settings) as checkpoint:
        assert np.array_equal(checkpoint.rows("model.a.weight", 0, 32).view("<f4"), wide)
        assert np.array_equal(checkpoint.rows("model.b.weight", 0, 32).view("<f4"), fine)


def test_old_programs_left_the_settings_in_a_file_of_their_own(tmp_path: Path) -> None:
    tensors, weight = FORMS["awq"].pack("m", ODD, np.random.default_rng(1))
    (tmp_path / "quant_config.json").write_text('{"zero_point": true, "q_group_size": 32, "w_bit": 4, "version": "GEMM"}')
    with opened(tmp_path, tensors, None) as checkpoint:
        assert np.array_equal(checkpoint.rows("m.weight", 5, 9).view("<f4"), weight[5:9])


def test_plain_weights_are_plain_whatever_config_json_says(tmp_path: Path) -> None:
    tensors = {"m.weight": Stored("F32", np.ones((2, 2), "<f4"))}
    with opened(tmp_path, tensors, {"quant_method": "fp8"}) as checkpoint:
        assert checkpoint.tensors["m.weight"].packed == ""


def test_what_is_not_read_is_named_with_what_is(tmp_path: Path) -> None:
    tensors = {"m.weight": Stored("F32", np.ones((2, 2), "<f4"))}
    for settings, words in (
        ({"quant_method": "aqlm"}, "already quantized ('aqlm'"),
        ({"quant_method": "../../os"}, "'../../os'"),
        ({"quant_method": "find"}, "'find'"),
        ({"quant_method": "awq", "version": "gemv"}, "'gemv'"),
        ({"quant_method": "auto-round", "packing_format": "auto_round:tomorrow"}, "'auto_round:tomorrow'"),
        ({"quant_method": "gptq", "checkpoint_format": "marlin"}, "'marlin'"),
        ({"quant_method": "compressed-tensors", "format": "marlin-24"}, "'marlin-24'"),
        ({"quant_method": "compressed-tensors", "format": "pack-quantized", "transform_config": {"a": 1}}, "rotations"),
        ({"some": "thing"}, "'unknown'"),
        ("gptq", "'unknown'"),
    ):
        with pytest.raises(UnsupportedError) as refusal:
            opened(tmp_path, tensors, settings)
        assert words in str(refusal.value)
        assert "\n" not in str(refusal.value)
    assert "gptq" in readable()
    opened(tmp_path, tensors, "none, thanks", "quantization").close()  # a word of somebody's own


def lie(name: str, part: str, change: Callable[[np.ndarray[Any, Any]], Any], **settings: Any) -> tuple[str, str, Any, Any]:
    return name, part, change, settings


NO_GROUP = {"g": {"weights": {"num_bits": 4, "group_size": 0}}}
ONE: dict[str, Any] = {"targets": ["re:(?!x)"], "weights": {"num_bits": 4}}
TWO_GROUPS = {"a": ONE, "b": ONE}
LIES = {
    "a group that is not there": lie("gptq 4, act-order", "m.g_idx", lambda a: a + 1),
    "a group before the first": lie("gptq 4, act-order", "m.g_idx", lambda a: a - 1),
    "a group in words that is not there": lie("pack-quantized 4, act-order", "m.weight_g_idx", lambda a: a * 9),
    "groups for fewer columns": lie("gptq 4, act-order", "m.g_idx", lambda a: a[:-8]),
    "no width in a group": lie("gptq 4, no g_idx", "", None, group_size=0),
    "another width": lie("gptq 4, no g_idx", "", None, group_size=64),
    "no bits": lie("gptq 4, act-order", "", None, bits=0),
    "no number of bits": lie("gptq 4, act-order", "", None, bits="four"),
    "fewer scales": lie("gptq 4, act-order", "m.scales", lambda a: a[:, :-1]),
    "fewer zeros": lie("gptq 4, act-order", "m.qzeros", lambda a: a[:, :-1]),
    "no scales": lie("gptq 4, act-order", "m.scales", None),
    "no words": lie("gptq 4, act-order", "m.qweight", lambda a: a[:0]),
    "words in a row": lie("gptq 4, act-order", "m.qweight", lambda a: a.ravel()),
    "an AWQ group of nothing": lie("awq", "", None, group_size=0),
    "AWQ scales of another width": lie("awq", "m.scales", lambda a: a[:-1]),
    "AWQ zeros of another width": lie("awq", "m.qzeros", lambda a: a[:, :-1]),
    "scales of fewer blocks": lie("fp8 in blocks", "m.weight_scale_inv", lambda a: a[:-1]),
    "blocks of nothing": lie("fp8 in blocks", "", None, weight_block_size=[0, 24]),
    "blocks of three sides": lie("fp8 in blocks", "", None, weight_block_size=[1, 2, 3]),
    "zeros that fit no scales": lie("int-quantized", "m.weight_zero_point", lambda a: a[:-1]),
    "packed for other scales": lie("pack-quantized 4", "m.weight_scale", lambda a: a[:, :-1]),
    "packed zeros of fewer rows": lie("pack-quantized 4, zeros", "m.weight_zero_point", lambda a: a[:-1]),
    "a packed group of nothing": lie("pack-quantized 4", "", None, config_groups=NO_GROUP),
    "no word on how it is packed": lie("pack-quantized 4", "", None, config_groups={}),
    "more bits than a byte": lie("pack-quantized 4", "", None, config_groups={"g": {"weights": {"num_bits": 16}}}),
    "a pattern that is none": lie("pack-quantized 4", "", None, config_groups=TWO_GROUPS | {"a": ONE | {"targets": ["re:("]}}),
    "a pattern that looks ahead": lie("pack-quantized 4", "", None, config_groups=TWO_GROUPS),
    "a GPTQ pattern that is none": lie("gptq 4, act-order", "", None, dynamic={"(": {"bits": 4}}),
    "scales of no group": lie("int-quantized", "m.weight_scale", lambda a: a[:, :0]),
    "a state that is no JSON": lie("bitsandbytes 4", "m.weight.quant_state.bitsandbytes__nf4", lambda a: a[:-1]),
    "fewer codes": lie("bitsandbytes 4", "m.weight", lambda a: a[:-1]),
    "fewer maxima": lie("bitsandbytes 4", "m.weight.absmax", lambda a: a[:-1]),
    "a code book of 15": lie("bitsandbytes 4", "m.weight.quant_map", lambda a: a[:-1]),
    "no nested maxima": lie("bitsandbytes 4, double", "m.weight.nested_absmax", None),
    "fewer rows of 8 bits": lie("bitsandbytes 8", "m.SCB", lambda a: a[:-1]),
    "rows in the order of a GPU": lie("bitsandbytes 8", "m.weight_format", lambda a: a + 2),
    "MLX groups of nothing": lie("mlx 4", "", None, group_size=0),
    "MLX groups of another width": lie("mlx 4", "", None, group_size=64),
    "no biases": lie("mlx 4", "m.biases", None),
    "MLX bits of another width": lie("mlx 4", "", None, bits=8),
    "an MLX mode of tomorrow": lie("mlx 4", "", None, mode="trellis"),
    "scales of other groups": lie("mlx mxfp4", "m.scales", lambda a: a[:, :-1]),
    "two scales of the whole": lie("nvfp4 of ModelOpt", "m.weight_scale_2", lambda a: np.repeat(a, 2)),
}  # fmt: skip


@pytest.mark.parametrize("why", LIES)
def test_parts_that_do_not_fit_are_refused_in_one_line(why: str, tmp_path: Path) -> None:
    name, part, change, settings = LIES[why]
    form = FORMS[name]
    tensors, _ = form.pack("m", ODD, np.random.default_rng(1))
    if part and change is None:
        del tensors[part]
    elif part:
        tensors[part] = Stored(tensors[part].dtype, np.ascontiguousarray(change(tensors[part].array)))
    with pytest.raises(SprigError) as refusal, opened(tmp_path, tensors, {**form.settings, **settings}, form.key) as checkpoint:
        checkpoint.rows("m.weight", 0, 96)
    assert "\n" not in str(refusal.value)
    assert len(str(refusal.value)) < 300


def test_a_pattern_that_would_take_for_ever_takes_no_time(tmp_path: Path) -> None:
    name, slow = "a" * 40, {"(a+)+b": {"bits": 8}}
    tensors, wide = FORMS["gptq 2"].pack(name, (32, 64), np.random.default_rng(3))
    settings = {"quant_method": "gptq", "bits": 2, "group_size": 32, "dynamic": slow}
    with opened(tmp_path, tensors, settings) as checkpoint:
        assert np.array_equal(checkpoint.rows(f"{name}.weight", 0, 32).view("<f4"), wide)


@given(
    st.sampled_from(["fp8", "compressed-tensors", "gptq", "awq", "bitsandbytes", "mxfp4", "modelopt"]),
    st.dictionaries(
        st.sampled_from(["bits", "group_size", "format", "version", "config_groups", "weight_block_size", "dynamic"]),
        st.none() | st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=3)
        | st.dictionaries(st.text(max_size=2), st.dictionaries(st.just("weights"), st.none() | st.integers()), max_size=2),
    ),
)  # fmt: skip
def test_settings_at_random_are_read_or_refused(method: str, settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(0)
    stored: Tensors = {}
    for name in ("gptq 4, act-order", "fp8 in blocks", "pack-quantized 4, zeros", "bitsandbytes 4", "nvfp4 of ModelOpt"):
        stored |= FORMS[name].pack(name[:3], (32, 64), rng)[0]
    tensors = {n: TensorInfo(n, s.dtype, s.array.shape, "f", 0, s.array.nbytes) for n, s in stored.items()}
    said = ""
    try:
        config = {"quantization_config": {**settings, "quant_method": method}}
        find_packing(config, {}, tensors, lambda name: stored[name].array.tobytes())
    except SprigError as e:
        said = str(e)
    assert "\n" not in said


def test_from_the_hub_without_a_download_but_not_as_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed, _ = write_pair(tmp_path, "awq")
    with LoopbackHub({"sprig-test/awq": packed}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        plan = dry_run("sprig-test/awq", "Q4_0", tmp_path / "out.gguf")
        assert plan.download == (packed / "model.safetensors").stat().st_size
        with pytest.raises(SourceError, match=r"AWQ 4 bit.*leave --stream out"):
            dry_run("sprig-test/awq", "Q4_0", tmp_path / "out.gguf", stream=True)
        source = open_source("sprig-test/awq")
        name = "model.layers.1.mlp.down_proj.weight"
        with open_checkpoint(source, stream=True) as far, open_checkpoint(source) as near:
            assert np.array_equal(far.rows(name, 8, 24), near.rows(name, 8, 24)), "a sample, for the test of a tied head"


def test_bitsandbytes_says_its_shapes_in_the_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So they are fetched for the plan already, as those of a .bin checkpoint are."""
    packed, _ = write_pair(tmp_path, "bitsandbytes 4")
    with LoopbackHub({"sprig-test/bnb": packed}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        infos = headers(open_source("sprig-test/bnb"))
        assert infos["model.layers.0.mlp.up_proj.weight"].shape == (96, 64)
