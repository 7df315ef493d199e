"""The rules of the check at their borders: the last value that passes, and the first that does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.gguf.reader import Header, TensorEntry
from agent.gguf.types import F32
from tests.fixtures.generated import runs
from tests.fixtures.headers import complaint, header


def zfqx(name: str) -> str:
    """The key as it stands in the file: those without a dot of the file's own are the architecture's."""
    return name if name.startswith(("general.", "tokenizer.", "split.", "llama.")) else f"zfqx.{name}"


def said(**changes: Any) -> str:
    """The complaint about the sound file with these keys; a double underscore stands for a dot."""
    return complaint(header({zfqx(name.replace("__", ".")): value for name, value in changes.items()}))


SMALL = "and must be a small positive number"


def test_the_file_that_is_changed_below_is_sound() -> None:
    assert complaint(header()) == ""


@pytest.mark.parametrize(
    ("key", "sound", "odd", "says"),
    [
        ("block_count", [1, 2, 512], [0, 513, None], "and must be a whole number from 1 to 512"),
        ("context_length", [1, 2, (1 << 31) - 1], [0, None], "and must be a whole number from 1 to 2147483647"),
        ("embedding_length", [1, 2, (1 << 24) - 1], [0, 1 << 24, None], "and must be a whole number from 1 to 16777215"),
        ("pooling_type", [None, 0, 1, 4], [5, 9], "and must be a whole number from 0 to 4"),
        ("nextn_predict_layers", [None, 0, 1, 4], [5, 6], "of 4 blocks"),
        ("attention.layer_norm_epsilon", [None, 1e-12, 1e-5, 0.99], [0.0, -1e-5, 1.0, 2.0], SMALL),
        ("attention.layer_norm_rms_epsilon", [1e-12, 0.99], [0.0, -1e-5, 1.0], SMALL),
        ("attention.group_norm_epsilon", [1e-12, 0.99], [0.0, -1e-5, 1.0], SMALL),
        ("of_tomorrow.norm_epsilon", [0.5], [0, 1, "x", 1.0, [0.5]], SMALL),
        ("rope.freq_base", [None, 1e-3, 1.0, 1e6], [0.0, -1.0], "and must be positive"),
        ("rope.freq_base_swa", [1e-3, 1e6], [0.0, -1.0], "and must be positive"),
        ("rope.freq_base_of_tomorrow", [1e-3, 1e6], [0.0, -1.0, 7, "x", [0.5]], "and must be positive"),
        ("rope.scaling.type", [None, "none", "linear", "yarn", "longrope"], ["", "warp", "LINEAR"], "llama.cpp knows linear"),
        ("rope.scaling.factor", [None, 0.0, 0.5, 40.0], [-0.5], "and must not be negative"),
        ("rope.scale_linear", [None, 0.0, 0.5, 40.0], [-0.5], "and must not be negative"),
        ("general.type", [None, "model"], ["adapter", "mmproj", ""], "it is of the type "),
        ("split.count", [None, 0, 1], [2, 3], " parts of a model; merge them first"),
    ],
)  # fmt: skip
def test_a_number_passes_up_to_its_border(key: str, sound: list[Any], odd: list[Any], says: str) -> None:
    key = zfqx(key)
    for value in sound:
        assert complaint(header({key: value})) == "", value
    for value in odd:
        line = complaint(header({key: value}))
        assert says in line, value
        assert key.startswith(("general.", "split.")) or line.startswith(f"{key} is ")
        assert isinstance(value, float) or str(value) in line


def test_an_architecture_that_is_missing_or_no_text_is_refused_before_its_keys_are_looked_for() -> None:
    for value in (None, "", 7, ["llama"], np.zeros(2, np.uint8), True):
        assert complaint(header({"general.architecture": value})).startswith("general.architecture does not name an architecture")


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_a_float_that_is_no_number_is_refused_under_any_key(kind: type[np.floating]) -> None:
    largest = np.finfo(kind).max
    for key in ("zfqx.of_tomorrow", "a.stranger's"):
        for value in (kind(0), kind(largest), kind(-largest), np.array([0, largest], kind), np.zeros(0, kind)):
            assert complaint(header({key: value})) == ""
        for value, name in ((np.inf, "inf"), (-np.inf, "-inf"), (np.nan, "nan")):
            assert f"{key!r}"[1:-1].replace("'", "") in complaint(header({key: kind(value)})).replace("'", "")
            assert f" is {name};" in complaint(header({key: kind(value)}))
            for at in range(3):
                assert " holds NaN or infinity;" in complaint(header({key: np.insert(np.ones(2, kind), at, value)}))


@pytest.mark.parametrize(
    ("count", "used", "groups", "chosen", "says"),
    [
        (None, None, None, None, ""), (0, 0, 0, 0, ""), (1, 1, 0, 0, ""), (8, 1, 0, 0, ""), (8, 8, 0, 0, ""),
        (1024, 1024, 0, 0, ""), (8, [1, 8, 2, 2], 0, 0, ""), (0, [0, 0, 0, 0], 0, 0, ""),
        (8, 2, 1, 0, ""), (8, 2, 1, 1, ""), (2, 1, 1, 0, ""), (8, 2, 2, 1, ""), (8, 2, 4, 1, ""), (8, 2, 4, 3, ""),
        (1025, 1, 0, 0, "expert_count is 1025 and must be a whole number from 0 to 1024"),
        (8, 0, 0, 0, "expert_used_count is 0 of 8 experts"), (8, None, 0, 0, "expert_used_count is 0 of 8 experts"),
        (8, 9, 0, 0, "expert_used_count is 9 of 8 experts"), (0, 1, 0, 0, "expert_used_count is 1 of 0 experts"),
        (None, 2, 0, 0, "expert_used_count is 2 of 0 experts"), (1, 2, 0, 0, "expert_used_count is 2 of 1 experts"),
        (8, [1, 9, 1, 1], 0, 0, "of 8 experts"), (8, [0, 0, 0, 0], 0, 0, "of 8 experts"), (0, [0, 0, 1, 0], 0, 0, "of 0 experts"),
        (0, 0, 1, 0, "a group of 0 experts"), (1, 1, 1, 0, "a group of 1 experts"), (None, None, 1, 1, "group of 0 experts"),
        (8, 2, 3, 1, "has 8 experts in 3 groups, 1 of them used"), (8, 2, 8, 1, "has 8 experts in 8 groups"),
        (8, 2, 16, 1, "8 experts in 16 groups"), (0, 0, 2, 1, "has 0 experts in 2 groups"), (8, 2, 2, 0, "2 groups, 0 of them"),
        (8, 2, 2, None, "2 groups, 0 of them"), (8, 2, 2, 2, "2 groups, 2 of them"), (8, 2, 4, 4, "4 groups, 4 of them"),
        (8, 2, 4, 5, "4 groups, 5 of them"),
    ],
)  # fmt: skip
def test_experts_fit_together(count: Any, used: Any, groups: Any, chosen: Any, says: str) -> None:
    line = said(expert_count=count, expert_used_count=used, expert_group_count=groups, expert_group_used_count=chosen)
    assert says in line if says else line == ""


EQUAL, EVEN, HUGE = "they must be equal", "it must be even and no larger", "has heads of "


@pytest.mark.parametrize(
    ("arch", "width", "heads", "keys", "values", "turned", "says"),
    [
        ("llama", 32, 2, None, None, None, ""), ("llama", 32, 2, 16, 16, 16, ""), ("llama", 32, 1, None, None, 32, ""),
        ("llama", 33, 2, None, None, 16, ""), ("llama", 32, 2, 8, 8, None, ""), ("llama", 32, 2, 24, 24, 24, ""),
        ("llama", 32, 2, 8, None, None, EQUAL), ("llama", 32, 2, None, 8, None, EQUAL), ("llama", 32, 2, None, 24, None, EQUAL),
        ("llama", 32, 2, None, None, 8, EQUAL), ("llama", 32, 1, None, None, 16, EQUAL), ("qwen3", 32, 2, None, None, 8, EQUAL),
        # Of others, llama.cpp asks less.
        ("gemma", 32, 2, None, None, 8, ""), ("gemma", 32, 2, None, None, 16, ""), ("gemma", 32, 2, None, 8, 4, ""),
        ("gemma", 32, 2, 8, 24, 8, ""), ("gemma", 32, 2, 7, None, None, ""), ("gemma", 30, 2, None, None, None, ""),
        ("gemma", 32, 2, None, None, 0, ""),
        ("gemma", 32, 2, None, None, 15, EVEN), ("gemma", 32, 2, None, None, 1, EVEN), ("gemma", 32, 2, None, None, 18, EVEN),
        ("gemma", 32, 2, 8, None, 10, EVEN), ("gemma", 32, 2, 7, None, 7, EVEN), ("llama", 32, 2, None, None, 15, EVEN),
        ("gemma", 32, 2, 65_535, 65_535, 65_534, ""), ("gemma", 32, 2, 65_536, None, None, HUGE),
        ("gemma", 32, 2, None, 65_536, None, HUGE), ("gemma", 32, 2, None, None, 65_536, HUGE),
        ("gemma", 1 << 17, 2, None, None, 64, HUGE),
        # One number of heads for each layer, or no attention at all: nothing to compare with.
        ("llama", 32, [2, 2, 2, 2], 8, 16, 7, ""), ("llama", 32, 0, 8, 16, 7, ""), ("llama", 32, None, 8, 16, 7, ""),
    ],
)  # fmt: skip
def test_heads_fit_together(arch: str, width: int, heads: Any, keys: Any, values: Any, turned: Any, says: str) -> None:
    changes = {
        "embedding_length": width, "block_count": 4, "context_length": 64, "attention.head_count": heads,
        "attention.key_length": keys, "attention.value_length": values, "rope.dimension_count": turned,
    }  # fmt: skip
    line = complaint(header({"general.architecture": arch, **{f"{arch}.{name}": value for name, value in changes.items()}}))
    assert says in line if says else line == ""
    whole = [keys or width // 2, values or width // 2]
    if says == HUGE or (says == EQUAL and heads == 2):
        assert f"{arch} has heads of {whole[0]} and {whole[1]}, of which RoPE turns {turned or whole[0]}" in line
    if says == EVEN:
        assert line.startswith(f"{arch}.rope.dimension_count is {turned} for heads of {whole[0]};")


def placed(sizes: list[int], alignment: int, names: list[str] | None = None) -> Header:
    """A header whose tensors hold so many numbers each, one behind the other."""
    sound, entries = header(), []
    position = start = -(-sound.data_offset // alignment) * alignment
    for name, size in zip(names or [f"t{i}" for i in range(len(sizes))], sizes, strict=True):
        entries.append(TensorEntry(name, (size,), F32, position, 4 * size))
        position += 4 * size + -4 * size % alignment
    by_name = {entry.name: entry for entry in entries}
    return replace(sound, tensors=by_name, alignment=alignment, data_offset=start, file_size=position)


@settings(max_examples=runs(100), derandomize=True, deadline=None, database=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=5), st.sampled_from([1, 4, 8, 32, 64, 256]), st.data())
def test_tensors_lie_one_behind_the_other_each_padded_to_the_alignment(
    sizes: list[int], alignment: int, data: st.DataObject
) -> None:
    sound = placed(sizes, alignment)
    assert complaint(sound) == ""
    i = data.draw(st.integers(0, len(sizes) - 1))
    shift = data.draw(st.sampled_from([-alignment, -1, 1, alignment]))
    moved = replace(sound.tensors[f"t{i}"], offset=sound.tensors[f"t{i}"].offset + shift)
    what = "overlaps the tensor before it" if shift < 0 else "leaves a hole before it"
    assert complaint(replace(sound, tensors=sound.tensors | {f"t{i}": moved})).startswith(f"the data of tensor 't{i}' {what};")
    for cut in range(-4 * sizes[-1] % alignment + 1):  # the padding behind the last one may be missing
        assert complaint(replace(sound, file_size=sound.file_size - cut)) == ""
    more = data.draw(st.integers(1, 1000))
    assert complaint(replace(sound, file_size=sound.file_size + more)).startswith(f"{more} bytes lie behind its last tensor;")


def test_a_tensor_has_a_name_that_ggml_can_hold_and_there_is_one() -> None:
    for name in ("a", "a" * 63, "é" * 31 + "a", "\udcff" * 63):
        assert complaint(placed([1, 1], 32, ["t", name])) == ""
    for name in ("", "a" * 64, "é" * 32, "\udcff" * 64):
        assert " is empty or longer than 63 bytes;" in complaint(placed([1, 1], 32, ["t", name]))
        assert " is empty or longer than 63 bytes;" in complaint(placed([1, 1], 32, [name, "t"]))
    assert complaint(header(tensors={})).startswith("it has no tensor;")
