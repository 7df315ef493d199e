"""The parts of a checkpoint that can be cut, found through its architecture: GGUF name -> name in the checkpoint."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

from agent.errors import CheckpointError, UnsupportedError
from agent.text import brief
from pipeline.architectures.find import find_architecture
from pipeline.architectures.shared.base import Architecture
from pipeline.architectures.shared.decoder import Decoder
from pipeline.architectures.shared.encoder import Encoder
from pipeline.architectures.shared.tensor import Tensor
from pipeline.architectures.shared.wrapper import other_parts, text_part
from pipeline.sources.checkpoint import TensorInfo
from pipeline.sources.source import Source, headers, read_config

# Families whose parts lie as this room takes them: each has its test beside transformers. The others say no in one line.
FAMILIES = (
    "bert", "distilbert", "gemma", "gemma2", "gemma3_text", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "qwen3",
    "smollm3",
)  # fmt: skip
_BLOCK = re.compile(r"(?P<before>(?:.*\.)?(?:layers|layer)\.)(?P<i>\d+)(?P<after>\..+)")


@dataclass(frozen=True, slots=True)
class Heads:
    """Attention of a model: query heads, groups of keys and values, and dimensions of a head."""

    queries: int
    groups: int
    size: int

    @property
    def shared(self) -> int:
        """Query heads of a group."""
        return self.queries // self.groups


class Structure:
    """A checkpoint, read from its headers.

    Attributes:
        config: the parsed config.json.
        infos: every tensor of the checkpoint.
        tensors: GGUF name -> what it is made of.
    """

    def __init__(self, source: Source) -> None:
        """Raises SprigError if the model is none that can be cut."""
        if source.format == "gguf":
            raise UnsupportedError(f"{source.name} is a GGUF; prune the checkpoint that it was made of")
        self.source, self.config = source, read_config(source)
        kind = str(self.config.get("model_type")).replace("-", "_")
        if kind not in FAMILIES or text_part(self.config) or other_parts(self.config):
            raise UnsupportedError(f"a model of type {brief(kind)} cannot be pruned; {', '.join(FAMILIES)} can")
        self.infos: Mapping[str, TensorInfo] = headers(source)
        self.architecture: Architecture = find_architecture(self.config)(self.config, self.infos, source.files)
        self.tensors: Mapping[str, Tensor] = {t.name: t for t in self.architecture.tensors()}

    def find(self, name: str) -> str | None:
        """The checkpoint's name of a GGUF tensor that is one whole tensor there; None if there is none."""
        tensor = self.tensors.get(name)
        if tensor is None or len(tensor.sources) != 1 or tensor.transposed:
            return None
        piece = tensor.sources[0]
        return piece.source if piece.start == 0 and piece.stop is None else None

    def name(self, name: str) -> str:
        """The same of one that must be there. Raises UnsupportedError."""
        found = self.find(name)
        if found is None:
            raise UnsupportedError(f"{self.source.name} has no plain {name}, so this part of it cannot be pruned")
        return found

    @property
    def layers(self) -> int:
        return self.architecture.n_trunk

    @property
    def hidden(self) -> int:
        return self.architecture.integer("hidden_size")

    @property
    def is_decoder(self) -> bool:
        return isinstance(self.architecture, Decoder)

    @cached_property
    def ffn(self) -> int:
        """Neurons of a feed-forward part. Raises UnsupportedError if layers differ."""
        widths = {self.infos[self.name(f"blk.{i}.ffn_down.weight")].shape[-1] for i in range(self.layers)}
        if len(widths) != 1:
            raise UnsupportedError(
                f"the layers of {self.source.name} have feed-forward parts of several sizes, which cannot be pruned"
            )
        return widths.pop()

    @cached_property
    def heads(self) -> Heads:
        """Raises UnsupportedError where whole groups cannot go."""
        arch = self.architecture
        if isinstance(arch, Encoder):
            raise UnsupportedError(
                "heads of an encoder cannot go: its head size follows from their number; --ffn and --depth can"
            )
        assert isinstance(arch, Decoder)
        if arch.square:
            raise UnsupportedError(
                f"llama.cpp's {arch.gguf} has heads * size = hidden_size built in, so no head can go; --ffn and --depth can"
            )
        return Heads(arch.n_heads, arch.n_kv_heads, arch.head_dim)

    def key(self, ours: str) -> str:
        """How config.json of the family spells a hyperparameter."""
        theirs = next((theirs for theirs, name in self.architecture.aliases.items() if name == ours), ours)
        return theirs if theirs in self.config or ours not in self.config else ours

    def settings(self, **values: Any) -> dict[str, Any]:
        """Hyperparameters under the family's names."""
        return {self.key(name): value for name, value in values.items()}

    @property
    def weights(self) -> int:
        """Parameters, a tied head counted once."""
        return sum(prod(info.shape) for info in self.kept_infos.values())

    @cached_property
    def kept_infos(self) -> dict[str, TensorInfo]:
        """All tensors but a head that is a copy of the embedding."""
        head, embedding = self.find("output.weight"), self.find("token_embd.weight")
        tied = {head} if self.architecture.tied and head and embedding and head != embedding else set()
        return {name: info for name, info in self.infos.items() if name not in tied}


def block_of(name: str) -> int | None:
    """The layer that a checkpoint's tensor lies in."""
    match = _BLOCK.fullmatch(name)
    return int(match["i"]) if match else None


def moved(name: str, to: int) -> str:
    """The name that a tensor has in another layer."""
    match = _BLOCK.fullmatch(name)
    if match is None:
        raise CheckpointError(f"tensor {brief(name)} lies in no layer")
    return f"{match['before']}{to}{match['after']}"
