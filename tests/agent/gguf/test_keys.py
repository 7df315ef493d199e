"""Of which kind a value is: what each key may hold, and what it may not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from agent.gguf.keys import KNOWN, OF_ARCHITECTURE, odd_kinds
from tests.fixtures.headers import complaint, header

# What a key must be, as the message says it -> its kind in the table below.
KINDS = {
    "a whole number from 0 to 2147483647": "whole",
    "a whole number from 0 to 2147483647, or one for each layer": "whole by layer",
    "a whole number, or one flag for each layer": "pattern",
    "a number in floating point": "floating",
    "a number": "number",
    "true or false": "flag",
    "a text": "text",
    "an array of bytes": "bytes",
}
MOST, LARGEST = (1 << 31) - 1, float(np.finfo(np.float32).max)
INTEGERS = (np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32, np.uint64, np.int64)
WHOLE, LAYERS = {"whole", "whole by layer", "pattern", "number"}, {"whole by layer", "pattern"}
# A value, and the kinds that it is of.
VALUES: list[tuple[Any, set[str]]] = [
    *((kind(value), WHOLE) for kind in INTEGERS for value in (0, 1, 127)),
    *((kind(-1), {"number"}) for kind in (np.int8, np.int16, np.int32, np.int64)),
    *((kind(MOST), WHOLE) for kind in (np.uint32, np.int32, np.uint64, np.int64)),
    *((kind(MOST + 1), {"number"}) for kind in (np.uint32, np.uint64, np.int64)),
    *((kind(value), {"floating", "number"}) for kind in (np.float32, np.float64) for value in (0, 0.5, -1, LARGEST, -LARGEST)),
    *((np.float64(np.nextafter(sign * LARGEST, sign * np.inf)), set()) for sign in (1, -1)),
    (True, {"flag"}), (False, {"flag"}), ("", {"text"}), ("true", {"text"}), ("1", {"text"}), (b"\xff", {"text"}),
    *((np.array(value, kind), LAYERS) for kind in INTEGERS[2:] for value in ([0], [1, 0], [127] * 40)),
    *((np.array(value, kind), {*LAYERS, "bytes"}) for kind in (np.uint8, np.int8) for value in ([0], [1, 0])),
    *((np.array([0, value], np.int64), LAYERS if 0 <= value <= MOST else set()) for value in (-1, MOST, MOST + 1)),
    (np.array([1 << 63], np.uint64), set()), (np.zeros(0, np.uint32), set()), (np.zeros(0, np.uint8), {"bytes"}),
    (np.array([True, False]), {"pattern"}), (np.array([0.5], np.float32), set()), (np.array([0.5]), set()),
    (["a"], set()), (["1", "2"], set()),
]  # fmt: skip
NAMED = {"general.architecture"}  # names the prefix of others


@pytest.mark.parametrize(("value", "kinds"), VALUES, ids=lambda v: " ".join(sorted(v)) if isinstance(v, set) else repr(v)[:40])
def test_a_value_is_refused_under_every_key_of_another_kind_and_under_no_other(value: Any, kinds: set[str]) -> None:
    keys = {name: KINDS[known[0]] for name, known in KNOWN.items() if name not in NAMED}
    keys |= {f"zfqx.{name}": KINDS[known[0]] for name, known in OF_ARCHITECTURE.items()}
    keys |= {"sprig.prompt.query": "text", "sprig.prompt.": "text"}
    said = list(odd_kinds(header(dict.fromkeys(keys, value))))
    assert {line.split(" is ")[0] for line in said} == {name for name, kind in keys.items() if kind not in kinds}


def test_keys_of_another_architecture_and_those_nobody_reads_hold_what_they_like() -> None:
    names = ["llama.block_count", "block_count", "zfqx", "zfqx.x", "sprig.x", "zfqx.general.name", "my.zfqx.block_count"]
    assert list(odd_kinds(header({name: [True] for name in names}))) == []
    assert complaint(header({name: [True] for name in names})) == ""


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("general.name", 7, "general.name is 7 and must be a text"),
        ("general.architecture", 7, "general.architecture is 7 and must be a text"),
        ("zfqx.attention.causal", 1, "zfqx.attention.causal is 1 and must be true or false"),
        ("zfqx.block_count", -1, "zfqx.block_count is -1 and must be a whole number from 0 to 2147483647"),
        ("zfqx.attention.head_count_kv", "2", "zfqx.attention.head_count_kv is '2' and must be a whole number from 0 to"),
        ("zfqx.logit_scale", np.float64(1e308), "zfqx.logit_scale is 1e+308 and must be a number in floating point"),
        ("tokenizer.ggml.pre", ["x"], "tokenizer.ggml.pre is ['x'] and must be a text"),
        ("general.sampling.temp", "hot", "general.sampling.temp is 'hot' and must be a number"),
        ("sprig.prompt.que\x1b[0my", 1, "sprig.prompt.que\\x1b[0my is 1 and must be a text"),
    ],
)  # fmt: skip
def test_the_line_names_the_key_its_value_and_what_it_must_be(key: str, value: Any, line: str) -> None:
    assert next(odd_kinds(header({key: value}))).startswith(line)
    assert key == "general.architecture" or complaint(header({key: value})).startswith(line)
