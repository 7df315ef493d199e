"""What is in a GGUF as plain data: keys, tensors, types, vocabulary, templates. No weight is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any, Literal

import numpy as np

from agent.gguf.reader import Header, read_header
from agent.gguf.types import ARM_REPACKED
from agent.text import shortened

_SHOWN_ITEMS = 8  # of an array; a vocabulary has a hundred thousand
_SHOWN_CHARACTERS = 100_000  # of a text; a licence has ten thousand


@dataclass(frozen=True, slots=True)
class TensorLine:
    """One tensor; ``shape`` has rows last, ``nbytes`` is its size in the file."""

    name: str
    shape: tuple[int, ...]
    type: str
    nbytes: int

    @property
    def n_weights(self) -> int:
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class VocabularyFacts:
    """The tokenizer as GGUF's keys describe it.

    Attributes:
        model: "gpt2" (byte-level BPE), "llama" (SentencePiece), "bert", ...
        pre: which pre-tokenizer, when it is BPE.
        size: tokens, unused ones included.
        merges: of a BPE.
        special: role ("bos", "eos", ...) -> (id, text).
    """

    model: str
    pre: str | None
    size: int
    merges: int
    special: Mapping[str, tuple[int, str]]


@dataclass(frozen=True, slots=True)
class Inspection:
    """All that `sprig inspect` tells. Every text in it comes from the file: untrusted, to be shown with ``display``.

    Attributes:
        name: path of the file, or how the model was named.
        kind: "gguf", or "checkpoint" when the keys are those that its GGUF would have.
        size: bytes of the file, or of all weight files.
        version: of the GGUF format; None for a checkpoint.
        keys: key -> value; of a long array only the first items and the length.
        templates: name ("default", "tool_use", ...) -> Jinja source.
        notes: what could not be told, and why.
    """

    name: str
    kind: Literal["gguf", "checkpoint"]
    size: int
    version: int | None
    keys: Mapping[str, Any]
    tensors: tuple[TensorLine, ...]
    vocabulary: VocabularyFacts | None
    templates: Mapping[str, str]
    notes: tuple[str, ...] = ()

    @property
    def architecture(self) -> str:
        return str(self.keys.get("general.architecture", "unknown"))

    @property
    def n_weights(self) -> int:
        return sum(t.n_weights for t in self.tensors)

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.size / max(1, self.n_weights)

    def hyper(self, name: str) -> Any:
        """A key under the architecture's own prefix, None where there is none."""
        return self.keys.get(f"{self.architecture}.{name}")

    @property
    def types(self) -> dict[str, tuple[int, int, int]]:
        """type -> (tensors, weights, bytes), the largest first."""
        totals: dict[str, tuple[int, int, int]] = {}
        for t in self.tensors:
            n, weights, nbytes = totals.get(t.type, (0, 0, 0))
            totals[t.type] = (n + 1, weights + t.n_weights, nbytes + t.nbytes)
        return dict(sorted(totals.items(), key=lambda item: -item[1][2]))

    @property
    def slow_on_arm(self) -> dict[str, float]:
        """type -> share of the multiplied weights, for types that ggml does not repack for ARM's matrix kernels.

        An embedding beside a head of its own is looked up, not multiplied, and does not count.
        """
        untied = any(t.name == "output.weight" for t in self.tensors)
        looked_up = {"token_embd.weight", "per_layer_token_embd.weight"} if untied else {"per_layer_token_embd.weight"}
        matrices = [t for t in self.tensors if len(t.shape) >= 2 and t.name not in looked_up]
        total = sum(t.n_weights for t in matrices)
        slow: dict[str, float] = {}
        for t in matrices:
            if t.type not in ARM_REPACKED:
                slow[t.type] = slow.get(t.type, 0) + t.n_weights / total
        return dict(sorted(slow.items(), key=lambda item: -item[1]))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        told = asdict(self)
        version = told.pop("version")
        return {
            **told,
            "gguf_version": version,
            "architecture": self.architecture,
            "weights": self.n_weights,
            "bits_per_weight": round(self.bits_per_weight, 3),
            "types": {k: {"tensors": n, "weights": w, "bytes": b} for k, (n, w, b) in self.types.items()},
            "slow_on_arm": {k: round(v, 4) for k, v in self.slow_on_arm.items()} if self.kind == "gguf" else None,
        }


def inspect_gguf(path: Path) -> Inspection:
    """What is in a GGUF file. Raises GGUFError."""
    header = read_header(path)
    tensors = tuple(TensorLine(t.name, t.shape, t.type.name, t.nbytes) for t in header.tensors.values())
    keys = {key: plain(value) for key, value in header.keys.items() if not is_template(key)}
    return Inspection(
        str(path), "gguf", header.file_size, header.version, keys, tensors, vocabulary_facts(header.keys), _templates(header)
    )


def _templates(header: Header) -> dict[str, str]:
    texts = {key: value for key, value in header.keys.items() if is_template(key) and isinstance(value, str)}
    return {key.removeprefix("tokenizer.chat_template").removeprefix(".") or "default": value for key, value in texts.items()}


def is_template(key: str) -> bool:
    return key == "tokenizer.chat_template" or key.startswith("tokenizer.chat_template.")


def plain(value: Any) -> Any:
    """A key's value as JSON can hold it; a long array as its length and first items."""
    if isinstance(value, np.ndarray):
        first = value[:_SHOWN_ITEMS].tolist()
        return {"length": len(value), "first": plain(first)} if len(value) > _SHOWN_ITEMS else plain(first)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str):
        return shortened(value, _SHOWN_CHARACTERS)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, float) and not np.isfinite(value):
        return str(value)
    if isinstance(value, list | tuple):
        items = [plain(v) for v in value[:_SHOWN_ITEMS]]
        return {"length": len(value), "first": items} if len(value) > _SHOWN_ITEMS else items
    return value


def vocabulary_facts(keys: Mapping[str, Any]) -> VocabularyFacts | None:
    tokens = keys.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list):
        return None
    special = {}
    for key, value in keys.items():
        if key.startswith("tokenizer.ggml.") and key.endswith("_token_id") and isinstance(value, int):
            text = plain(tokens[value]) if 0 <= value < len(tokens) else "not in the vocabulary"
            special[key.removeprefix("tokenizer.ggml.").removesuffix("_token_id")] = (value, text)
    merges = keys.get("tokenizer.ggml.merges")
    pre = keys.get("tokenizer.ggml.pre")
    return VocabularyFacts(
        model=str(keys.get("tokenizer.ggml.model", "unknown")),
        pre=None if pre is None else str(pre),
        size=len(tokens),
        merges=len(merges) if isinstance(merges, list) else 0,
        special=special,
    )
