"""May llama.cpp be given this file? What makes it abort, or run on with nonsense, is refused here in one line.

llama.cpp refuses a file with a broken structure, but aborts its process over many values that parse well, and loads others in
silence. The rules come from its source (llama-model.cpp, llama-vocab.cpp, gguf.cpp) and hold for every architecture: one
that is not known here is not refused for its name. What no rule here foresees is caught by agent.engine.trial.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import GGUFError
from agent.gguf.data import check_data
from agent.gguf.inspection import is_template
from agent.gguf.keys import INTEGERS, odd_kinds
from agent.gguf.reader import Header, read_header
from agent.templates.limits import MAX_TEMPLATE_BYTES
from agent.text import brief, display

MAX_LAYERS = 512  # LLAMA_MAX_LAYERS
MAX_EXPERTS = 1024  # LLAMA_MAX_EXPERTS
MAX_NAME = 63  # GGML_MAX_NAME, less its zero byte
MAX_TOKEN_BYTES = 16_384

POOLINGS = range(5)  # enum llama_pooling_type
# Architectures whose graph asserts that keys and values have one width and RoPE turns all of it (llama.cpp's src/models).
WHOLE_HEAD_ROPE = frozenset({
    "llama", "mistral3", "qwen2", "qwen2moe", "qwen3", "qwen3moe", "olmo2", "olmoe", "granite", "smollm3", "gpt-oss",
})  # fmt: skip
ROPE_SCALINGS = frozenset({"none", "linear", "yarn", "longrope"})
TOKENIZERS = frozenset({"llama", "bert", "gpt2", "t5", "rwkv", "plamo2", "gemma4", "hybriddna", "whitespace"})
_NO_VOCABULARY = frozenset({"no_vocab", "none"})
_ESCAPE = re.compile(rb"\\(?:x([0-9a-f]{2})|(.))", re.DOTALL)  # how a file writes the tokens of RWKV's vocabulary
_MERGED = frozenset({"gpt2", "gemma4", "hybriddna", "whitespace"})  # tokenizers that do not load without merges
_BYTE_FALLBACK = frozenset({"llama", "plamo2"})  # tokenizers that look every unknown byte up

Rule = Callable[[Header], Iterator[str]]


def check(path: Path, *, data: bool = False) -> Header:
    """The header of a file that llama.cpp may be given.

    Args:
        path: the file.
        data: read the weights too, all of them, and refuse NaN and infinity.

    Raises:
        GGUFError: the file is broken, or llama.cpp would abort over it or run with nonsense; says what is wrong.
    """
    header = read_header(path)
    check_header(header, path)
    if data:
        check_data(path, header)
    return header


def check_header(header: Header, name: Path | str) -> None:
    """GGUFError when llama.cpp must not be given the file of this name; its weights are not looked at."""
    for rule in _RULES:
        for fault in rule(header):
            raise GGUFError(f"{name} must not be loaded: {display(fault)}; get or make another one")


def _architecture(header: Header) -> Iterator[str]:
    kind = header.keys.get("general.type", "model")
    if not _is(kind, "model"):
        yield f"it is of the type {brief(kind)}, not a model"
    if header.types.get("general.architecture") != "str" or not header.keys["general.architecture"]:
        yield "general.architecture does not name an architecture"


def _whole(header: Header) -> Iterator[str]:
    if (parts := header.keys.get("split.count", 0)) > 1:
        yield f"it is one of {parts} parts of a model; merge them first (llama-gguf-split --merge)"


def _tensors(header: Header) -> Iterator[str]:
    """llama.cpp wants the tensors one behind the other, in the order of the table, each padded to the alignment."""
    if not header.tensors:
        yield "it has no tensor"
    position = header.data_offset
    for entry in header.tensors.values():
        if not entry.name or len(entry.name.encode("utf-8", "surrogateescape")) > MAX_NAME:
            yield f"the name of tensor {brief(entry.name)} is empty or longer than {MAX_NAME} bytes"
        if entry.offset != position:
            what = "overlaps the tensor before it" if entry.offset < position else "leaves a hole before it"
            yield f"the data of tensor {brief(entry.name)} {what}"
        position = entry.offset + -(-entry.nbytes // header.alignment) * header.alignment
    if header.file_size > position:
        yield f"{header.file_size - position} bytes lie behind its last tensor"


def _numbers(header: Header) -> Iterator[str]:
    for key, value in header.keys.items():
        kind = header.types[key]
        if kind in ("f32", "f64") and not math.isfinite(value):
            yield f"{brief(key)} is {value}"
        if kind in ("arr[f32]", "arr[f64]") and not np.isfinite(value).all():
            yield f"{brief(key)} holds NaN or infinity"


def _hyperparameters(header: Header) -> Iterator[str]:
    arch = header.keys["general.architecture"]
    hp = {k.removeprefix(f"{arch}."): v for k, v in header.keys.items() if k.startswith(f"{arch}.")}
    for key, least, most, usual in (
        ("block_count", 1, MAX_LAYERS, None),
        ("context_length", 1, (1 << 31) - 1, None),
        ("embedding_length", 1, (1 << 24) - 1, None),
        ("expert_count", 0, MAX_EXPERTS, 0),
        ("pooling_type", POOLINGS.start, POOLINGS.stop - 1, 0),
    ):
        value = hp.get(key, usual)
        if value is None or not least <= value <= most:
            yield f"{arch}.{key} is {brief(value)} and must be a whole number from {least} to {most}"
    if (ahead := hp.get("nextn_predict_layers", 0)) > hp["block_count"]:
        yield f"{arch}.nextn_predict_layers is {ahead} of {hp['block_count']} blocks"
    yield from _experts(arch, hp)
    yield from _heads(arch, hp)
    for key, value in hp.items():
        if key.endswith(("norm_epsilon", "norm_rms_epsilon")):
            if not isinstance(value, float) or not 0 < value < 1:
                yield f"{arch}.{key} is {brief(value)} and must be a small positive number"
        elif re.fullmatch(r"rope\.freq_base(_\w+)?", key):
            if not isinstance(value, float) or value <= 0:
                yield f"{arch}.{key} is {brief(value)} and must be positive"
        elif key == "rope.scaling.type" and value not in ROPE_SCALINGS:
            yield f"{arch}.{key} is {brief(value)}; llama.cpp knows {', '.join(sorted(ROPE_SCALINGS))}"
        elif key in ("rope.scaling.factor", "rope.scale_linear") and value < 0:
            yield f"{arch}.{key} is {brief(value)} and must not be negative"


def _experts(arch: str, hp: Mapping[str, Any]) -> Iterator[str]:
    count, used = hp.get("expert_count", 0), hp.get("expert_used_count", 0)
    most = int(np.max(used))
    if not (0 < most <= count if count else most == 0):
        yield f"{arch}.expert_used_count is {brief(used)} of {count} experts"
    groups, chosen = hp.get("expert_group_count", 0), hp.get("expert_group_used_count", 0)
    if groups > 1 and (groups >= count or count % groups or not 0 < chosen < groups):
        yield f"{arch} has {brief(count)} experts in {groups} groups, {chosen} of them used"
    elif groups == 1 and count <= 1:
        yield f"{arch} has a group of {brief(count)} experts"


def _heads(arch: str, hp: Mapping[str, Any]) -> Iterator[str]:
    heads = hp.get("attention.head_count")
    if not isinstance(heads, int) or heads <= 0:
        return  # an array, one for each layer, or no attention at all
    keys = hp.get("attention.key_length", hp["embedding_length"] // heads)
    values = hp.get("attention.value_length", hp["embedding_length"] // heads)
    turned = hp.get("rope.dimension_count", keys)
    if max(keys, values, turned) >= 1 << 16:
        yield f"{arch} has heads of {brief(keys)} and {brief(values)}, of which RoPE turns {brief(turned)}"
    elif (turned % 2 and "rope.dimension_count" in hp) or turned > keys:
        yield f"{arch}.rope.dimension_count is {turned} for heads of {keys}; it must be even and no larger"
    elif arch in WHOLE_HEAD_ROPE and not keys == values == turned:
        yield f"{arch} has heads of {keys} and {values}, of which RoPE turns {turned}; they must be equal"


def _vocabulary(header: Header) -> Iterator[str]:
    model = header.keys.get("tokenizer.ggml.model")
    if _is(model, *_NO_VOCABULARY):
        return
    if not _is(model, *TOKENIZERS):
        yield f"tokenizer.ggml.model is {brief(model)}; known are {', '.join(sorted(TOKENIZERS))}"
    if header.types.get("tokenizer.ggml.tokens") != "arr[str]" or not header.keys["tokenizer.ggml.tokens"]:
        yield "tokenizer.ggml.tokens is not a list of tokens"
        return
    tokens: list[str] = header.keys["tokenizer.ggml.tokens"]
    yield from _tokens(tokens)
    for key, kinds in (
        ("scores", ("arr[f32]", "arr[i32]")), ("token_type", ("arr[i32]",)), ("merges", ("arr[str]",)),
    ):  # fmt: skip
        kind = header.types.get(f"tokenizer.ggml.{key}")
        if kind is not None and kind not in kinds:
            yield f"tokenizer.ggml.{key} is of the type {kind} and must be {' or '.join(kinds)}"
        if kind is not None and key != "merges" and len(header.keys[f"tokenizer.ggml.{key}"]) != len(tokens):
            yield f"tokenizer.ggml.{key} has {len(header.keys[f'tokenizer.ggml.{key}'])} entries for {len(tokens)} tokens"
    types = header.keys.get("tokenizer.ggml.token_type")
    if types is not None and (types.min() < 0 or types.max() > 6):
        yield f"tokenizer.ggml.token_type has the unknown type {types.max() if types.max() > 6 else types.min()}"
    yield from _token_ids(header, len(tokens))
    yield from _fitting(header, str(model), tokens)


def _tokens(tokens: list[str]) -> Iterator[str]:
    known = set(tokens)
    if len(known) != len(tokens):
        seen: set[str] = set()
        again = next(t for t in tokens if t in seen or seen.add(t))  # type: ignore[func-returns-value]
        yield f"the token {brief(again)} stands in its vocabulary twice, and llama.cpp would abort"
    if "" in known:
        yield f"token {tokens.index('')} is empty"
    # No character has more than four bytes, so most vocabularies are through after one comparison.
    if max(map(len, tokens)) * 4 > MAX_TOKEN_BYTES:
        sizes = [len(t.encode("utf-8", "surrogateescape")) for t in tokens]
        if max(sizes) > MAX_TOKEN_BYTES:
            yield f"token {sizes.index(max(sizes))} is {max(sizes)} bytes long"


def _token_ids(header: Header, count: int) -> Iterator[str]:
    for key, value in header.keys.items():
        if not (key.startswith("tokenizer.ggml.") and key.endswith(("_token_id", "_token_ids"))):
            continue
        kind = header.types[key]
        if key.endswith("s"):
            kind = kind.removeprefix("arr[").removesuffix("]")
        ids = np.atleast_1d(value) if kind in INTEGERS else np.array([-1])
        if ids.size and (ids.min() < 0 or ids.max() >= count):
            yield f"{brief(key)} is {brief(value)} in a vocabulary of {count} tokens"


def _fitting(header: Header, model: str, tokens: list[str]) -> Iterator[str]:
    unmerged = _is(header.keys.get("tokenizer.ggml.pre"), "kimi-k2")
    if model in _MERGED and "tokenizer.ggml.merges" not in header.keys and not unmerged:
        yield f"its {model!r} tokenizer has no merges"
    if model in _BYTE_FALLBACK:
        known = set(tokens)
        lost = [b for b in range(256) if f"<0x{b:02X}>" not in known and not (model == "llama" and _raw_byte(b) in known)]
        if lost:
            yield f"its {model!r} tokenizer has no token for byte 0x{lost[0]:02X} ({len(lost)} such), and llama.cpp would abort"
    if model == "rwkv" and (byte := _without_end(tokens)) is not None:
        yield (
            f"tokenizer.ggml.model is 'rwkv', which would never end: tokens begin with byte 0x{byte:02X}, and none "
            "is that byte alone"
        )
    if model == "bert":
        for key, usual in (("bos_token_id", 101), ("seperator_token_id", 102)):  # llama.cpp's spelling, and its defaults
            if header.keys.get(f"tokenizer.ggml.{key}", usual) >= len(tokens):
                yield f"its 'bert' tokenizer has no tokenizer.ggml.{key}, and llama.cpp would abort"
    causal = header.keys.get(f"{header.keys['general.architecture']}.attention.causal", True)
    if model == "bert" and causal is not False:
        yield "its 'bert' tokenizer does not fit a model that writes text"
    embedding = header.tensors.get("token_embd.weight")
    if embedding is not None and embedding.shape[:-1] != (len(tokens),):
        yield f"token_embd.weight has the shape {list(embedding.shape)} for {len(tokens)} tokens"


def _without_end(tokens: Iterable[str]) -> int | None:
    """A byte that begins tokens of an RWKV vocabulary and is none itself: llama.cpp never gets past it."""
    texts = [_ESCAPE.sub(_unescaped, t.encode("utf-8", "surrogateescape")) for t in tokens]
    lost = {t[:1] for t in texts} - set(texts)
    return min(lost)[0] if lost else None


def _unescaped(found: re.Match[bytes]) -> bytes:
    code, letter = found.groups()
    return bytes.fromhex(code.decode()) if code else {b"t": b"\t", b"n": b"\n", b"r": b"\r"}.get(letter, letter)


def _raw_byte(b: int) -> str:
    return bytes([b]).decode("utf-8", "surrogateescape")


def _templates(header: Header) -> Iterator[str]:
    for key, value in header.keys.items():
        if not is_template(key):
            continue
        if not isinstance(value, str):
            yield f"{brief(key)} is not a text"
        elif len(value.encode("utf-8", "surrogateescape")) > MAX_TEMPLATE_BYTES:
            yield f"{brief(key)} is larger than {MAX_TEMPLATE_BYTES} bytes"


def _is(value: object, *names: str) -> bool:
    """Whether the value is one of these texts; False for a value of any other type, an array for instance."""
    return isinstance(value, str) and value in names


_RULES: tuple[Rule, ...] = (_architecture, _tensors, _numbers, odd_kinds, _whole, _hyperparameters, _vocabulary, _templates)
