"""Mamba 2, the recurrent layer of Granite 4, Falcon-H1, Nemotron-H and Bamba: its names, keys and layout."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from agent.text import brief
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_NAMES = {
    "in_proj.weight": "ssm_in.weight",
    "conv1d.weight": "ssm_conv1d.weight",
    "conv1d.bias": "ssm_conv1d.bias",
    "dt_bias": "ssm_dt.bias",
    "A_log": "ssm_a",
    "D": "ssm_d",
    "norm.weight": "ssm_norm.weight",
    "out_proj.weight": "ssm_out.weight",
}
_ENDLESS = (math.inf, None, "Infinity", {"__float__": "Infinity"})  # as JSON of various writers has it
MAMBA2_PARTS = tuple(_NAMES.values())


def mamba2_names(prefix: str) -> dict[str, str]:
    """The lines of ``Architecture.names`` for a mixer under ``prefix``."""
    return {prefix + theirs: f"blk.{{i}}.{ours}" for theirs, ours in _NAMES.items()}


def check_mamba2(conv_bias: bool, proj_bias: bool, time_step_limit: object) -> None:
    """Refuses what llama.cpp's graph of the layer does not compute. Raises UnsupportedError.

    Args:
        conv_bias, proj_bias: whether the convolution and the projections have biases.
        time_step_limit: as config.json has it.
    """
    if not conv_bias:
        raise UnsupportedError("config.json says that the convolution has no bias; llama.cpp's graph of Mamba 2 always adds one")
    if proj_bias:
        raise UnsupportedError("config.json says that projections have biases; llama.cpp's graph of Mamba 2 has no such biases")
    if time_step_limit is not None and time_step_limit not in [[0, end] for end in _ENDLESS]:
        raise UnsupportedError(
            f"config.json: time_step_limit is {brief(time_step_limit)}; llama.cpp's graph of Mamba 2 does not limit it"
        )


@dataclass(frozen=True, slots=True)
class Mamba2:
    """The sizes of the recurrent layers, which are all alike.

    Attributes:
        hidden: the model's width.
        inner: width of the mixer, all heads together.
        heads: of the mixer; each has one time step.
        groups: of heads that share B and C.
        state: numbers of state per channel.
        kernel: tokens that the convolution sees.
    """

    hidden: int
    inner: int
    heads: int
    groups: int
    state: int
    kernel: int

    def __post_init__(self) -> None:
        if self.inner % self.heads or self.heads % self.groups:
            raise CheckpointError(
                f"config.json: a Mamba layer of {self.inner} channels cannot have {self.heads} heads in {self.groups} groups"
            )

    def keys(self) -> dict[str, Value]:
        return {
            Keys.SSM.CONV_KERNEL: self.kernel,
            Keys.SSM.INNER_SIZE: self.inner,
            Keys.SSM.STATE_SIZE: self.state,
            Keys.SSM.TIME_STEP_RANK: self.heads,
            Keys.SSM.GROUP_COUNT: self.groups,
        }

    def shapes(self) -> dict[str, tuple[int, ...]]:
        mixed = self.inner + 2 * self.groups * self.state
        return {
            "blk.{i}.ssm_in.weight": (self.inner + mixed + self.heads, self.hidden),
            "blk.{i}.ssm_conv1d.weight": (mixed, 1, self.kernel),
            "blk.{i}.ssm_conv1d.bias": (mixed,),
            "blk.{i}.ssm_dt.bias": (self.heads,),
            "blk.{i}.ssm_a": (self.heads,),
            "blk.{i}.ssm_d": (self.heads,),
            "blk.{i}.ssm_norm.weight": (self.inner,),
            "blk.{i}.ssm_out.weight": (self.hidden, self.inner),
        }

    def adjust(self, tensor: Tensor) -> Tensor:
        """The tensor as ggml's kernel of the state space wants it; others come back as they are."""
        part = tensor.name.split(".", 2)[-1]
        if part == "ssm_conv1d.weight":
            return replace(tensor, shape=(tensor.shape[0], tensor.shape[-1]))
        if part in ("ssm_a", "ssm_d"):
            return replace(tensor, shape=(self.heads, 1), function="neg_exp" if part == "ssm_a" else None)
        if part == "ssm_norm.weight":
            return replace(tensor, shape=(self.groups, self.inner // self.groups))
        return tensor
