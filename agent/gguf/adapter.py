"""May llama.cpp be given this GGUF adapter (LoRA), for this model? What it would abort over is refused here in one line.

Of a tensor NAME of the model, an adapter holds ``NAME.lora_a`` [rank, inputs] and ``NAME.lora_b`` [outputs, rank] (experts: one
dimension more). Of the token embedding both lie the other way round: [tokens, rank] and [width, rank]. The rules come from
llama.cpp's source (llama-adapter.cpp, llama-graph.cpp).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.errors import GGUFError
from agent.gguf.reader import Header, TensorEntry, read_header
from agent.text import brief, display

EMBEDDING, HEAD = "token_embd.weight", "output.weight"
_A, _B = ".lora_a", ".lora_b"
# What is a number and can be multiplied with; the integer types and F64 cannot.
_NOT_WEIGHTS = frozenset({"I8", "I16", "I32", "I64", "F64", "Q8_K", "Q8_1"})
# Tensors that llama.cpp's graphs (src/models) multiply with, or look up in, without a look at an adapter.
_PASSED_OVER = re.compile(
    r"per_layer_(?:model_proj|token_embd)\.|(?:.*\.)?altup_(?:proj|unembd_proj|router)\.|blk\.\d+\.attn_(?:q_a|q_b|kv_a_mqa|kv_b)\."
)
_MAX_NAME = 63  # GGML_MAX_NAME, less its zero byte


@dataclass(frozen=True, slots=True)
class Pair:
    """A and B of one tensor of the model."""

    a: TensorEntry
    b: TensorEntry


def is_adapter(header: Header) -> bool:
    """Whether the file says that it is an adapter."""
    return _text(header, "general.type") == "adapter"


def passed_over(architecture: str, name: str) -> bool:
    """Whether llama.cpp computes with this tensor of a model as it is, whatever an adapter says."""
    return architecture != "deepseek4" and _PASSED_OVER.match(name) is not None


def check_adapter(path: Path) -> tuple[Header, dict[str, Pair]]:
    """The header of an adapter that is sound by itself, and its pairs by the name of the model's tensor.

    Raises:
        GGUFError: the file is broken, is no LoRA adapter, or llama.cpp would abort over it.
    """
    header = read_header(path)
    for fault in _keys(header):
        raise GGUFError(f"{path} cannot be used as an adapter: {display(fault)}")
    pairs: dict[str, Pair] = {}
    for name, entry in header.tensors.items():
        base = name.removesuffix(_A).removesuffix(_B)
        a, b = header.tensors.get(base + _A), header.tensors.get(base + _B)
        if base == name or a is None or b is None:
            raise GGUFError(f"{path} cannot be used as an adapter: tensor {brief(name)} has no other half; make it again")
        if len(name.encode("utf-8", "surrogateescape")) > _MAX_NAME or entry.type.name in _NOT_WEIGHTS:
            raise GGUFError(f"{path} cannot be used as an adapter: tensor {brief(name)} ({entry.type.name}) is none of LoRA")
        pairs[base] = Pair(a, b)
    if not pairs:
        raise GGUFError(f"{path} cannot be used as an adapter: it has no tensor; make it again")
    return header, pairs


def check_fits(path: Path, header: Header, pairs: dict[str, Pair], model: Header, name: str) -> None:
    """Refuse an adapter that was not made for a model. Raises GGUFError.

    Args:
        path, header, pairs: of the adapter, as ``check_adapter`` gives them.
        model, name: the model's header and what it is called.
    """
    ours, theirs = _text(model, "general.architecture"), _text(header, "general.architecture")
    if ours != theirs:
        raise GGUFError(
            f"{path} is an adapter for {display(theirs)}, and {display(name)} is {display(ours)}; take one made for it"
        )
    for base, pair in pairs.items():
        tensor = model.tensors.get(base)
        if tensor is None:
            raise GGUFError(f"{path} changes {brief(base)}, which {display(name)} does not have; it is for another model")
        if passed_over(ours, base):
            raise GGUFError(
                f"{path} changes {brief(base)}, where llama.cpp computes with the model's own weights; merge the adapter "
                "into its base instead (sprig quantize)"
            )
        if base == EMBEDDING and HEAD not in model.tensors:
            raise GGUFError(
                f"{path} changes the token embedding, which is the output of {display(name)} too, over which llama.cpp would "
                "abort; merge the adapter into its base instead (sprig quantize)"
            )
        if not _fits(base, pair, tensor):
            shapes = f"{list(pair.a.shape)} and {list(pair.b.shape)}"
            raise GGUFError(
                f"{path} changes {brief(base)} by matrices of {shapes}, which do not fit {list(tensor.shape)} in "
                f"{display(name)}; it is for another model"
            )


def _keys(header: Header) -> Iterator[str]:
    """What llama.cpp reads of the keys; it aborts where one has another type than it thinks."""
    if not is_adapter(header):
        yield f"it is of the type {brief(header.keys.get('general.type', 'model'))}; sprig quantize ADAPTER --lora makes one"
    if _text(header, "adapter.type") != "lora":
        yield f"it is an adapter of the type {brief(header.keys.get('adapter.type'))}, and only lora is known"
    if not _text(header, "general.architecture"):
        yield "it does not say for which architecture it is"
    alpha = header.keys.get("adapter.lora.alpha", 0.0)
    if header.types.get("adapter.lora.alpha", "f32") != "f32" or not math.isfinite(alpha) or alpha < 0:
        yield f"adapter.lora.alpha is {brief(alpha)} and must be a positive number"
    if "adapter.alora.invocation_tokens" in header.keys:
        yield "it wakes at certain tokens only (aLoRA), which is not supported"


def _fits(base: str, pair: Pair, tensor: TensorEntry) -> bool:
    a, b, shape = pair.a.shape, pair.b.shape, tensor.shape
    if len(shape) not in (2, 3) or len(a) != len(shape) or len(b) != len(shape) or not b[-1]:
        return False
    if base == EMBEDDING:
        return a == (shape[0], b[-1]) and b[0] == shape[1]
    return a == (*shape[:-2], b[-1], shape[-1]) and b[:-1] == shape[:-1]


def _text(header: Header, key: str) -> str:
    return str(header.keys[key]) if header.types.get(key) == "str" else ""
