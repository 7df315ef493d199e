"""The rules of the check for vocabularies and templates, at their borders."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.text import brief
from tests.fixtures.generated import runs
from tests.fixtures.headers import TOKENS, complaint, header


def vocabulary(tokens: Any, model: Any = "gpt2", rows: int | None = None, causal: bool | None = None, **changes: Any) -> str:
    """The complaint about a sound file with this vocabulary and these keys of the tokenizer."""
    raw = [t.encode("utf-8", "surrogateescape") if isinstance(t, str) else t for t in tokens]
    shape = (len(tokens) if rows is None else rows, 32)
    named = {f"tokenizer.ggml.{name}": value for name, value in {"tokens": raw, "model": model, **changes}.items()}
    return complaint(header(named | {"zfqx.attention.causal": causal}, {"token_embd.weight": shape}))


def test_a_vocabulary_is_a_list_of_texts_with_a_tokenizer_that_llama_cpp_knows() -> None:
    for tokens in ([7, 8], "ab", None, True):
        assert complaint(header({"tokenizer.ggml.tokens": tokens})).startswith(
            "tokenizer.ggml.tokens is not a list of tokens;"
        ), tokens
    empty = header()
    assert complaint(replace(empty, keys=empty.keys | {"tokenizer.ggml.tokens": []})).startswith("tokenizer.ggml.tokens is not")
    for model in ("zfqx", "GPT2", "", None):
        says = f"tokenizer.ggml.model is {model!r}; known are bert, gemma4, gpt2, "
        assert complaint(header({"tokenizer.ggml.model": model})).startswith(says)
    for model in ("no_vocab", "none"):  # nothing is looked at then
        changes = {"model": model, "tokens": None, "bos_token_id": 9}
        assert complaint(header({f"tokenizer.ggml.{name}": value for name, value in changes.items()})) == ""


@pytest.mark.parametrize(
    ("key", "sound", "odd", "says"),
    [
        ("scores", [None, np.zeros(4, np.float32), np.zeros(4, np.int32)], [], ""),
        ("scores", [], [np.zeros(4, np.uint8), "abcd", 4, TOKENS], "must be arr[f32] or arr[i32]"),
        ("token_type", [None, np.ones(4, np.int32), np.array([0, 6, 1, 1], np.int32)], [], ""),
        ("token_type", [], [np.ones(4, np.uint32), np.ones(4, np.float32), 1], "must be arr[i32]"),
        ("merges", [["a b"], ["a b", "b a"] * 9], [np.zeros(4, np.int32), "a b", 1], "must be arr[str]"),
        ("scores", [], [np.zeros(n, np.float32) for n in (0, 3, 5)], "entries for 4 tokens"),
        ("token_type", [], [np.ones(n, np.int32) for n in (0, 3, 5)], "entries for 4 tokens"),
        ("token_type", [], [np.array([1, 1, 7, 1], np.int32), np.array([7, -1, 1, 1], np.int32)], "has the unknown type 7;"),
        ("token_type", [], [np.array([1, 1, -1, 1], np.int32), np.array([-1, 6, 1, 1], np.int32)], "has the unknown type -1;"),
    ],
)  # fmt: skip
def test_what_goes_with_the_tokens_is_of_its_type_and_as_long(key: str, sound: list[Any], odd: list[Any], says: str) -> None:
    for value in sound:
        assert vocabulary(TOKENS, **{key: value}) == "", value
    for value in odd:
        line = vocabulary(TOKENS, **{key: value})
        assert line.startswith(f"tokenizer.ggml.{key} ")
        assert says in line, value
        assert "entries" not in says or f" has {len(value)} entries " in line


def test_a_token_stands_in_the_vocabulary_once_and_is_neither_empty_nor_endless() -> None:
    for tokens, again in ((["a", "a"], "a"), (["c", "b", "a", "b", "a"], "b"), (["\udcff", "x", "\udcff"], "\udcff")):
        assert vocabulary(tokens).startswith(f"the token {brief(again)} stands in its vocabulary twice,")
    for tokens, at in ((["", "a"], 0), (["a", "b", ""], 2)):
        assert vocabulary(tokens).startswith(f"token {at} is empty;")
    for one, size in (("a", 1), ("é", 2), ("€", 3), ("🌱", 4), ("\udcff", 1)):
        most = 16_384 // size
        assert vocabulary(["a", "b" + one * (most - 1), one * most]) == ""
        at_most = one * most + "x" * (16_384 - most * size)
        assert vocabulary(["a", at_most]) == ""
        assert vocabulary(["a", at_most + "y", "b"]).startswith("token 1 is 16385 bytes long;")
        assert vocabulary(["a", at_most + "y", "b", at_most + "zz"]).startswith("token 3 is 16386 bytes long;")
        assert vocabulary([one * (most + 1), "a" * 9]).startswith(f"token 0 is {(most + 1) * size} bytes long;")


@pytest.mark.parametrize(
    ("key", "sound", "odd"),
    [
        ("tokenizer.ggml.bos_token_id", [0, 1, 3, np.int32(3), np.uint64(3), np.int8(0)], [4, 5, -1, np.uint64(1 << 63)]),
        ("tokenizer.ggml.eos_token_id", [3], ["1", 1.0, True, [1]]),
        ("tokenizer.ggml.of_tomorrow_token_id", [0, 3], [4, -1, "1", [1]]),
        ("tokenizer.ggml.eos_token_ids", [3, [0, 3], np.array([3], np.uint64), np.zeros(0, np.int32)], []),
        ("tokenizer.ggml.eos_token_ids", [], [4, -1, [0, 4], [-1, 0], ["a"], [1.0], [True], "1"]),
        # These are no ids of tokens.
        ("tokenizer.ggml.of_tomorrow", [9, -1, "x"], []), ("zfqx.bos_token_id", [9, -1, "x"], []), ("my.token_ids", [[9]], []),
    ],
)  # fmt: skip
def test_an_id_is_one_of_the_vocabulary(key: str, sound: list[Any], odd: list[Any]) -> None:
    for value in sound:
        assert complaint(header({key: value})) == "", value
        line = complaint(header({key: value, "tokenizer.ggml.z_token_id": 4}))  # nor does it hide another
        assert line.startswith("'tokenizer.ggml.z_token_id' is 4 in a vocabulary of 4 tokens;")
    for value in odd:
        line = complaint(header({key: value}))
        assert line.startswith(f"{key!r} is ")
        assert line.split(";")[0].endswith(" in a vocabulary of 4 tokens"), value


BYTES = [f"<0x{b:02X}>" for b in range(256)]


def test_a_tokenizer_without_merges_does_not_load() -> None:
    for model in ("gpt2", "gemma4", "hybriddna", "whitespace"):
        assert vocabulary(TOKENS, model) == ""
        assert vocabulary(TOKENS, model, merges=None).startswith(f"its {model!r} tokenizer has no merges;")
        assert vocabulary(TOKENS, model, merges=None, pre="gpt-2").startswith(f"its {model!r} tokenizer has no merges;")
        assert vocabulary(TOKENS, model, merges=None, pre="kimi-k2") == ""  # llama.cpp makes them itself
    for model in ("t5", "llama"):
        assert vocabulary([*TOKENS, *BYTES], model, merges=None) == ""


@pytest.mark.parametrize("model", ["llama", "plamo2"])
def test_a_tokenizer_that_falls_back_to_bytes_has_all_of_them(model: str) -> None:
    whole = [*TOKENS, *BYTES]
    assert vocabulary(whole, model) == ""
    for lost in ([0], [0x2C], [255], [7, 9], [0x80, 0x81, 0xFF]):
        fewer = [t for t in whole if t not in [BYTES[b] for b in lost]]
        says = f"its {model!r} tokenizer has no token for byte 0x{lost[0]:02X} ({len(lost)} such), and llama.cpp would abort;"
        assert vocabulary(fewer, model).startswith(says)
        # A byte that is a token itself is taken in its place by one of the two.
        raw = [*fewer, *(bytes([b]) for b in lost)]
        assert vocabulary(raw, model).startswith(says) if model == "plamo2" else vocabulary(raw, model) == ""
    assert vocabulary(TOKENS, "t5") == ""


def test_bert_is_for_reading_and_names_the_ids_that_lie_outside() -> None:
    def bert(count: int, **changes: Any) -> str:
        return vocabulary([f"w{i}" for i in range(count)], "bert", **{"causal": False} | changes)

    # Where the file names none, llama.cpp takes 101 and 102.
    assert bert(103) == ""
    assert bert(102, seperator_token_id=101) == bert(9, seperator_token_id=8, bos_token_id=0) == bert(103, bos_token_id=0) == ""
    assert bert(102).startswith("its 'bert' tokenizer has no tokenizer.ggml.seperator_token_id, and llama.cpp would abort;")
    for count in (9, 101):
        assert bert(count, seperator_token_id=8).startswith("its 'bert' tokenizer has no tokenizer.ggml.bos_token_id,")
        assert bert(count, bos_token_id=8).startswith("its 'bert' tokenizer has no tokenizer.ggml.seperator_token_id,")
    for causal in (None, True):
        assert bert(103, causal=causal).startswith("its 'bert' tokenizer does not fit a model that writes text;")
        assert vocabulary(TOKENS, causal=causal) == ""
    assert vocabulary(TOKENS, causal=False) == ""


def test_the_embedding_has_a_row_for_each_token() -> None:
    for rows in (3, 5):
        assert vocabulary(TOKENS, rows=rows).startswith(f"token_embd.weight has the shape [{rows}, 32] for 4 tokens;")
    for shape in ((), (4,), (2, 4, 32), (4, 4, 32), (32, 4)):
        line = complaint(header(tensors={"token_embd.weight": shape}))
        assert line.startswith(f"token_embd.weight has the shape {list(shape)} for 4 tokens;")
    assert complaint(header(tensors={"another.weight": (7, 32)})) == ""


def escaped(text: bytes) -> str:
    """As the files of RWKV write a token."""
    named = {9: "\\t", 10: "\\n", 13: "\\r", 92: "\\\\"}
    return "".join(named.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in text)


@settings(max_examples=runs(200), derandomize=True, deadline=None, database=None)
@given(st.sets(st.lists(st.sampled_from(b'ab\\x\t\n\r\0\x7f\xff"1'), min_size=1, max_size=3).map(bytes), min_size=1))
def test_rwkv_has_a_token_for_each_byte_that_begins_one(tokens: set[bytes]) -> None:
    lost = sorted({t[0] for t in tokens} - {t[0] for t in tokens if len(t) == 1})
    line = vocabulary([escaped(t) for t in sorted(tokens)], "rwkv")
    if lost:
        says = f"tokenizer.ggml.model is 'rwkv', which would never end: tokens begin with byte 0x{lost[0]:02X}, and none is that"
        assert line.startswith(says)
    else:
        assert line == ""


def test_a_template_is_a_text_of_a_size_that_is_rendered() -> None:
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.tool_use"):
        for text in ("", "x", "x" * 262_144, "é" * 131_072, b"\xff" * 262_144):
            assert complaint(header({key: text})) == ""
        for text in ("x" * 262_145, "é" * 131_072 + "x", b"\xff" * 262_145):
            line = complaint(header({"tokenizer.chat_template": "x", key: text}))
            assert line.startswith(f"{key!r} is larger than 262144 bytes;")
        for odd in (3, True, ["x"]):
            assert complaint(header({"tokenizer.chat_template": "x", key: odd})).startswith(f"{key!r} is not a text;")
    assert complaint(header({"tokenizer.chat_templates": 3, "my.chat_template": "x" * 300_000})) == ""
