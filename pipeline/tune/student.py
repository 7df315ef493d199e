"""The original's network with the weights of a GGUF in it, whose scales are to be learned."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize

from agent.errors import CheckpointError
from agent.gguf.reader import Header, TensorEntry
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format import ggml
from pipeline.format.ggml import Bytes
from pipeline.model import Model
from pipeline.network.build import Network, held, spelled
from pipeline.tune.layers import Factors, ScaledEmbedding, ScaledLinear, ScaledWeights
from pipeline.tune.places import inverse, restored, whole
from pipeline.tune.scales import has_scales, join, split

log = logging.getLogger(__name__)

_EMBEDDING, _HEAD = "token_embd.weight", "output.weight"
Parameter = Any


@dataclass(frozen=True, slots=True)
class LearnedTensor:
    """One tensor of the GGUF that is learned: where it lies, and what of the network holds it."""

    entry: TensorEntry
    held: ScaledWeights | Factors
    factors: Parameter  # of a Factors; a ScaledWeights has its own


class Student:
    """A network whose weights are a GGUF's.

    Args:
        network: as ``pipeline.network.build`` makes it; it is changed.
        model: the checkpoint, read: how its tensors become those of a GGUF.
        header: of the GGUF.
        data: the GGUF's bytes.

    Attributes:
        learned: how many numbers are learned.
        vocabulary: tokens.

    Raises:
        CheckpointError: the GGUF has other tensors than the checkpoint becomes.
    """

    def __init__(self, network: Network, model: Model, header: Header, data: Bytes) -> None:
        self.network, self.model, self.data = network, model, data
        self.parts: list[LearnedTensor] = []
        self.frozen: list[str] = []  # tensors of the GGUF that stay as they are
        self.alone = _HEAD not in header.tensors  # the embedding is the head too
        head = _module(network, "lm_head")
        if not self.alone and type(head) is nn.Linear:
            head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=False)
        # Matrices first: a layer's bias is learned in the layer that took its place.
        for tensor, entry in sorted(_pairs(model, header), key=lambda pair: -len(pair[1].shape)):
            if not (self._learn_matrix(tensor, entry) or self._learn_vector(tensor, entry)):
                self._fill(tensor, entry)
                self.frozen.append(tensor.name)
        self.learned = sum(p.numel() for p in network.parameters() if p.requires_grad)
        self.vocabulary = int(network.config.get_text_config().vocab_size)
        log.info("%d numbers are learned, %d tensors stay", self.learned, len(self.frozen))

    def _rows(self, entry: TensorEntry) -> Bytes:
        raw = self.data[entry.offset : entry.offset + entry.nbytes]
        return raw.reshape(int(np.prod(entry.shape[:-1], dtype=np.int64)), -1)

    def _learn_matrix(self, tensor: Tensor, entry: TensorEntry) -> bool:
        """Put codes and scales in the place of a linear layer or of the embedding, if this is the weight of one."""
        matrix = len(entry.shape) == 2 and has_scales(entry.type) and tensor.function is None and tensor.column_order is None
        if not matrix or not whole(tensor, self.model.infos):
            return False
        path = spelled(self.network, tensor.sources[0].source).removesuffix(".weight")
        path = "lm_head" if tensor.name == _HEAD else path
        module = _module(self.network, path)
        if not (type(module) is nn.Linear or isinstance(module, nn.Embedding)):
            return False
        blocks = split(np.ascontiguousarray(self._rows(entry)), entry.type, entry.shape[-1])
        order = None if tensor.row_order is None else inverse(tensor.row_order)
        weights = ScaledWeights(blocks, order, tensor.scale)
        if isinstance(module, nn.Embedding):
            self.network.set_submodule(path, ScaledEmbedding(weights, getattr(module, "embed_scale", 1.0)))
            path = "lm_head"
            module = _module(self.network, path) if self.alone else None
        if type(module) is nn.Linear:
            self.network.set_submodule(path, ScaledLinear(weights, module.bias))
        self.parts.append(LearnedTensor(entry, weights, None))
        return True

    def _learn_vector(self, tensor: Tensor, entry: TensorEntry) -> bool:
        """Make a norm's weights learnable, or a bias."""
        vector = len(entry.shape) == 1 and entry.type.name == "F32" and tensor.scale is None
        if not vector or not whole(tensor, self.model.infos):
            return False
        path, _, name = spelled(self.network, tensor.sources[0].source).rpartition(".")
        module = _module(self.network, path)
        parameter = getattr(module, name, None)
        if not isinstance(parameter, nn.Parameter) or parameter.ndim != 1:
            return False
        values = self._rows(entry).copy().view("<f4").ravel()
        order = None if tensor.column_order is None else inverse(tensor.column_order)
        held = Factors(values, 1.0 if tensor.function == "add_one" else 0.0, order)
        setattr(module, name, nn.Parameter(torch.zeros(len(values))))
        parametrize.register_parametrization(module, name, held)
        self.parts.append(LearnedTensor(entry, held, module.parametrizations[name].original))
        return True

    def _fill(self, tensor: Tensor, entry: TensorEntry) -> None:
        """Give the network the GGUF's weights of a tensor that is not learned."""
        if not tensor.sources:
            return
        values = ggml.to_float(np.ascontiguousarray(self._rows(entry)), entry.type, entry.shape[-1])
        parameters = held(self.network)
        for source, start, rows in restored(values, tensor, self.model.infos):
            names = ["lm_head.weight"] if tensor.name == _HEAD else [spelled(self.network, source)]
            names += ["lm_head.weight"] if tensor.name == _EMBEDDING and self.alone else []
            for parameter in (parameters[name] for name in names if name in parameters):
                parameter.view(self.model.infos[source].n_rows, -1)[start : start + len(rows)] = torch.from_numpy(rows.copy())

    def changed(self) -> Iterator[tuple[TensorEntry, Bytes]]:
        """What is learned, as bytes of the GGUF: the tensors and their rows."""
        with torch.no_grad():
            for part in self.parts:
                raw, held = np.ascontiguousarray(self._rows(part.entry)), part.held
                if isinstance(held, ScaledWeights):
                    scales, mins = (None if one is None else held.stored(one) for one in held.learned())
                    assert scales is not None
                    yield part.entry, join(raw, part.entry.type, scales, mins)
                else:
                    yield part.entry, held.stored(part.factors).view(np.uint8).reshape(raw.shape)


def _module(network: Network, path: str) -> Any:
    try:
        return network.get_submodule(path)
    except AttributeError:
        return None


def _pairs(model: Model, header: Header) -> Iterator[tuple[Tensor, TensorEntry]]:
    """The tensors of the plan with those of the file. A file may have a head where the checkpoint has the embedding twice."""
    planned = {t.name: t for t in model.tensors}
    if _HEAD in header.tensors and _HEAD not in planned and _EMBEDDING in planned:
        planned[_HEAD] = replace(planned[_EMBEDDING], name=_HEAD)
    for name, tensor in planned.items():
        entry = header.tensors.get(name)
        if entry is None or entry.shape != tensor.shape:
            has = "none" if entry is None else str(list(entry.shape))
            raise CheckpointError(
                f"the GGUF is not made of this checkpoint: {name} is {list(tensor.shape)} there, {has} in the file"
            )
        yield tensor, entry
    if more := sorted(header.tensors.keys() - planned.keys()):
        raise CheckpointError(f"the GGUF is not made of this checkpoint: it has {more[0]}, which that does not become")


def read_bytes(path: Path) -> Bytes:
    """A file, mapped into memory."""
    return np.memmap(path, dtype=np.uint8, mode="r").view(np.ndarray)
