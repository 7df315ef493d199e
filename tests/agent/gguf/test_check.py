"""What may be given to llama.cpp. The files below are broken in one place each; most parse perfectly well."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine.trial import trial
from agent.errors import GGUFError
from agent.gguf.check import check
from agent.gguf.reader import read_header
from tests.agent.engine.test_trial import bert
from tests.fixtures import tiny
from tests.fixtures.generated import runs

N = len(tiny.TOKENS)


def without_byte(b: int) -> list[str]:
    return [t if t != f"<0x{b:02X}>" else "[gone]" for t in tiny.TOKENS]


# Each of these makes the installed llama.cpp abort the process that loads or uses the file.
ABORTS: dict[str, tuple[dict[str, Any], str]] = {
    "no layers": ({"llama__block_count": 0}, "llama.block_count is 0"),
    "too many layers": ({"llama__block_count": 513}, "llama.block_count is 513"),
    "too many experts": ({"llama__expert_count": 1025, "llama__expert_used_count": 2}, "llama.expert_count is 1025"),
    "more experts used than there are": ({"llama__expert_used_count": 4}, "llama.expert_used_count is 4 of 0"),
    "no expert used": ({"llama__expert_count": 8}, "llama.expert_used_count is 0 of 8"),
    "more layers ahead than there are": ({"llama__nextn_predict_layers": 2}, "llama.nextn_predict_layers is 2 of 1"),
    "an odd RoPE": ({"general__architecture": "gemma", "gemma__rope__dimension_count": 1}, "must be even"),
    "a RoPE wider than the head": ({"general__architecture": "gemma", "gemma__rope__dimension_count": 64}, "no larger"),
    "a RoPE narrower than the head": ({"general__architecture": "qwen3", "qwen3__rope__dimension_count": 8}, "be equal"),
    "unknown RoPE scaling": ({"llama__rope__scaling__type": "warp"}, "llama.rope.scaling.type is 'warp'"),
    "NaN epsilon": ({"llama__attention__layer_norm_rms_epsilon": math.nan}, "is nan"),
    "negative epsilon": ({"llama__attention__layer_norm_rms_epsilon": -1.0}, "small positive number"),
    "a token twice": ({"tokenizer__ggml__tokens": [*tiny.TOKENS[:-1], "a"]}, "the token 'a' stands in its vocabulary twice"),
    "another tokenizer": ({"tokenizer__ggml__model": "bert"}, "does not fit a model that writes text"),
    "no token for a byte": ({"tokenizer__ggml__tokens": without_byte(0x2C)}, "no token for byte 0x2C"),
}

# llama.cpp loads these in silence and runs on with nonsense, or may one day.
NONSENSE: dict[str, tuple[dict[str, Any], str]] = {
    "no context": ({"llama__context_length": 0}, "llama.context_length is 0"),
    "epsilon of nothing": ({"llama__attention__layer_norm_rms_epsilon": 0.0}, "small positive number"),
    "RoPE base of nothing": ({"llama__rope__freq_base": 0.0}, "must be positive"),
    "infinite RoPE base": ({"llama__rope__freq_base": math.inf}, "is inf"),
    "BOS outside": ({"tokenizer__ggml__bos_token_id": 99_999}, "is 99999 in a vocabulary of"),
    "EOS just outside": ({"tokenizer__ggml__eos_token_id": N}, "in a vocabulary of"),
    "EOS as an array": ({"tokenizer__ggml__eos_token_id": [2]}, "in a vocabulary of"),
    "EOS as text": ({"tokenizer__ggml__eos_token_id": "2"}, "in a vocabulary of"),
    "a NaN score": ({"tokenizer__ggml__scores": [*[0.0] * (N - 1), math.nan]}, "NaN or infinity"),
    "an empty token": ({"tokenizer__ggml__tokens": [*tiny.TOKENS[:-1], ""]}, "is empty"),
    "a token of 5 MB": ({"tokenizer__ggml__tokens": [*tiny.TOKENS[:-1], "z" * 5_000_000]}, "5000000 bytes long"),
    "an unknown token type": ({"tokenizer__ggml__token_type": [*tiny.TYPES[:-1], 99]}, "unknown type 99"),
    "types for fewer tokens": ({"tokenizer__ggml__token_type": tiny.TYPES[:-1]}, f"for {N} tokens"),
    "types as bytes": ({"tokenizer__ggml__token_type": np.array(tiny.TYPES, np.uint8)}, "type arr[u8]"),
    "scores as bytes": ({"tokenizer__ggml__scores": np.zeros(N, np.uint8)}, "type arr[u8]"),
    "tokens as numbers": ({"tokenizer__ggml__tokens": np.zeros(N, np.uint8)}, "not a list of tokens"),
    "no tokens": ({"tokenizer__ggml__tokens": None}, "not a list of tokens"),
    "an unknown tokenizer": ({"tokenizer__ggml__model": "zfqx"}, "tokenizer.ggml.model is 'zfqx'"),
    "BPE without merges": ({"tokenizer__ggml__model": "gpt2"}, "no merges"),
    "merges as numbers": ({"tokenizer__ggml__merges": [1, 2]}, "type arr[i32]"),
    "a huge template": ({"tokenizer__chat_template": "x" * 300_000}, "larger than 262144 bytes"),
    "a huge named template": ({"tokenizer__chat_template__tool_use": "x" * 300_000}, "larger than 262144 bytes"),
    "a template of numbers": ({"tokenizer__chat_template": 3}, "not a text"),
    "no architecture": ({"general__architecture": None}, "does not name an architecture"),
    "block count as text": ({"llama__block_count": "1"}, "llama.block_count is '1'"),
    "an adapter": ({"general__type": "adapter"}, "of the type 'adapter'"),
    "a part of a model": ({"split__count": np.uint16(3)}, "one of 3 parts"),
    "values narrower than keys": ({"llama__attention__value_length": 8}, "be equal"),
    "a negative scale": ({"llama__rope__scaling__factor": -2.0}, "must not be negative"),
}


def refused(path: Path, **how: Any) -> str:
    with pytest.raises(GGUFError) as caught:
        check(path, **how)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(str(path))
    return line


def test_a_sound_file_passes_and_runs(tmp_path: Path) -> None:
    path = tiny.llama(tmp_path / "x.gguf")
    assert list(check(path, data=True).tensors) == list(tiny.llama_weights())
    assert trial(path, threads=1).finite


def weights_for(arch: str) -> tiny.Weights:
    norms = {f"blk.0.attn_{x}_norm.weight": np.ones(tiny.WIDTH // tiny.HEADS, np.float32) for x in "qk"}
    return tiny.llama_weights() | (norms if arch == "qwen3" else {})


@pytest.mark.slow
@pytest.mark.parametrize("name", ABORTS)
def test_what_kills_llama_cpp_is_refused_before_and_survived_after(tmp_path: Path, name: str) -> None:
    changes, says = ABORTS[name]
    arch = changes.get("general__architecture", "llama")
    keys = tiny.llama_keys(**changes)
    path = tmp_path / "x.gguf"
    tiny.write(path, {k.replace("llama.", f"{arch}."): v for k, v in keys.items()}, weights_for(arch))
    assert says in refused(path)
    # Were it given to llama.cpp all the same, the child would die and this process get one line about it.
    with pytest.raises(GGUFError, match=r"does not run in llama.cpp: it aborted; .{10}") as caught:
        trial(path, probes=["a, b"], threads=1)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_refused(tmp_path: Path, name: str) -> None:
    changes, says = NONSENSE[name]
    assert says in refused(tiny.llama(tmp_path / "x.gguf", **changes))


@pytest.mark.parametrize("lost", ["bos_token_id", "seperator_token_id"])
def test_a_bert_whose_usual_ids_lie_outside_its_vocabulary_must_name_its_own(tmp_path: Path, lost: str) -> None:
    path = bert(tmp_path / "bert.gguf")
    check(path)
    keys = {k: v for k, v in read_header(path).keys.items() if k != f"tokenizer.ggml.{lost}"}
    assert f"no tokenizer.ggml.{lost}" in refused(tiny.write(path, keys, {"token_embd.weight": np.zeros((16, 32), np.float32)}))


def test_a_pooling_nobody_knows_is_refused(tmp_path: Path) -> None:
    assert "llama.pooling_type is 9" in refused(tiny.llama(tmp_path / "x.gguf", llama__pooling_type=9))


@pytest.mark.slow
def test_an_architecture_nobody_knows_is_left_to_llama_cpp(tmp_path: Path) -> None:
    keys = {k.replace("llama.", "zfqx."): v for k, v in tiny.llama_keys().items()} | {"general.architecture": "zfqx"}
    path = tiny.write(tmp_path / "x.gguf", keys, tiny.llama_weights())
    check(path)
    with pytest.raises(GGUFError, match="unknown model architecture: 'zfqx'"):
        trial(path, threads=1)


def test_the_rules_hold_for_an_architecture_nobody_knows(tmp_path: Path) -> None:
    keys = {k.replace("llama.", "zfqx."): v for k, v in tiny.llama_keys(llama__block_count=0).items()}
    path = tiny.write(tmp_path / "x.gguf", keys | {"general.architecture": "zfqx"}, tiny.llama_weights())
    assert "zfqx.block_count is 0" in refused(path)


def test_the_embedding_must_have_a_row_for_each_token(tmp_path: Path) -> None:
    path = tiny.write(tmp_path / "x.gguf", tiny.llama_keys(), tiny.llama_weights(N + 1))
    assert f"token_embd.weight has the shape [{N + 1}, {tiny.WIDTH}] for {N} tokens" in refused(path)
    scalar = {**tiny.llama_weights(), "token_embd.weight": np.zeros((), np.float32)}
    assert "has the shape []" in refused(tiny.write(tmp_path / "x.gguf", tiny.llama_keys(), scalar))


NAMES = [
    *tiny.llama_keys(), "general.type", "general.alignment", "split.count", "llama.expert_count", "llama.expert_used_count",
    "llama.expert_group_count", "llama.expert_group_used_count", "llama.rope.scaling.type", "llama.rope.scaling.factor",
    "llama.rope.dimension_count", "llama.attention.causal", "tokenizer.ggml.pre", "tokenizer.ggml.merges",
    "tokenizer.ggml.eos_token_ids", "tokenizer.ggml.seperator_token_id", "tokenizer.chat_template", "tokenizer.chat_template.x",
]  # fmt: skip
VALUES = [
    0, 1, 7, 1 << 31, -1, True, 0.0, 0.5, -1.0, math.nan, "", "llama", "bert", "gpt2", "t5", "none", "plamo2", "linear", b"\xff",
    np.uint64(1 << 63), np.int64(-1), np.float64(1e300), [0], [1, -1], [True], [0.5, math.inf], ["a", "a"], [""], ["a", "b"],
    np.zeros(0, np.int32), np.zeros(3, np.uint64), np.zeros(N, np.int32), np.ones(N, np.float32),
]  # fmt: skip


@settings(max_examples=runs(400), derandomize=True, deadline=None, database=None)
@given(st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), min_size=1, max_size=3))
def test_any_value_under_any_key_ends_in_a_header_or_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "typed.gguf"
    tiny.write(path, tiny.llama_keys() | dict(changes), tiny.llama_weights())
    complaint = ""
    try:
        check(path)
    except GGUFError as e:
        complaint = str(e)
    assert "\n" not in complaint


def test_junk_behind_the_last_tensor_is_refused_and_missing_padding_is_not(tmp_path: Path) -> None:
    path = tiny.llama(tmp_path / "x.gguf")
    raw = path.read_bytes()
    path.write_bytes(raw + b"junk")
    assert "4 bytes lie behind its last tensor" in refused(path)
    odd = {**tiny.llama_weights(), "output_norm.bias": np.zeros(3, np.float32)}
    path = tiny.write(tmp_path / "odd.gguf", tiny.llama_keys(), odd)
    path.write_bytes(path.read_bytes()[:-20])
    check(path)
    path.write_bytes(path.read_bytes()[:-1])
    assert "cut off" in refused(path)


@pytest.mark.parametrize(("shift", "says"), [(-32, "overlaps"), (32, "leaves a hole"), (1, "leaves a hole")])
def test_tensors_lie_one_behind_the_other(tmp_path: Path, shift: int, says: str) -> None:
    path = tiny.llama(tmp_path / "x.gguf")
    raw = bytearray(path.read_bytes())
    at = raw.index(b"blk.0.attn_q.weight") + len("blk.0.attn_q.weight") + 4 + 16 + 4
    offset = int.from_bytes(raw[at : at + 8], "little") + shift
    raw[at : at + 8] = offset.to_bytes(8, "little")
    path.write_bytes(raw + bytes(64))
    assert says in refused(path)
