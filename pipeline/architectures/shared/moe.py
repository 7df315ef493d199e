"""Mixtures of experts: where a checkpoint keeps them, and their shapes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.shared.decoder import Decoder
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.format.gguf_file import Value


def expert_names(mlp: str, gate: str = "gate_proj", up: str = "up_proj", down: str = "down_proj") -> dict[str, str]:
    """The lines of ``Architecture.names`` for a router and its experts under ``mlp``, such as "model.layers.{i}.mlp.".

    transformers 4 keeps one tensor per expert, transformers 5 all in one, with and without ".weight".
    """
    names = {mlp + "gate.weight": "blk.{i}.ffn_gate_inp.weight"}
    for theirs, ours in ((gate, "gate"), (up, "up"), (down, "down")):
        names[f"{mlp}experts.{{e}}.{theirs}.weight"] = f"blk.{{i}}.ffn_{ours}_exps.weight"
    for theirs, ours in (("gate_up_proj", "gate_up"), ("down_proj", "down")):
        names |= {f"{mlp}experts.{theirs}{end}": f"blk.{{i}}.ffn_{ours}_exps.weight" for end in ("", ".weight")}
    return names


EXPERTS = expert_names("model.layers.{i}.mlp.")
EXPERT_PARTS = ("ffn_gate_inp.weight", "ffn_gate_exps.weight", "ffn_up_exps.weight", "ffn_down_exps.weight")
SHARED_PARTS = ("ffn_gate_shexp.weight", "ffn_up_shexp.weight", "ffn_down_shexp.weight")
DENSE_PARTS = ("ffn_gate.weight", "ffn_up.weight", "ffn_down.weight")
_MLP = "model.layers.{i}.mlp."
SHARED_EXPERT = {
    _MLP + "shared_expert_gate.weight": "blk.{i}.ffn_gate_inp_shexp.weight",
    _MLP + "shared_expert.gate_proj.weight": "blk.{i}.ffn_gate_shexp.weight",
    _MLP + "shared_expert.up_proj.weight": "blk.{i}.ffn_up_shexp.weight",
    _MLP + "shared_expert.down_proj.weight": "blk.{i}.ffn_down_shexp.weight",
}
MAX_EXPERTS = 1024  # llama.cpp's LLAMA_MAX_EXPERTS


def halves(tensor: Tensor, names: tuple[str, str]) -> list[Tensor]:
    """A fused gate and up projection, [..., 2 * width, d], as two tensors [..., width, d]."""
    *groups, rows, d = tensor.shape
    width, source = rows // 2, tensor.sources[0].source
    count = groups[0] if groups else 1
    return [
        replace(
            tensor,
            name=tensor.name.replace(tensor.name.split(".")[-2], name),
            shape=(*groups, width, d),
            sources=tuple(Slice(source, g * rows + half * width, g * rows + (half + 1) * width) for g in range(count)),
        )
        for half, name in enumerate(names)
    ]


class MixtureOfExperts(Decoder):
    """Layers with experts, of which a router chooses some for each token.

    ``normalized`` says whether llama.cpp's graph of the family lets the weights of the chosen ones sum to 1; None where the
    file says it. A family with dense layers too makes ``required`` empty and calls ``check_kinds``.
    """

    optional = Decoder.optional | {"blk.{i}.ffn_gate_up_exps.weight"}
    required: ClassVar[tuple[str, ...]] = ("blk.{i}.ffn_gate_exps.weight", "blk.{i}.ffn_up_exps.weight")
    normalized: ClassVar[bool | None] = True

    @property
    def n_experts(self) -> int:
        # Where transformers 4 writes num_experts, transformers 5 may write num_local_experts: a default must not hide it.
        return self.integer("num_local_experts", "num_experts")

    @property
    def n_used(self) -> int:
        """Experts that a token goes through."""
        return self.integer("num_experts_per_tok") if self.n_experts else 0

    @property
    def expert_width(self) -> int:
        return self.integer("intermediate_size")

    def check(self) -> None:
        super().check()
        if not self.n_used <= self.n_experts <= MAX_EXPERTS:
            raise CheckpointError(f"config.json: {self.n_used} of {self.n_experts} experts; llama.cpp takes up to {MAX_EXPERTS}")
        if self.normalized is not None and "norm_topk_prob" in self.hp and self.flag("norm_topk_prob") != self.normalized:
            raise UnsupportedError(f"llama.cpp's {self.gguf} has norm_topk_prob = {self.normalized} built in; here it is not so")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            Keys.LLM.EXPERT_COUNT: self.n_experts,
            Keys.LLM.EXPERT_USED_COUNT: self.n_used,
        }

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        n, ff, d = self.n_experts, self.expert_width, self.integer("hidden_size")
        return super().expected_shapes() | {
            "blk.{i}.ffn_gate_inp.weight": (n, d),
            "blk.{i}.ffn_gate_exps.weight": (n, ff, d),
            "blk.{i}.ffn_up_exps.weight": (n, ff, d),
            "blk.{i}.ffn_gate_up_exps.weight": (n, 2 * ff, d),
            "blk.{i}.ffn_down_exps.weight": (n, d, ff),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if tensor.name.endswith("ffn_gate_up_exps.weight"):
            return halves(tensor, ("ffn_gate_exps", "ffn_up_exps"))
        return super().adjust(tensor)


class QwenExperts(MixtureOfExperts):
    """Experts in every layer."""

    @property
    def expert_width(self) -> int:
        return self.integer("moe_intermediate_size")

    def check(self) -> None:
        super().check()
        if self.hp.get("mlp_only_layers") or self.integer("decoder_sparse_step", default=1) != 1:
            raise UnsupportedError(f"llama.cpp's {self.gguf} has experts in every layer; config.json has dense layers too")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.LLM.EXPERT_FEED_FORWARD_LENGTH: self.expert_width}


class QwenSharedExperts(QwenExperts):
    """Experts in every layer, and one that all tokens share."""

    def keys(self) -> dict[str, Value]:
        shared = self.integer("shared_expert_intermediate_size")
        return super().keys() | {Keys.LLM.EXPERT_SHARED_FEED_FORWARD_LENGTH: shared}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("shared_expert_intermediate_size")
        return super().expected_shapes() | {
            "blk.{i}.ffn_gate_inp_shexp.weight": (1, d),
            "blk.{i}.ffn_gate_shexp.weight": (ff, d),
            "blk.{i}.ffn_up_shexp.weight": (ff, d),
            "blk.{i}.ffn_down_shexp.weight": (d, ff),
        }
