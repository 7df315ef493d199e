"""Reads a source into a model: its keys, its tensors, and the facts that the recipes ask for. No types are chosen yet.

A checkpoint and a GGUF both become a ``Model``, and from there on they are treated alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from gguf import Keys

from agent.errors import CheckpointError, GGUFError, UnsupportedError
from agent.gguf.check import check
from agent.gguf.types import F32, GGMLType
from pipeline.architectures.find import find_architecture
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.card import general_keys, quantization_keys
from pipeline.format import ggml
from pipeline.format.gguf_file import Raw, Value
from pipeline.recipes.names import Recipe
from pipeline.recipes.rules import ModelFacts
from pipeline.sources.checkpoint import PLAIN_TYPES, SOURCE_TYPES, Checkpoint, TensorInfo
from pipeline.sources.sample import is_here, open_sample
from pipeline.sources.source import Source, headers, read_config
from pipeline.vocab.template import choose_template
from pipeline.vocab.vocabulary import load_vocabulary


@dataclass(frozen=True, slots=True)
class TiedHead:
    """A head that is a copy of the embedding and is left out; both are checkpoint names."""

    head: str
    embedding: str


@dataclass(frozen=True, slots=True)
class Model:
    """A source, read, as a plan needs it.

    Attributes:
        architecture: general.architecture.
        keys: all keys but those that depend on the run.
        tensors: every output tensor.
        infos: the tensors of the source.
        stored: tensor name -> the type in which it is copied when the recipe leaves it alone.
        facts: what the recipes ask for.
        template: a word on the chat template.
        probes: text -> token ids of the original tokenizer.
        notes: one-line remarks for a person.
        tied_head: the duplicate head that is left out.
    """

    architecture: str
    keys: dict[str, Value]
    tensors: list[Tensor]
    infos: Mapping[str, TensorInfo]
    stored: dict[str, GGMLType]
    facts: ModelFacts
    template: str = "none"
    probes: Mapping[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    tied_head: TiedHead | None = None


@dataclass(frozen=True, slots=True)
class Changes:
    """What a person wants otherwise than the source has it.

    Attributes:
        context_length: tokens that the file says it was trained for.
        chat_template: a file with another chat template.
    """

    context_length: int | None = None
    chat_template: Path | None = None


def from_checkpoint(source: Source, recipe: Recipe, changes: Changes = Changes()) -> Model:
    """Read a Hugging Face checkpoint on the Hub or in a folder. Raises SprigError if it cannot be converted."""
    config = read_config(source)
    found = find_architecture(config)
    infos = headers(source)
    arch = found(config, infos, source.files)
    keys = arch.gguf_keys()
    tensors = arch.tensors()
    keys |= arch.number_keys(_numbers(source, infos, arch.numbers()))
    stored = {t.name: _stored(t, infos) for t in tensors}
    packed = sorted({infos[s.source].packed for t in tensors for s in t.sources} - {""})
    notes = [*arch.notes(), *(f"the checkpoint is {kind} already: what its rounding lost stays lost" for kind in packed)]
    if changes.context_length:
        keys[Keys.LLM.CONTEXT_LENGTH.format(arch=arch.gguf)] = changes.context_length
    notes += _context_note(arch, changes.context_length)
    tied_head = None
    head = next((t for t in tensors if t.name == "output.weight"), None)
    embedding = next((t for t in tensors if t.name == "token_embd.weight"), None)
    if head is None and arch.bare and not arch.tied and "output.weight" in arch.names.values():
        notes.append("the checkpoint is a bare backbone, without its head: it is good for embeddings, not for text")
    if head and embedding and arch.tied:
        pair = TiedHead(head.sources[0].source, embedding.sources[0].source)
        if _equal(source, pair):
            tensors.remove(head)
            tied_head = pair
        else:
            notes.append(f"config.json ties the head to the embedding, but {pair.head} differs from it; both are written")
    vocabulary = load_vocabulary(source.files, arch.vocab_rows, config)
    template = choose_template(vocabulary.templates, vocabulary.keys, changes.chat_template)
    n_weights = sum(prod(t.shape) for t in tensors)
    general = general_keys(source, arch.gguf, n_weights, recipe)
    facts = _facts(arch.gguf, keys)
    name = str(general[Keys.General.NAME])
    if vocabulary.name_needs not in name.lower():  # llama.cpp tells this family's tokenizer by the model's name
        general[Keys.General.NAME] = f"{name} ({vocabulary.name_needs})"
    elif not vocabulary.name_needs:  # and would give it to every other that is called so, or refuse its tokens
        general[Keys.General.NAME] = re.sub(r"(phi)-?(?=3)", r"\1 ", name, flags=re.IGNORECASE)
    all_keys: dict[str, Value] = {**general, **keys, **vocabulary.keys, **template.keys}
    return Model(
        arch.gguf, all_keys, tensors, infos, stored, facts, template.words, dict(vocabulary.probes),
        (*notes, *vocabulary.notes, *template.notes), tied_head,
    )  # fmt: skip


def _context_note(arch: Architecture, wanted: int | None) -> list[str]:
    """A line where llama.cpp computes what the original does only up to the window of its attention."""
    window = arch.exact_context
    if window is None or (wanted is not None and wanted <= window):
        return []
    said = f"llama.cpp's {arch.gguf} has no sliding window, and computes what the original does only up to it"
    if wanted is not None:
        return [f"context_length is {wanted:,} as asked for, the window {window:,} tokens: {said}"]
    trained = arch.integer("max_position_embeddings")
    return [f"context_length is {window:,}, the window, not {trained:,}: {said}; --context-length gives another"]


def _stored(tensor: Tensor, infos: Mapping[str, TensorInfo]) -> GGMLType:
    """The type in which a tensor is copied when the recipe leaves it alone."""
    sources = [infos[s.source] for s in tensor.sources]
    odd = next((info for info in sources if info.dtype not in PLAIN_TYPES), None)
    if odd is not None:
        raise UnsupportedError(
            f"tensor {odd.name!r} is stored as {odd.dtype}, which is no plain float; use the original, unquantized checkpoint"
        )
    kinds = {info.dtype for info in sources}
    return F32 if tensor.f32 or len(kinds) != 1 or kinds == {"F64"} else SOURCE_TYPES[kinds.pop()]


def _facts(architecture: str, keys: Mapping[str, Any]) -> ModelFacts:
    def first(name: str, default: int = 0) -> int:
        value = keys.get(name.format(arch=architecture), default)
        items = np.ravel(value)
        return int(items[0]) if items.size else default

    heads = first(Keys.Attention.HEAD_COUNT, 1)
    kv_heads = first(Keys.Attention.HEAD_COUNT_KV, heads)
    return ModelFacts(architecture, first(Keys.LLM.BLOCK_COUNT), heads, kv_heads, first(Keys.LLM.EXPERT_COUNT))


def heads_equal(checkpoint: Checkpoint, pair: TiedHead, sample: int | None = None) -> bool:
    """Whether head and embedding hold the same bytes; ``sample`` compares that many rows, spread evenly, instead of all."""
    a, b = checkpoint.tensors[pair.head], checkpoint.tensors[pair.embedding]
    if (a.shape, a.dtype) != (b.shape, b.dtype):
        return False
    step = 1 if sample else max(1, (8 << 20) // max(1, a.row_bytes))
    starts = sorted({int(i) for i in np.linspace(0, a.n_rows - 1, sample)}) if sample else range(0, a.n_rows, step)
    spans = [(i, min(i + step, a.n_rows)) for i in starts]
    return all(np.array_equal(checkpoint.rows(a.name, *span), checkpoint.rows(b.name, *span)) for span in spans)


def _numbers(source: Source, infos: Mapping[str, TensorInfo], names: list[str]) -> dict[str, float]:
    """The values of tensors of one number each. Raises CheckpointError if one is not finite."""
    odd = next((name for name in names if infos[name].dtype not in SOURCE_TYPES), None)
    if odd is not None:
        raise UnsupportedError(f"tensor {odd!r} is stored as {infos[odd].dtype}, which is no plain float")
    if not names:
        return {}
    with open_sample(source) as checkpoint:
        found = {
            name: float(
                ggml.to_float(np.ascontiguousarray(checkpoint.rows(name, 0, 1)), SOURCE_TYPES[infos[name].dtype], 1)[0, 0]
            )
            for name in names
        }
    odd = next((name for name, value in found.items() if not np.isfinite(value)), None)
    if odd is not None:
        raise CheckpointError(f"tensor {odd!r} holds {found[odd]}; the checkpoint is broken: take another revision")
    return found


def _equal(source: Source, pair: TiedHead) -> bool:
    """Compare all rows if the weights are on this disk; otherwise a sample, and all rows later in the pass."""
    with open_sample(source) as checkpoint:
        return heads_equal(checkpoint, pair, None if is_here(source) else 16)


# A GGUF as the source: its keys are taken over as they are.

_OWN_KEYS = re.compile(r"^(general\.(quantization_version|file_type|alignment)$|sprig\.|quantize\.imatrix\.|split\.)")
_NEARLY_WHOLE = (*PLAIN_TYPES, "Q8_0")


def from_gguf(source: Source, recipe: Recipe, changes: Changes = Changes(), *, allow_requantize: bool = False) -> Model:
    """Read a GGUF.

    Args:
        allow_requantize: also one whose weights have lost more than Q8_0 takes.

    Raises:
        GGUFError, UnsupportedError: it is broken, or may not be a source.
    """
    assert source.path is not None
    header = check(source.path)
    unread = next((t for t in header.tensors.values() if t.type.name not in SOURCE_TYPES), None)
    if unread is not None:
        raise UnsupportedError(f"{source.path.name} has {unread.name} in {unread.type.name}, which is no type of weights")
    odd = next((t for t in header.tensors.values() if t.type.name not in _NEARLY_WHOLE), None)
    if odd is not None and not allow_requantize:
        raise UnsupportedError(
            f"{source.path.name} is already quantized ({odd.name} is {odd.type.name}); quantizing twice loses twice: "
            "start from a GGUF in F32, F16, BF16 or Q8_0, or accept the loss with --allow-requantize"
        )
    if Keys.Split.LLM_KV_SPLIT_COUNT in header.keys and int(header.keys[Keys.Split.LLM_KV_SPLIT_COUNT]) > 1:
        raise UnsupportedError(
            f"{source.path.name} is one of {header.keys['split.count']} parts; join them with llama-gguf-split --merge"
        )
    architecture = str(header.keys.get(Keys.General.ARCHITECTURE, ""))
    if not architecture:
        raise GGUFError(f"{source.path.name} does not say its architecture; it is not a model")
    keys: dict[str, Value] = {k: Raw(v) for k, v in header.raw_keys.items() if not _OWN_KEYS.match(k)}
    infos = {
        t.name: TensorInfo(t.name, t.type.name, t.shape, source.path.name, t.offset, t.nbytes) for t in header.tensors.values()
    }
    tensors = [Tensor(t.name, t.shape, (Slice(t.name),)) for t in header.tensors.values()]
    stored = {t.name: t.type for t in header.tensors.values()}
    notes = _lost_before(stored, recipe)
    template = "as in the source" if Keys.Tokenizer.CHAT_TEMPLATE in header.keys else "none"
    if changes.context_length:
        keys[Keys.LLM.CONTEXT_LENGTH.format(arch=architecture)] = changes.context_length
    if changes.chat_template:
        chosen = choose_template({}, header.keys, changes.chat_template)
        keys = {k: v for k, v in keys.items() if not k.startswith("tokenizer.chat_template")} | chosen.keys
        template = chosen.words
    return Model(
        architecture, keys | quantization_keys(recipe), tensors, infos, stored, _facts(architecture, header.keys),
        template, notes=notes,
    )  # fmt: skip


def _lost_before(stored: Mapping[str, GGMLType], recipe: Recipe) -> tuple[str, ...]:
    """What a person should know of a source that is rounded already."""
    kinds = [kind for kind, _ in Counter(t.name for t in stored.values()).most_common() if kind not in PLAIN_TYPES]
    if not kinds or (kinds == ["Q8_0"] and not recipe.quantized):
        return ()
    lost = f"the source is {', '.join(kinds)} already: what its rounding lost stays lost"
    more = recipe.quantized and kinds != ["Q8_0"]
    return (lost + ", and this rounding loses more on top of it; from the original weights it loses once" if more else lost,)
