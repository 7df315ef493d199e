"""An architecture describes its checkpoint: the GGUF keys, and for each output tensor where its rows come from.

An architecture is data and small pure functions; it reads no weight. Every change of layout that a GGUF needs is one of four
steps that work on any slab of rows (concatenate, reorder rows, reorder columns, one elementwise function and a factor for
each row), so no architecture can force a whole tensor into memory. Only a matrix that lies transposed is read whole.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from functools import cache, cached_property, lru_cache
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from agent.models.file import PROMPT
from agent.text import brief
from pipeline.architectures.shared.pooling import dense_paths, pooling_type, prompts
from pipeline.architectures.shared.tensor import Index, Slice, Tensor
from pipeline.architectures.shared.wrapper import is_text, other_parts, text_part
from pipeline.format.gguf_file import Value
from pipeline.sources.checkpoint import TensorInfo

# Names that llama.cpp wants as F32 whatever the checkpoint holds (conversion/base.py, llama-quant.cpp).
_ALWAYS_F32 = re.compile(r"_norm\.weight$|ffn_gate_inp|ssm_conv1d|shortconv\.conv|^position_embd|^token_types")
_BLOCK, _NUMBER = re.compile(r"blk\.(\d+)\."), re.compile(r"[0-9]+")
_ADAPTER = (".lora_", ".base_layer.", ".modules_to_save.", ".original_module.")  # what PEFT wraps weights in


class Architecture:
    """Base of all architectures. A subclass names its keys and its tensors.

    The table ``names`` maps checkpoint names to GGUF names; ``{i}`` stands for the block number in both, ``{e}`` for the
    expert number in the checkpoint's. A checkpoint tensor that neither ``names`` nor ``ignored`` knows is an error: a weight
    that is silently left out changes what a model says.
    """

    gguf: str = ""  # general.architecture
    defaults: ClassVar[dict[str, Any]] = {}  # what transformers assumes where config.json is silent
    aliases: ClassVar[Mapping[str, str]] = {}  # a family's own names of hyperparameters -> the names used here
    activations: ClassVar[frozenset[str]] = frozenset({"silu", "swish"})  # what llama.cpp's graph hard-codes
    activation_key: ClassVar[str] = "hidden_act"  # the one key that the family reads; a stray other one says nothing
    names: ClassVar[dict[str, str]] = {}
    optional: ClassVar[frozenset[str]] = frozenset()  # GGUF names of ``names`` that a checkpoint may lack
    required: ClassVar[tuple[str, ...]] = ()  # GGUF names that must come out though ``names`` does not have them
    ignored: ClassVar[tuple[str, ...]] = (r"rotary_emb\.inv_freq$",)  # regular expressions over checkpoint names

    def __init__(
        self,
        config: Mapping[str, Any],
        infos: Mapping[str, TensorInfo],
        files: Mapping[str, bytes] = MappingProxyType({}),
    ) -> None:
        """
        Args:
            config: the parsed config.json.
            infos: the checkpoint's tensors, from the headers alone.
            files: the checkpoint's small files by name, for what config.json does not say.

        Raises:
            CheckpointError: a hyperparameter in config.json cannot be used.
            UnsupportedError: llama.cpp would run the model, but not as it was trained.
        """
        self.files = files
        self.hp: dict[str, Any] = {**self.defaults, **config, **text_part(config)}
        if config.get("tie_word_embeddings") is not None:
            self.hp["tie_word_embeddings"] = config["tie_word_embeddings"]  # a wrapper holds the head, so its word counts
        self.hp |= {ours: self.hp[theirs] for theirs, ours in self.aliases.items() if self.hp.get(theirs) is not None}
        self.infos: dict[str, TensorInfo] = {}
        others = other_parts(config)
        self.left_out = []
        for name, info in infos.items():
            inner = _unwrapped(name)
            if not is_text(inner, others):
                self.left_out.append(name)
                continue
            plain = self.normalize(inner)
            if plain in self.infos:
                raise _twice(self.infos[plain].name, name)
            self.infos[plain] = info
        # The word before the layers of a whole model: "model" in most families, "transformer" or "backbone" in some.
        word = next((theirs.split(".")[0] for theirs in self.name_table() if "{i}" in theirs), "model")
        self.bare = not any(name.startswith(f"{word}.") for name in self.infos)
        if self.bare:
            self.infos = {self._within(word, name): info for name, info in self.infos.items()}
        self.check()

    # What a subclass may say.

    def normalize(self, name: str) -> str:
        """The checkpoint name in the spelling that ``names`` uses (prefixes of wrappers taken off)."""
        name = name.removeprefix("thinker.")
        for old, new in (
            ("model.language_model.", "model."),
            ("model.text_model.", "model."),
            ("language_model.model.", "model."),
            ("language_model.lm_head", "lm_head"),
        ):
            if name.startswith(old):
                return new + name[len(old) :]
        return name

    def _within(self, word: str, name: str) -> str:
        """The name that a tensor of a bare backbone (``AutoModel.save_pretrained``) has in the whole model."""
        inside = self.normalize(f"{word}.{name}")
        known = [_pattern(theirs) for theirs in self.name_table()]
        fits = any(p.fullmatch(inside) for p in known) and not any(p.fullmatch(name) for p in known)
        return inside if fits else name

    def name_table(self) -> Mapping[str, str]:
        """``names``, for a subclass in which config.json decides on a part of it."""
        return self.names

    def check(self) -> None:
        """Refuses what config.json alone shows to be impossible; called once. Raises UnsupportedError or CheckpointError."""
        activation = self.hp.get(self.activation_key)
        if activation is not None and not (isinstance(activation, str) and activation in self.activations):
            raise UnsupportedError(
                f"config.json: {self.activation_key} is {brief(activation)}; "
                f"llama.cpp computes {self.gguf} with {min(self.activations)} only"
            )

    def keys(self) -> dict[str, Value]:
        """GGUF keys as ``gguf.Keys`` spells them, "{arch}.context_length" -> ..."""
        return {
            Keys.LLM.BLOCK_COUNT: self.n_layers,
            Keys.LLM.CONTEXT_LENGTH: self.integer("max_position_embeddings"),
            Keys.LLM.EMBEDDING_LENGTH: self.integer("hidden_size"),
            Keys.LLM.FEED_FORWARD_LENGTH: self.mlp_width,
            Keys.Attention.HEAD_COUNT: self.n_heads,
        }

    def gguf_keys(self) -> dict[str, Value]:
        """All keys of the model by their full names. Raises as ``keys`` and ``pooling_type`` do."""
        pooling = pooling_type(self.files)
        keys: dict[str, Value] = {} if pooling is None else {Keys.LLM.POOLING_TYPE: pooling}
        keys |= {f"{PROMPT}{kind}": text for kind, text in prompts(self.files).items()}
        return {key.format(arch=self.gguf): value for key, value in (keys | self.keys()).items()}

    def notes(self) -> list[str]:
        """What a person should know about the conversion, a line each."""
        notes = []
        if self.left_out:
            parts = " and ".join(other_parts(self.hp))
            notes.append(f"{len(self.left_out)} tensors of the {parts} part are left out: the GGUF takes text only")
        if dense_paths(self.files) and not self.takes_dense:
            notes.append("the dense layers behind pooling (modules.json) are left out: vectors are as they are before them")
        return notes

    @property
    def takes_dense(self) -> bool:
        """Whether the dense layers of sentence-transformers are among the tensors."""
        return False

    def tensors(self) -> list[Tensor]:
        """Every output tensor, in any order.

        Raises:
            CheckpointError: a tensor is missing, is not known, or has another shape than the hyperparameters say.
        """
        return self.mapped()

    def numbers(self) -> list[str]:
        """Checkpoint tensors of one number each, as the checkpoint names them, which a GGUF holds as keys.

        Raises:
            CheckpointError: one is missing.
        """
        return []

    def number_keys(self, numbers: Mapping[str, float]) -> dict[str, Value]:
        """The keys that hold the values of ``numbers``."""
        return {}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        """Right side of ``names`` -> shape in the checkpoint (experts stacked), for whatever the hyperparameters determine.

        A bias need not be listed: it has as many numbers as its weight has rows.
        """
        return {}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        """The hook for layout. It gets each mapped tensor, whose shape is right, and returns what is written for it."""
        return tensor

    @property
    def exact_context(self) -> int | None:
        """Tokens up to which llama.cpp computes what the original does, where a window limits them; None where nothing does."""
        return None

    # What they stand on.

    def integer(self, *names: str, default: int | None = None, least: int = 1) -> int:
        """A hyperparameter that must be an integer of at least ``least``, under the first of these names that is not null.

        Raises:
            CheckpointError: it is something else, or is missing and has no default.
        """
        name, value = self._given(names, default)
        sane = value is default or (type(value) is int and least <= value < 2**31)
        if not sane:
            raise CheckpointError(f"config.json: {name} is {brief(value)}; it must be a whole number from {least} on")
        return int(value)

    def number(self, *names: str, default: float | None = None) -> float:
        """A hyperparameter that must be a positive finite number. Raises CheckpointError."""
        return positive(*self._given(names, default))

    def _given(self, names: tuple[str, ...], default: float | None) -> tuple[str, Any]:
        """Name and value of the first that is not null, else the default."""
        found = next(((name, self.hp[name]) for name in names if self.hp.get(name) is not None), (names[0], default))
        if found[1] is None:
            raise CheckpointError(f"config.json has no {names[0]!r}, which {self.gguf} needs")
        return found

    def flag(self, name: str) -> bool:
        """A hyperparameter that must be true or false; null and a missing one are false. Raises CheckpointError."""
        value = self.hp.get(name)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(f"config.json: {name} is {brief(value)}; it must be true or false")
        return bool(value)

    def layers_of(self, key: str, allowed: Iterable[str], default: Callable[[int], str]) -> list[str]:
        """The kind of each layer: the list ``key`` of config.json, or ``default(i)``. Raises CheckpointError."""
        kinds, count = self.hp.get(key), self.n_trunk
        if kinds is None:
            return [default(i) for i in range(count)]
        known = set(allowed)
        if not isinstance(kinds, list) or len(kinds) != count or not all(isinstance(k, str) for k in kinds):
            raise CheckpointError(f"config.json: {key} must name the kind of each of the {count} layers")
        odd = next((k for k in kinds if k not in known), None)
        if odd is not None:
            raise UnsupportedError(f"config.json: {key} has {brief(odd)}; {self.gguf} has only {', '.join(sorted(known))}")
        return kinds

    @property
    def mlp_width(self) -> int:
        return self.integer("intermediate_size")

    @property
    def n_heads(self) -> int:
        return self.integer("num_attention_heads")

    @property
    def n_layers(self) -> int:
        """Blocks of the GGUF; a family with blocks besides the model's own overrides it."""
        return self.n_trunk

    @cached_property  # it is asked for once a tensor
    def n_trunk(self) -> int:
        """Layers of the model, as config.json counts them."""
        n = self.integer("num_hidden_layers")
        if n > 512:
            raise CheckpointError(f"config.json: num_hidden_layers is {n}; llama.cpp takes 1 to 512")
        return n

    @property
    def tied(self) -> bool:
        """Whether the head is the embedding, so that a separate one is a duplicate."""
        return self.flag("tie_word_embeddings")

    @property
    def vocab_rows(self) -> int:
        """Rows of the embedding: the size that the vocabulary is padded to."""
        for name, ours in self.name_table().items():
            if ours == "token_embd.weight" and name in self.infos and self.infos[name].shape:
                return self.infos[name].shape[0]
        return self.integer("vocab_size")

    def mapped(self) -> list[Tensor]:
        """``names`` applied to the checkpoint: experts merged, shapes checked, ``adjust`` applied, nothing missing."""
        shapes = self.expected_shapes()
        tensors: list[Tensor] = []
        for target, experts in self._targets().items():
            tensor = self._merge(target, experts)
            self._check_shape(tensor, shapes)
            result = self.adjust(tensor)
            tensors.extend([result] if isinstance(result, Tensor) else result)
        self._check_complete({t.name for t in tensors})
        return tensors

    def _targets(self) -> dict[str, dict[int, str]]:
        """GGUF name -> expert number (0 where there are none) -> checkpoint name."""
        targets: dict[str, dict[int, str]] = {}
        unknown = []
        patterns = _by_kind(tuple(self.name_table().items()))
        ignored = [re.compile(p) for p in self.ignored]
        for name in self.infos:
            for pattern, ours in patterns.get(_NUMBER.sub("#", name), ()):
                if match := pattern.fullmatch(name):
                    found = match.groupdict()
                    experts = targets.setdefault(ours.replace("{i}", found.get("i") or ""), {})
                    expert = int(found.get("e") or 0)
                    if expert in experts:
                        raise _twice(experts[expert], name)
                    experts[expert] = name
                    break
            else:
                if not any(p.search(name) for p in ignored):
                    unknown.append(name)
        if adapter := next((name for name in unknown if any(mark in name for mark in _ADAPTER)), None):
            raise UnsupportedError(
                f"the checkpoint carries a LoRA adapter that is not merged ({brief(adapter)}); merge it "
                "(peft's merge_and_unload) and save the model again"
            )
        if unknown:
            raise UnsupportedError(
                f"the checkpoint has tensors that Sprig does not know in a {self.gguf} "
                f"({len(unknown)}, first {brief(unknown[0])}); it is another model than its "
                "config.json says, or its weights are quantized and config.json does not say how"
            )
        return targets

    def _merge(self, target: str, experts: Mapping[int, str]) -> Tensor:
        infos = [self.infos[name] for _, name in sorted(experts.items())]
        if max(experts) != len(experts) - 1:
            lost = min(set(range(max(experts))) - set(experts))
            raise CheckpointError(f"the checkpoint lacks expert {lost} of {target}; a shard is missing")
        shape = infos[0].shape or (1,)
        odd = next((i for i in infos if (i.shape or (1,)) != shape), None)
        if odd is not None:
            raise CheckpointError(f"tensor {brief(odd.name)} has shape {list(odd.shape)}, the other experts {list(shape)}")
        if len(infos) > 1 or ("_exps" in target and target.endswith(".weight") and len(shape) == 2):
            shape = (len(infos), *shape)
        f32 = len(shape) == 1 or bool(_ALWAYS_F32.search(target)) or not target.endswith("weight")
        return Tensor(target, shape, tuple(Slice(info.name) for info in infos), f32=f32)

    def _check_shape(self, tensor: Tensor, shapes: Mapping[str, tuple[int, ...]]) -> None:
        name, block = tensor.name, _BLOCK.match(tensor.name)
        if block:
            if int(block[1]) >= self.n_layers:
                raise CheckpointError(f"the checkpoint has block {block[1]}, config.json says {self.n_layers} layers")
            name = f"blk.{{i}}.{name[block.end() :]}"
        want = shapes.get(tensor.name) or shapes.get(name)
        if want is None and name.endswith(".bias") and (weight := shapes.get(name.removesuffix("bias") + "weight")):
            want = weight[:1]
        if want is None:
            raise UnsupportedError(f"the checkpoint has {brief(tensor.sources[0].source)}, for which config.json gives no size")
        if want != tensor.shape:
            raise CheckpointError(
                f"tensor {brief(tensor.sources[0].source)} has shape {list(tensor.shape)}, config.json says {list(want)}"
            )

    def _check_complete(self, have: set[str]) -> None:
        for ours in (*self.name_table().values(), *self.required):
            if ours in self.optional:
                continue
            for target in [ours.replace("{i}", str(i)) for i in range(self.n_layers)] if "{i}" in ours else [ours]:
                if target not in have and target not in self.optional:
                    raise CheckpointError(f"the checkpoint lacks the weights of {target}; a shard is missing")


def _unwrapped(name: str) -> str:
    """The name without what torch.compile, PEFT and data-parallel training leave before it."""
    name = name.replace("_orig_mod.", "")
    while (inner := name.removeprefix("base_model.model.").removeprefix("module.")) != name:
        name = inner
    return name


def positive(name: str, value: object) -> float:
    """A number of config.json as float. Raises CheckpointError unless it is positive and finite."""
    sane = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1e30
    if not sane:
        raise CheckpointError(f"config.json: {name} is {brief(value)}; it must be a positive number")
    return float(value)  # type: ignore[arg-type]


def _twice(one: str, other: str) -> CheckpointError:
    return CheckpointError(f"tensors {brief(one)} and {brief(other)} are the same weight; keep one of them")


@cache
def _pattern(theirs: str) -> re.Pattern[str]:
    return re.compile(re.escape(theirs).replace(r"\{i\}", r"(?P<i>[0-9]{1,4})").replace(r"\{e\}", r"(?P<e>[0-9]{1,4})"))


@lru_cache(maxsize=64)
def _by_kind(table: tuple[tuple[str, str], ...]) -> dict[str, list[tuple[re.Pattern[str], str]]]:
    """The patterns of a table of names, and what each stands for, by what all that fits them has in common: # for numbers."""
    found: dict[str, list[tuple[re.Pattern[str], str]]] = {}
    for theirs, ours in table:
        kind = _NUMBER.sub("#", theirs.replace("{i}", "0").replace("{e}", "0"))
        found.setdefault(kind, []).append((_pattern(theirs), ours))
    return found


def rope_interleave(n_heads: int, head_dim: int) -> Index:
    """Row order that turns RoPE over halves (transformers) into RoPE over neighbouring pairs (ggml's "norm" mode).

    transformers rotates dimension j of a head with j + head_dim / 2, ggml 2j with 2j + 1.

    Args:
        n_heads: heads of the projection.
        head_dim: rows per head.
    """
    order: Index = np.arange(n_heads * head_dim).reshape(n_heads, 2, head_dim // 2).swapaxes(1, 2).ravel()
    return order
