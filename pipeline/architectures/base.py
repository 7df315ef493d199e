"""What an architecture says about its checkpoint: GGUF keys, and for each output tensor where its rows come from.

An architecture is data and small pure functions; it reads no weight. Every change of layout that a GGUF needs is one of four
steps that work on any slab of rows (concatenate, reorder rows, reorder columns, one elementwise function), so no architecture
can force a whole tensor into memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from agent.errors import CheckpointError, UnsupportedError
from pipeline.checkpoint import TensorInfo
from pipeline.gguf_file import Value

Elementwise = Literal["add_one", "neg_exp"]
Index = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows [start, stop) of a checkpoint tensor seen as a matrix; ``stop=None`` means to the end."""

    source: str
    start: int = 0
    stop: int | None = None


@dataclass(frozen=True, slots=True)
class Tensor:
    """One tensor of the GGUF.

    Attributes:
        name: its name in the GGUF.
        shape: rows last, as torch gives it (a GGUF lists the dimensions the other way round).
        sources: slices whose rows, one after the other, are its rows.
        f32: always stored as F32 (norms, biases, routers and whatever else llama.cpp wants so).
        row_order: row i of the output is row ``row_order[i]`` of the sources; None keeps the order.
        column_order: the same for columns.
        function: applied to each weight.
        values: the content itself, float32, for a tensor that no checkpoint holds (RoPE factors); then no sources.
    """

    name: str
    shape: tuple[int, ...]
    sources: tuple[Slice, ...] = ()
    f32: bool = False
    row_order: Index | None = None
    column_order: Index | None = None
    function: Elementwise | None = None
    values: npt.NDArray[np.float32] | None = None

    @property
    def row_length(self) -> int:
        return self.shape[-1]

    @property
    def n_rows(self) -> int:
        return prod(self.shape[:-1])


# Names that llama.cpp wants as F32 whatever the checkpoint holds (conversion/base.py, llama-quant.cpp).
_ALWAYS_F32 = re.compile(r"_norm\.weight$|ffn_gate_inp|ssm_conv1d|shortconv\.conv|^position_embd|^token_types")


class Architecture:
    """Base of all architectures. A subclass names its model types, its keys and its tensors.

    The table ``names`` maps checkpoint names to GGUF names; ``{i}`` stands for the block number in both, ``{e}`` for the
    expert number in the checkpoint's. A checkpoint tensor that neither ``names`` nor ``ignored`` knows is an error: a weight
    that is silently left out changes what a model says.
    """

    model_types: ClassVar[tuple[str, ...]] = ()  # config.json's model_type
    gguf: ClassVar[str] = ""  # general.architecture
    embedding: ClassVar[bool] = False  # a model that gives vectors, not text
    defaults: ClassVar[Mapping[str, Any]] = {}  # what transformers assumes where config.json is silent
    names: ClassVar[Mapping[str, str]] = {}
    optional: ClassVar[frozenset[str]] = frozenset()  # GGUF names of ``names`` that a checkpoint may lack
    ignored: ClassVar[tuple[str, ...]] = (r"rotary_emb\.inv_freq$",)  # regular expressions over checkpoint names

    def __init__(self, config: Mapping[str, Any], infos: Mapping[str, TensorInfo]) -> None:
        """
        Args:
            config: the parsed config.json.
            infos: the checkpoint's tensors, from the headers alone.
        """
        text = config.get("text_config")
        self.hp: dict[str, Any] = {**self.defaults, **config, **(text if isinstance(text, dict) else {})}
        self.infos = {self.normalize(name): info for name, info in infos.items()}

    # What a subclass may say.

    def normalize(self, name: str) -> str:
        """The checkpoint name in the spelling that ``names`` uses (prefixes of wrappers taken off)."""
        for old, new in (("model.language_model.", "model."), ("language_model.model.", "model."), ("language_model.lm_head", "lm_head")):
            if name.startswith(old):
                return new + name[len(old) :]
        return name

    def keys(self) -> dict[str, Value]:
        """GGUF keys without the architecture's prefix: "context_length" -> ..."""
        raise NotImplementedError

    def tensors(self) -> list[Tensor]:
        """Every output tensor, in any order.

        Raises:
            CheckpointError: a tensor is missing, is not known, or has another shape than the hyperparameters say.
        """
        return self.mapped()

    # What they stand on.

    def int(self, *names: str, default: int | None = None) -> int:
        """A hyperparameter that must be a positive integer, under the first of these names that config.json has."""
        return int(self._number(names, default, (int,)))

    def float(self, *names: str, default: float | None = None) -> float:
        return float(self._number(names, default, (int, float)))

    def _number(self, names: tuple[str, ...], default: float | None, kinds: tuple[type, ...]) -> Any:
        for name in names:
            value = self.hp.get(name)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, kinds) or not np.isfinite(value) or abs(value) >= 2**31:
                raise CheckpointError(f"config.json: {name} is {value!r}, which is not a usable number")
            return value
        if default is None:
            raise CheckpointError(f"config.json has no {names[0]!r}, which {self.gguf} needs")
        return default

    @property
    def n_layers(self) -> int:
        n = self.int("num_hidden_layers")
        if not 1 <= n <= 512:
            raise CheckpointError(f"config.json: num_hidden_layers is {n}; llama.cpp takes 1 to 512")
        return n

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding, so that a separate one is a duplicate."""
        return bool(self.hp.get("tie_word_embeddings", False))

    @property
    def vocab_rows(self) -> int:
        """Rows of the embedding: the size that the vocabulary is padded to."""
        for name in ("model.embed_tokens.weight", "embeddings.word_embeddings.weight"):
            if name in self.infos:
                return self.infos[name].shape[0]
        return self.int("vocab_size")

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """GGUF name pattern ("blk.{i}.attn_q.weight") -> shape, for whatever the hyperparameters determine."""
        return {}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        """The hook for layout: called with each mapped tensor, gives what is to be written for it."""
        return tensor

    def source(self, name: str) -> Slice:
        """All rows of a checkpoint tensor, by its normalized name."""
        return Slice(self.infos[name].name)

    def mapped(self) -> list[Tensor]:
        """``names`` applied to the checkpoint, experts merged, shapes checked, ``adjust`` applied."""
        groups: dict[str, dict[int, str]] = {}
        unknown = []
        patterns = [(_pattern(theirs), ours) for theirs, ours in self.names.items()]
        for name in self.infos:
            for pattern, ours in patterns:
                if match := pattern.fullmatch(name):
                    found = match.groupdict()
                    target = ours.replace("{i}", found.get("i") or "")
                    groups.setdefault(target, {})[int(found.get("e") or 0)] = name
                    break
            else:
                if not any(re.search(p, name) for p in self.ignored):
                    unknown.append(name)
        if unknown:
            raise UnsupportedError(
                f"the checkpoint has tensors that {self.gguf} does not know ({len(unknown)}, first {unknown[0]!r}); "
                "it is another model than its config.json says, or carries an adapter or quantized weights"
            )
        tensors: list[Tensor] = []
        for target, experts in groups.items():
            result = self.adjust(self._merge(target, experts))
            tensors.extend([result] if isinstance(result, Tensor) else result)
        self._check(tensors)
        return tensors

    def _merge(self, target: str, experts: Mapping[int, str]) -> Tensor:
        infos = [self.infos[name] for _, name in sorted(experts.items())]
        if sorted(experts) != list(range(len(experts))):
            raise CheckpointError(f"experts are missing for {target}: the checkpoint has {sorted(experts)}")
        shape = infos[0].shape or (1,)
        odd = next((i for i in infos if (i.shape or (1,)) != shape), None)
        if odd is not None:
            raise CheckpointError(f"tensor {odd.name!r} has shape {list(odd.shape)}, the other experts {list(shape)}")
        if len(infos) > 1 or "_exps" in target and len(shape) == 2:
            shape = (len(infos), *shape)
        sources = tuple(Slice(info.name) for info in infos)
        return Tensor(target, shape, sources, f32=len(shape) == 1 or bool(_ALWAYS_F32.search(target)) or not target.endswith("weight"))

    def _check(self, tensors: list[Tensor]) -> None:
        have = {t.name for t in tensors}
        for ours in self.names.values():
            if ours in self.optional:
                continue
            for target in [ours.replace("{i}", str(i)) for i in range(self.n_layers)] if "{i}" in ours else [ours]:
                if target not in have:
                    raise CheckpointError(f"the checkpoint lacks the weights of {target}; a shard is missing or it is another model")
        shapes = self.expected_shapes()
        for t in tensors:
            block = re.match(r"blk\.(\d+)\.", t.name)
            if block and int(block[1]) >= self.n_layers:
                raise CheckpointError(f"the checkpoint has block {block[1]}, config.json says {self.n_layers} layers")
            want = shapes.get(re.sub(r"^blk\.\d+\.", "blk.{i}.", t.name))
            if want is not None and want != t.shape:
                origin = t.sources[0].source if t.sources else t.name
                raise CheckpointError(f"tensor {origin!r} has shape {list(t.shape)}, config.json says {list(want)}")


def _pattern(theirs: str) -> re.Pattern[str]:
    return re.compile(re.escape(theirs).replace(r"\{i\}", r"(?P<i>\d+)").replace(r"\{e\}", r"(?P<e>\d+)"))


def rope_interleave(n_heads: int, head_dim: int, rotated: int | None = None) -> Index:
    """Row order that turns RoPE over halves (transformers) into RoPE over neighbouring pairs (ggml's "norm" mode).

    transformers rotates dimension j of a head with j + rotated / 2, ggml 2j with 2j + 1.

    Args:
        n_heads: heads of the projection.
        head_dim: rows per head.
        rotated: leading rows per head that RoPE turns, when not all; the rest stay in place.
    """
    rotated = head_dim if rotated is None else rotated
    one = np.concatenate([np.arange(rotated).reshape(2, rotated // 2).T.ravel(), np.arange(rotated, head_dim)])
    return (np.arange(n_heads)[:, None] * head_dim + one[None, :]).ravel().astype(np.int64)
