"""Training through the rounding of a GGUF: the network computes with what ggml's kernels make of its weights.

The parameters stay what they are in float32 and are what the optimizer changes; the gradient passes by the rounding as if it were
not there. Source of the estimator: Bengio, Leonard and Courville, 2013, arXiv 1308.3432 ("straight-through"). As the kernels and
the blocks are those of ``sprig quantize``, that makes of the trained parameters, saved in F32, the very weights of the training.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.optim.optimizer import register_optimizer_step_post_hook

from agent.errors import SprigError, UnsupportedError
from agent.gguf.types import TYPES_BY_NAME, GGMLType
from pipeline.format import ggml
from pipeline.format.ggml import Floats

_LEAST = 1 << 16  # weights for which a second thread pays
_steps = 0  # of all optimizers: a fused one changes parameters without telling their versions

Network = Any  # a module of torch
Parameter = Any


def round_through(network: Network, kinds: Mapping[str, str]) -> None:
    """Make a network compute with rounded weights.

    A parameter that is used in several places, as an embedding that is the head too, is rounded once for all of them. Weights are
    rounded anew only after a step of an optimizer of torch, or when the parameter was changed in place.

    Args:
        network: it is changed.
        kinds: name of a parameter in the network's state dict -> ggml type. The name may lack the prefix of the base model.

    Raises:
        UnsupportedError: the network has no such parameter, or the type's blocks do not divide its rows.
    """
    _count_steps()
    of: dict[int, Rounding] = {}
    for name, kind in kinds.items():
        parameter = _parameter(network, name)
        if parameter.shape[-1] % TYPES_BY_NAME[kind].block:
            raise UnsupportedError(f"{name} has rows of {parameter.shape[-1]} weights, which {kind} cannot hold")
        of[id(parameter)] = Rounding(name, TYPES_BY_NAME[kind])
    for module, name, parameter in _places(network):
        if (rounding := of.get(id(parameter))) is not None:
            parametrize.register_parametrization(module, name, rounding)


def _places(network: Network) -> list[tuple[Network, str, Parameter]]:
    """Each module with each parameter that it holds; one that is shared comes as often as it is held."""
    return [
        (module, name, parameter)
        for module in network.modules()
        for name, parameter in list(module.named_parameters(recurse=False, remove_duplicate=False))
    ]


def _parameter(network: Network, name: str) -> Parameter:
    for spelled in (name, f"{getattr(network, 'base_model_prefix', '')}.{name}"):
        try:
            return network.get_parameter(spelled)
        except AttributeError:
            continue
    raise UnsupportedError(f"transformers has no parameter {name}, which the checkpoint has; train without --for")


class Rounding(nn.Module):  # type: ignore[misc]  # torch is not typed
    """What ggml makes of a parameter, and reads back.

    Args:
        name: of the parameter, for messages.
        kind: the ggml type.
    """

    def __init__(self, name: str, kind: GGMLType) -> None:
        super().__init__()
        self.name, self.kind = name, kind
        self._state: tuple[Any, ...] = ()
        self._rounded: Any = None

    def forward(self, weight: Parameter) -> Parameter:
        """The rounded weights, of the same shape and type. Raises SprigError if one is NaN or infinite."""
        state = (_steps, weight.device, weight.dtype, weight.data_ptr(), weight._version)
        if state != self._state:
            self._rounded = None  # its memory is free before the next is filled
            values = weight.detach().to("cpu", torch.float32).contiguous().numpy()
            rounded = np.empty_like(values)
            length = values.shape[-1]
            self._round(values.reshape(-1, length), rounded.reshape(-1, length))
            self._rounded, self._state = torch.from_numpy(rounded).to(weight.device, weight.dtype), state
        return _Through.apply(weight, self._rounded)

    def _round(self, values: Floats, out: Floats) -> None:
        threads = torch.get_num_threads() if values.size > _LEAST else 1
        step = -(-len(values) // threads)
        parts = [slice(i, i + step) for i in range(0, len(values), step)]
        if threads == 1:
            self._round_rows(values, out)
        else:
            list(_pool(threads).map(lambda part: self._round_rows(values[part], out[part]), parts))

    def _round_rows(self, values: Floats, out: Floats) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            total = values.sum()
        if not np.isfinite(total) and not np.isfinite(values).all():  # some kernels abort the process over one
            raise SprigError(f"{self.name} became NaN or infinite in the training; take a smaller learning rate")
        ggml.to_float(ggml.quantize(values, self.kind), self.kind, values.shape[1], out)


@cache
def _count_steps() -> None:
    def count(*_: Any) -> None:
        global _steps
        _steps += 1

    register_optimizer_step_post_hook(count)


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="round")


class _Through(torch.autograd.Function):  # type: ignore[misc]  # torch is not typed
    """Forward the rounded weights, backward the gradient as it comes."""

    @staticmethod
    def forward(ctx: Any, weight: Parameter, rounded: Parameter) -> Parameter:
        return rounded.view_as(rounded)

    @staticmethod
    def backward(ctx: Any, gradient: Parameter) -> tuple[Parameter, None]:
        return gradient, None
