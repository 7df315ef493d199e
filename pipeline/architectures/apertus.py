"""Apertus: norms on queries and keys, no gate in the MLP, and an activation (xIELU) whose numbers each layer has learned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gguf import Keys

from agent.errors import CheckpointError
from pipeline.architectures.shared.decoder import ATTENTION, MLP, QK_NORMS, TRUNK, OwnHead, sizes
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_ACTIVATION = {
    "alpha_n": Keys.xIELU.ALPHA_N, "alpha_p": Keys.xIELU.ALPHA_P, "beta": Keys.xIELU.BETA, "eps": Keys.xIELU.EPS,
}  # fmt: skip
_LAYER = "model.layers.{i}."


class Apertus(OwnHead):
    gguf = "apertus"
    defaults = sizes(
        4096, 14336, 32, 32, None, 65536, rms_norm_eps=1e-5,
        rope_parameters={
            "rope_type": "llama3", "rope_theta": 12e6, "factor": 8.0, "original_max_position_embeddings": 8192,
            "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        },
    )  # fmt: skip
    activations = frozenset({"xielu"})
    names = TRUNK | ATTENTION | QK_NORMS | {theirs: ours for theirs, ours in MLP.items() if "gate" not in theirs} | {
        _LAYER + "attention_layernorm.weight": "blk.{i}.attn_norm.weight",
        _LAYER + "feedforward_layernorm.weight": "blk.{i}.ffn_norm.weight",
        **{f"{_LAYER}mlp.act_fn.{part}": f"blk.{{i}}.{part}" for part in _ACTIVATION},
    }  # fmt: skip
    optional = OwnHead.optional | {f"blk.{{i}}.{part}" for part in _ACTIVATION}  # they become keys
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn", "llama3"})

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {f"blk.{{i}}.{part}": (1,) for part in _ACTIVATION}

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        return [] if tensor.name.split(".")[-1] in _ACTIVATION else tensor

    def numbers(self) -> list[str]:
        wanted = [self._number(part, i) for part in _ACTIVATION for i in range(self.n_layers)]
        lost = next((name for name in wanted if name not in self.infos), None)
        if lost is not None:
            raise CheckpointError(f"the checkpoint lacks {lost}; a shard is missing")
        return [self.infos[name].name for name in wanted]

    def number_keys(self, numbers: Mapping[str, float]) -> dict[str, Value]:
        return {
            key: [numbers[self.infos[self._number(part, i)].name] for i in range(self.n_layers)]
            for part, key in _ACTIVATION.items()
        }

    def _number(self, part: str, i: int) -> str:
        return f"model.layers.{i}.mlp.act_fn.{part}"
