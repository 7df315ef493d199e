"""A model without sense that stands in for others: llama's shape, one type of weights, made in a moment to be measured with."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path

from agent.gguf.types import TYPES_BY_NAME, GGMLType

_ALIGNMENT = 32
_EMBEDDING = "token_embd.weight"
_BYTE = b"\x2c"  # two of them are 0.065 in half precision: no scale of any type is zero, infinite or too small
_ONE = struct.pack("<f", 1.0)
_U32, _F32, _STR = 4, 6, 8  # types of a key's value
_F32_TYPE = TYPES_BY_NAME["F32"]


@dataclass(frozen=True, slots=True)
class StandIn:
    """The shape of a stand-in. All its matrices are of one type; its embedding is its output too."""

    type: str
    width: int
    ffn: int
    layers: int
    vocab: int
    head: int = 64

    def tensors(self) -> Iterator[tuple[str, tuple[int, ...], GGMLType]]:
        """Name, shape (rows last) and type, in the order of the file."""
        kind, d, kv = TYPES_BY_NAME[self.type], self.width, self.width // 4
        yield _EMBEDDING, (self.vocab, d), kind
        yield "output_norm.weight", (d,), _F32_TYPE
        for i in range(self.layers):
            b = f"blk.{i}."
            yield f"{b}attn_norm.weight", (d,), _F32_TYPE
            yield f"{b}ffn_norm.weight", (d,), _F32_TYPE
            for name, rows, columns in (
                ("attn_q", d, d), ("attn_k", kv, d), ("attn_v", kv, d), ("attn_output", d, d),
                ("ffn_gate", self.ffn, d), ("ffn_up", self.ffn, d), ("ffn_down", d, self.ffn),
            ):  # fmt: skip
                yield f"{b}{name}.weight", (rows, columns), kind

    @property
    def weights(self) -> int:
        """Weights that a token of a prompt is multiplied with."""
        return sum(prod(shape) for name, shape, _ in self.tensors() if len(shape) > 1 and name != _EMBEDDING)

    @property
    def nbytes(self) -> int:
        """Bytes that are read for a token."""
        return sum(kind.size(shape) for _, shape, kind in self.tensors())

    def write(self, path: Path) -> Path:
        """Write the GGUF. OSError when it cannot be written."""
        heads = self.width // self.head
        keys: dict[str, str | int | float] = {
            "general.architecture": "llama", "general.name": "stand-in", "llama.context_length": 4096,
            "llama.embedding_length": self.width, "llama.block_count": self.layers, "llama.feed_forward_length": self.ffn,
            "llama.attention.head_count": heads, "llama.attention.head_count_kv": heads // 4,
            "llama.attention.layer_norm_rms_epsilon": 1e-5, "llama.vocab_size": self.vocab, "tokenizer.ggml.model": "no_vocab",
        }  # fmt: skip
        tensors = list(self.tensors())
        head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
        head += b"".join(_text(key) + _value(value) for key, value in keys.items())
        at = 0
        for name, shape, kind in tensors:
            head += _text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind.id, at)
            at += _padded(kind.size(shape))
        with path.open("wb") as f:
            f.write(head.ljust(_padded(len(head)), b"\0"))
            for _, shape, kind in tensors:
                size = kind.size(shape)
                f.write((_ONE * shape[0] if kind is _F32_TYPE else _BYTE * size).ljust(_padded(size), b"\0"))
        return path


def _padded(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT


def _text(text: str) -> bytes:
    return struct.pack("<Q", len(text)) + text.encode()


def _value(value: str | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STR) + _text(value)
    return struct.pack("<II", _U32, value) if isinstance(value, int) else struct.pack("<If", _F32, value)
