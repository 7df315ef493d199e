"""Command R, Aya 23 and Aya Expanse: LayerNorm without biases, attention and MLP side by side, logits scaled, a tied head."""

from __future__ import annotations

from collections.abc import Iterable

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import ATTENTION, MLP, QK_NORMS, TRUNK, sizes
from pipeline.architectures.shared.plain import LayerNormed
from pipeline.architectures.shared.tensor import Tensor
from pipeline.format.gguf_file import Value

_DEEP = 64  # layers from which on llama.cpp's command-r has norms on queries and keys, as Command R+ has


class Cohere(LayerNormed):
    """transformers turns neighbouring dimensions as llama.cpp does, so no rows are reordered."""

    gguf = "command-r"
    defaults = sizes(
        8192, 22528, 40, 64, None, 8192, layer_norm_eps=1e-5, logit_scale=0.0625, tie_word_embeddings=True, rope_theta=5e5
    )
    names = TRUNK | ATTENTION | MLP | QK_NORMS | {
        "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
    }  # fmt: skip
    optional = LayerNormed.optional | {*QK_NORMS.values()}

    def check(self) -> None:
        super().check()
        if not self.tied:
            raise UnsupportedError(f"llama.cpp's {self.gguf} always takes the embedding as its head; config.json does not")
        self.check_norms()

    def check_norms(self) -> None:
        if self.flag("use_qk_norm") != (self.n_layers >= _DEEP):
            has = "has" if self.flag("use_qk_norm") else "has no"
            raise UnsupportedError(
                f"llama.cpp's command-r has norms on queries and keys from {_DEEP} layers on; "
                f"this model of {self.n_layers} layers {has} such norms"
            )

    def keys(self) -> dict[str, Value]:
        # Command R was trained on more than its max_position_embeddings says.
        context = self.integer("model_max_length", "max_position_embeddings")
        return super().keys() | {Keys.LLM.CONTEXT_LENGTH: context, Keys.LLM.LOGIT_SCALE: self.number("logit_scale")}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        return super().expected_shapes() | {
            "blk.{i}.attn_q_norm.weight": (self.n_heads, self.head_dim),
            "blk.{i}.attn_k_norm.weight": (self.n_kv_heads, self.head_dim),
        }

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        self.check_kinds(tensors, [self.flag("use_qk_norm")] * self.n_layers, _parts(QK_NORMS.values()), ())
        return tensors


def _parts(names: Iterable[str]) -> list[str]:
    return [name.removeprefix("blk.{i}.") for name in names]
