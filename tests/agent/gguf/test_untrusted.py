"""A stranger's GGUF: whatever stands in it, every reader gives an answer or one line, soon and in little memory."""

from __future__ import annotations

import json
import math
import random
import resource
import struct
import time
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.cli.inspect_text import report
from agent.engine.handle import Engine
from agent.engine.sampling import Sampling
from agent.engine.trial import trial
from agent.errors import GGUFError, SprigError
from agent.gguf import keys as kinds
from agent.gguf.check import check, check_header
from agent.gguf.inspection import inspect_gguf
from agent.gguf.reader import Header, parse_header, read_header
from agent.models.file import model_facts, read_model, weights_are_checked
from agent.models.memory import MemoryBudget, plan_load
from pipeline.format.gguf_file import pack_value
from tests.fixtures import tiny
from tests.fixtures.command import one_line, process, sprig
from tests.fixtures.generated import runs

SECONDS = 5  # of a processor that others use too
N = len(tiny.TOKENS)

ELSEWHERE = (
    "general.tags", "general.languages", "general.license", "general.base_model.0.name", "general.base_model.0.repo_url",
    "general.alignment", "general.source.url", "tokenizer.ggml.tokens", "tokenizer.ggml.scores", "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
    "tokenizer.ggml.eos_token_ids", "tokenizer.ggml.unknown_token_id", "tokenizer.ggml.padding_token_id",
    "tokenizer.ggml.mask_token_id", "tokenizer.chat_template", "tokenizer.chat_template.tool_use", "tokenizer.chat_templates",
    "sprig.prompt.query", "sprig.overrides", "sprig.imatrix.datasets", "quantize.imatrix.dataset", "llama.swiglu_clamp_exp",
    "llama.activation_sparsity_scale", "llama.classifier.output_labels", "a.stranger's", "",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    0, 1, 7, 1 << 31, -1, np.uint64((1 << 64) - 1), np.int64(-1 << 63), np.uint8(255), True, False, 0.0, -1.0, 0.5, math.nan,
    -math.inf, np.float64(1e308), np.float64(5e-324), "", "llama", "gpt2", "rwkv", b"\xff\xfe", "\x1b]0;x\x07" * 1000,
    [0], [1, -1], [True, False], [0.5, math.inf], ["a", "a"], [""], [b"\xc3"], np.zeros(0, np.int32), np.zeros(0, np.float32),
    np.full(3, (1 << 64) - 1, np.uint64), np.zeros(N, np.int32), np.ones(N, np.float32), np.zeros(100_000, np.uint8),
)  # fmt: skip
# An array in an array, an array of what is no type, and one of more elements than any file has.
NESTED = (
    struct.pack("<IIQIQ", 9, 9, 1, 4, 0), struct.pack("<IIQ", 9, 13, 1), struct.pack("<IIQ", 9, 4, (1 << 62) + 1),
    struct.pack("<IIQ", 9, 8, 1 << 40), struct.pack("<IQ", 8, 1 << 63), struct.pack("<I", 13),
)  # fmt: skip


@cache
def sound() -> tuple[dict[str, bytes], bytes, bytes]:
    """The keys of a sound file as they stand in it, its tensor table, and its weights."""
    keys = {name: pack_value(value) for name, value in tiny.llama_keys().items()}
    table, weights = b"", b""
    for name, array in tiny.llama_weights().items():
        shape = array.shape[::-1]
        table += (
            struct.pack("<Q", len(name)) + name.encode() + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, 0, len(weights))
        )
        weights += array.tobytes()
    return keys, table, weights


def made(changes: Mapping[str, bytes]) -> bytes:
    """The sound file with other keys, each its type and value as they stand in a file."""
    keys, table, weights = sound()
    keys = keys | changes
    body = b"".join(struct.pack("<Q", len(name.encode())) + name.encode() + raw for name, raw in keys.items())
    head = struct.pack("<IIQQ", 0x46554747, 3, len(tiny.llama_weights()), len(keys)) + body + table
    return head + bytes(-len(head) % 32) + weights


def read(raw: bytes, name: str = "x.gguf") -> Header:
    return parse_header(lambda start, stop: raw[start:stop], name, len(raw))


def told(raw: bytes, path: Path) -> str:
    """What all readers say of a file: "inspected", "planned", or the line of the one that refused it."""
    path.write_bytes(raw)
    try:
        found = inspect_gguf(path)
        assert report(found, tensors=True).isprintable() or "\n" in report(found)
        json.dumps(found.to_dict(), allow_nan=False)
        header = read(raw, str(path))
        check_header(header, path)
        facts = model_facts(header.keys, header.tensors, path=path, size=len(raw), identity="")
        json.dumps(facts.sampling, allow_nan=False)
        plan_load(facts, MemoryBudget(1 << 33, "8 GB may be taken"))
        Sampling.for_model(facts.sampling)
    except SprigError as e:
        return str(e)
    return "planned"


def odd_keys() -> Iterator[tuple[str, bytes]]:
    values = (*map(pack_value, VALUES), *NESTED)
    for name in (*kinds.KNOWN, *(f"llama.{name}" for name in kinds.OF_ARCHITECTURE), *ELSEWHERE):
        yield from ((name, value) for value in values)


def test_any_value_of_any_key_that_is_read_ends_in_a_plan_or_in_one_line(tmp_path: Path) -> None:
    every = list(odd_keys())
    assert len({name for name, _ in every}) > 150
    drawn = random.Random(14)
    said = []
    for name, raw in drawn.sample(every, runs(600)):
        begun = time.process_time()
        said.append(told(made({name: raw}), tmp_path / "odd.gguf"))
        assert time.process_time() - begun < SECONDS
    refused = [line for line in said if line != "planned"]
    assert not any("\n" in line for line in refused)
    assert len(refused) > len(said) / 3
    assert all(str(tmp_path / "odd.gguf") in line or "sampling: " in line or " of memory" in line for line in refused)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("llama.attention.head_count_kv", np.array([2], np.int32)), ("llama.attention.sliding_window_pattern", [True]),
        ("llama.attention.sliding_window_pattern", np.uint32(6)), ("llama.attention.causal", True),
        ("general.sampling.top_k", np.int32(20)), ("general.sampling.temp", 0.5), ("general.file_type", np.uint32(7)),
        ("llama.rope.dimension_sections", np.array([1, 2, 3, 0], np.int32)), ("llama.a_key_of_tomorrow", [b"\xff"]),
        ("tokenizer.ggml.precompiled_charsmap", np.zeros(9, np.uint8)), ("llama.logit_scale", 0.25),
    ],
)  # fmt: skip
def test_what_real_files_hold_passes(key: str, value: Any) -> None:
    check_header(read(made({key: pack_value(value)})), "x.gguf")


WORDS = [0, 1, 2, 8, 9, 12, 13, 31, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 40, 1 << 62, (1 << 64) - 1]


def places(raw: bytes) -> dict[str, list[int]]:
    """Where lengths, counts, types and offsets stand in the sound file."""
    header = read(raw)
    found: dict[str, list[int]] = {"count": [8, 16], "length": [], "type": [], "offset": [], "key": [], "tensor": []}
    at = 24
    for name, value in header.raw_keys.items():
        found["key"].append(at)
        found["length"].append(at)
        found["type"].append(at + 8 + len(name))
        if value[0] == 9:
            found["type"].append(at + 12 + len(name))
            found["length"].append(at + 16 + len(name))
        at += 8 + len(name) + len(value)
    for name, entry in header.tensors.items():
        found["tensor"].append(at)
        found["length"].append(at)
        after = at + 8 + len(name) + 4 + 8 * len(entry.shape)
        found["length"] += range(at + 12 + len(name), after, 8)
        found["type"] += [at + 8 + len(name), after]
        found["offset"].append(after + 4)
        at = after + 12
    found["end"] = [at]
    return found


def mutant(raw: bytes, drawn: random.Random) -> bytes:
    """The file changed in one to three places that mean something."""
    where, out = places(raw), bytearray(raw)
    for _ in range(drawn.choice([1, 1, 2, 3])):
        kind = drawn.choice(["count", "length", "type", "offset", "bit", "cut", "twice", "gone", "grown"])
        if kind in ("count", "length", "offset"):
            at = drawn.choice(where[kind])
            old = struct.unpack_from("<Q", out, at)[0]
            struct.pack_into("<Q", out, at, drawn.choice([*WORDS, old + 1, max(0, old - 1), old ^ 1 << drawn.randrange(64)]))
        elif kind == "type":
            struct.pack_into("<I", out, drawn.choice(where[kind]), drawn.choice(WORDS[:13]) & 0xFFFFFFFF)
        elif kind == "bit":
            out[drawn.randrange(where["end"][0])] ^= 1 << drawn.randrange(8)
        elif kind == "cut":
            return bytes(out[: drawn.randrange(len(out))])
        elif kind == "grown":
            return bytes(out) + drawn.randbytes(drawn.randrange(1, 100))
        else:  # a key or a tensor that stands there twice, or not at all
            one = drawn.choice(["key", "tensor"])
            starts = [*where[one], where["tensor" if one == "key" else "end"][0]]
            i = drawn.randrange(len(starts) - 1)
            entry = bytes(out[starts[i] : starts[i + 1]])
            out[starts[i] : starts[i + 1]] = entry * 2 if kind == "twice" else b""
            count = 16 if one == "key" else 8
            struct.pack_into("<Q", out, count, max(0, struct.unpack_from("<Q", out, count)[0] + (1 if kind == "twice" else -1)))
            return bytes(out)  # the places have moved
    return bytes(out)


def test_a_file_damaged_where_it_means_something_ends_in_a_plan_or_in_one_line(tmp_path: Path) -> None:
    raw, drawn, said = made({}), random.Random(8), []
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(runs(500)):
        begun = time.process_time()
        said.append(told(mutant(raw, drawn), tmp_path / "mutant.gguf"))
        assert time.process_time() - begun < SECONDS
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # kB
    assert not any("\n" in line for line in said)
    assert sum(line != "planned" for line in said) > len(said) / 2


def large(kind: str) -> bytes:
    if kind == "bytes in an array":
        return made({"x.blob": pack_value(np.zeros(60_000_000, np.uint8))})
    if kind == "a long text":
        return made({"x.text": struct.pack("<IQ", 8, 60_000_000) + bytes(60_000_000)})
    if kind == "empty strings":
        return made({"x.list": struct.pack("<IIQ", 9, 8, 7_500_000) + bytes(60_000_000)})
    if kind == "keys":
        return made({f"x.{i:05}": struct.pack("<Ib", 7, 1) for i in range(60_000)})
    head = struct.pack("<IIQQ", 0x46554747, 3, 1_000_000, 0)
    return head + b"".join(struct.pack("<Q6sIQIQ", 6, b"%06d" % i, 1, 1, 0, 0) for i in range(60_000)) + bytes(24_000_000)


@pytest.mark.parametrize("kind", ["bytes in an array", "a long text", "empty strings", "keys", "tensors"])
def test_a_header_larger_than_any_models_is_refused_at_once(kind: str) -> None:
    raw = large(kind)
    begun = time.process_time()
    with pytest.raises(
        GGUFError, match=r"larger than 48 MB, which no model's is|more than 2000000 strings|no model has more than"
    ):
        read(raw)
    assert time.process_time() - begun < 1


@pytest.mark.slow
def test_the_largest_vocabulary_in_use_is_read_soon() -> None:
    count, merges = 262_144, 515_000
    tokens = [*tiny.TOKENS, *(f"token{i}" for i in range(count - N))]
    listed = b"".join(struct.pack("<Q", len(t.encode())) + t.encode() for t in tokens)
    merged = b"".join(b"\x0d\0\0\0\0\0\0\0%06d %06d" % (i, i) for i in range(merges))
    raw = made({
        "tokenizer.ggml.tokens": struct.pack("<IIQ", 9, 8, count) + listed,
        "tokenizer.ggml.merges": struct.pack("<IIQ", 9, 8, merges) + merged,
        "tokenizer.ggml.scores": pack_value(np.zeros(count, np.float32)),
        "tokenizer.ggml.token_type": pack_value(np.ones(count, np.int32)),
    })  # fmt: skip
    begun = time.process_time()
    header = read(raw)
    with pytest.raises(GGUFError, match=r"token_embd\.weight has the shape"):  # the last of the rules
        check_header(header, "x.gguf")
    assert time.process_time() - begun < SECONDS / 2


@pytest.mark.slow
def test_a_tokenizer_that_would_never_end_is_refused_and_ended(tmp_path: Path) -> None:
    """RWKV's, over a vocabulary in which tokens begin with a byte that is none: it looks at the first byte for ever."""
    path = tiny.llama(tmp_path / "x.gguf", tokenizer__ggml__model="rwkv")
    with pytest.raises(GGUFError, match=r"'rwkv', which would never end: tokens begin with byte 0x3C, and none is that byte"):
        check(path)
    begun = time.monotonic()
    with pytest.raises(GGUFError, match=r"x\.gguf does not run in llama\.cpp: tokenizer\.ggml\.model is 'rwkv', and .* not end"):
        trial(path, threads=1, timeout=60)
    assert time.monotonic() - begun < 60


def test_rwkvs_own_vocabulary_passes() -> None:
    """Bytes that are no letters are written as escapes in it."""
    letters = [chr(b) for b in range(0x21, 0x7F) if chr(b) != "\\"]
    tokens = ["<s>", *(f"\\x{b:02x}" for b in range(256) if not 0x20 < b < 0x7F), "\\\\", *letters, "ab", "\\xe2\\x96", "\\n\\n"]
    none = np.zeros(len(tokens))
    changes = {"model": "rwkv", "tokens": tokens, "scores": none.astype("f4"), "token_type": none.astype("i4")}
    header = read(made({f"tokenizer.ggml.{name}": pack_value(value) for name, value in changes.items()}))
    with pytest.raises(GGUFError, match=r"token_embd\.weight has the shape"):  # the last of the rules
        check_header(header, "x.gguf")
    without_n = pack_value([t for t in tokens if t != "\\x0a"] + ["[end]"])
    changed = {"tokenizer.ggml.tokens": without_n}
    with pytest.raises(GGUFError, match=r"tokens begin with byte 0x0A, and none is that byte alone"):
        check_header(read(made({f"tokenizer.ggml.{n}": pack_value(v) for n, v in changes.items()} | changed)), "x.gguf")


def test_weights_that_are_no_numbers_are_refused_when_the_file_is_first_loaded(tmp_path: Path, home: Path) -> None:
    path = tiny.llama(tmp_path / "x.gguf")
    with Engine(path, context=256) as engine:
        assert not weights_are_checked(engine.file)
        engine.wait()
        assert weights_are_checked(engine.file)
    raw, entry = bytearray(path.read_bytes()), read_header(path).tensors["blk.0.ffn_up.weight"]
    raw[entry.offset + 400 : entry.offset + 404] = struct.pack("<f", math.nan)
    path.write_bytes(raw)  # another file of the same name
    with Engine(path, context=256) as engine, pytest.raises(SprigError) as refused:
        engine.wait()
    assert "x.gguf was not loaded" in str(refused.value)
    assert "tensor 'blk.0.ffn_up.weight' holds NaN or infinity" in str(refused.value)
    assert "\n" not in str(refused.value)
    assert not weights_are_checked(read_model(path))


ODD = {
    "a key": {"llama__attention__head_count_kv": "two"},
    "a tokenizer": {"tokenizer__ggml__model": "rwkv"},
}


@pytest.mark.parametrize("what", ODD)
def test_every_command_that_loads_a_model_refuses_it_in_one_line(tmp_path: Path, home: Path, what: str) -> None:
    path = tiny.llama(tmp_path / "x.gguf", **ODD[what])
    for command in (
        ["ask", "-m", path, "hello"], ["embed", path, "hello"], ["fit", path], ["quantize", path, "-o", tmp_path / "y.gguf"],
        ["evaluate", path, "--text", __file__], ["calibrate", path, "-o", tmp_path / "i.gguf"], ["bench", path],
        ["deploy", path, "--to", tmp_path],
    ):  # fmt: skip
        begun = time.process_time()
        assert f"{path} must not be loaded: " in one_line(sprig(*command, home=home)), command
        assert time.process_time() - begun < SECONDS
    assert sprig("inspect", path, "--json", home=home).returncode == 0


@pytest.mark.slow
def test_a_command_of_its_own_process_says_it_too(tmp_path: Path, home: Path) -> None:
    path = tiny.llama(tmp_path / "x.gguf", **ODD["a tokenizer"])
    assert "would never end" in one_line(process("chat", "-m", path, "--plain", home=home))
