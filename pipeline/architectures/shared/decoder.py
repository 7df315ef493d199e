"""Nearly all decoders share these names, heads, keys and shapes. Each family states in its own file how it differs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.shared.base import Architecture, rope_interleave
from pipeline.architectures.shared.classifier import classifies
from pipeline.architectures.shared.pooling import pooling_type
from pipeline.architectures.shared.rope import read_rope, rope_keys, rope_tensors
from pipeline.architectures.shared.tensor import Tensor
from pipeline.architectures.shared.wrapper import text_part
from pipeline.format.gguf_file import Value

TRUNK = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}
ATTENTION = {
    "model.layers.{i}.self_attn.q_proj.weight": "blk.{i}.attn_q.weight",
    "model.layers.{i}.self_attn.k_proj.weight": "blk.{i}.attn_k.weight",
    "model.layers.{i}.self_attn.v_proj.weight": "blk.{i}.attn_v.weight",
    "model.layers.{i}.self_attn.o_proj.weight": "blk.{i}.attn_output.weight",
}
_EMBEDDING = "model.embed_tokens.weight"
WINDOW_KINDS = ("sliding_attention", "full_attention")
ATTENTION_PARTS = (
    "attn_q.weight", "attn_k.weight", "attn_v.weight", "attn_output.weight", "attn_q_norm.weight", "attn_k_norm.weight",
)  # fmt: skip
QK_NORMS = {
    "model.layers.{i}.self_attn.q_norm.weight": "blk.{i}.attn_q_norm.weight",
    "model.layers.{i}.self_attn.k_norm.weight": "blk.{i}.attn_k_norm.weight",
}
PRE_NORMS = {
    "model.layers.{i}.input_layernorm.weight": "blk.{i}.attn_norm.weight",
    "model.layers.{i}.post_attention_layernorm.weight": "blk.{i}.ffn_norm.weight",
}
MLP = {
    "model.layers.{i}.mlp.gate_proj.weight": "blk.{i}.ffn_gate.weight",
    "model.layers.{i}.mlp.up_proj.weight": "blk.{i}.ffn_up.weight",
    "model.layers.{i}.mlp.down_proj.weight": "blk.{i}.ffn_down.weight",
}


def sizes(hidden: int, mlp: int, layers: int, heads: int, kv_heads: int | None, context: int, **others: Any) -> dict[str, Any]:
    """transformers' defaults of a family, under the names of config.json."""
    return {
        "hidden_size": hidden, "intermediate_size": mlp, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "max_position_embeddings": context, "rms_norm_eps": 1e-6, **others,
    }  # fmt: skip


def bias_names(table: Mapping[str, str]) -> dict[str, str]:
    """The same lines for the biases of those weights."""
    return {theirs.replace(".weight", ".bias"): ours.replace(".weight", ".bias") for theirs, ours in table.items()}


class Decoder(Architecture):
    """A pre-norm transformer with a gated MLP; attention with grouped keys and RoPE.

    Class attributes a family sets:
        norm_eps: the key of the epsilon of its norms, and that number's names in config.json.
        rotary: whether positions are turned into queries and keys (RoPE).
        interleaved_rope: reorder the rows of queries and keys from transformers' halves to ggml's neighbouring pairs. False where
            ggml takes halves ("neox"), and where transformers turns neighbouring pairs itself.
        rope_kinds: what llama.cpp's graph of the family computes.
        partial_rope: whether it may rotate a part of each head.
        square: the graph has ``heads * head_dim == hidden_size`` built in.
        bias_flags: flag of config.json -> the biases (without "blk.{i}." and ".bias") that stand or fall with it.
        bias_always: biases that every checkpoint has.
        has_window: whether config.json's sliding_window counts: always, or only with use_sliding_window.
        keeps_window: whether llama.cpp's graph of the family keeps to the window.
        scores: whether it computes the scores of a classifier or reranker.
    """

    names = TRUNK | PRE_NORMS | ATTENTION | MLP
    # Which biases there must be is the matter of ``bias_flags`` and ``bias_always``.
    optional = frozenset({"output.weight", *bias_names(ATTENTION).values(), *bias_names(MLP).values()})
    norm_eps: ClassVar[tuple[str, ...]] = (Keys.Attention.LAYERNORM_RMS_EPS, "rms_norm_eps", "norm_eps")
    rotary: ClassVar[bool] = True
    interleaved_rope: ClassVar[bool] = False
    rope_kinds: ClassVar[frozenset[str]] = frozenset({"default", "linear", "dynamic", "yarn"})
    partial_rope: ClassVar[bool] = False
    square: ClassVar[bool] = False
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    bias_always: ClassVar[tuple[str, ...]] = ()
    has_window: ClassVar[Literal["always", "if used"] | None] = None
    keeps_window: ClassVar[bool] = False
    scores: ClassVar[bool] = False

    @property
    def n_kv_heads(self) -> int:
        return self.integer("num_key_value_heads", default=self.n_heads)

    @property
    def head_dim(self) -> int:
        return self.integer("head_dim", default=self.integer("hidden_size") // self.n_heads)

    @property
    def writes_text(self) -> bool:
        """Whether words are wanted; an embedding model or a classifier needs no head for them."""
        return pooling_type(self.files) is None and not classifies(self.hp)

    @property
    def tied(self) -> bool:
        if text_part(self.hp) and self.hp.get("tie_word_embeddings") is None:
            return "lm_head.weight" not in self.infos  # a wrapper may leave it to its default: then the tensors say it
        return super().tied

    @property
    def window(self) -> int | None:
        """The sliding window of some layers, in tokens; None where all layers see everything."""
        if not self.has_window or (self.has_window == "if used" and not self.flag("use_sliding_window")):
            return None
        return None if self.hp.get("sliding_window") is None else self.integer("sliding_window")

    @property
    def exact_context(self) -> int | None:
        # Within the window all layers see everything, which is what llama.cpp computes.
        window = None if self.keeps_window else self.window
        return window if window and window < self.integer("max_position_embeddings") else None

    @property
    def rope_head_dim(self) -> int:
        """Dimensions of the heads that ``rope_keys`` describes."""
        return self.head_dim

    def check(self) -> None:
        super().check()
        if self.tied and _EMBEDDING not in self.infos and "lm_head.weight" in self.infos:
            # Of two names for one weight some writers keep the other; transformers takes either.
            self.infos[_EMBEDDING] = self.infos.pop("lm_head.weight")
        if not self.scores and (classifies(self.hp) or "score.weight" in self.infos):
            raise UnsupportedError(
                f"the model is a classifier or reranker (score.weight), and llama.cpp's {self.gguf} has no head that gives "
                "scores; it has one for BERT and its family, ModernBERT and Qwen3"
            )
        if self.n_heads % self.n_kv_heads:
            raise CheckpointError(f"config.json: {self.n_heads} heads cannot share {self.n_kv_heads} key-value heads")
        if self.head_dim < 1:
            raise CheckpointError(f"config.json: {self.n_heads} heads in a hidden_size of {self.integer('hidden_size')}")
        if self.square and self.n_heads * self.head_dim != self.integer("hidden_size"):
            raise UnsupportedError(f"llama.cpp's {self.gguf} needs head_dim = hidden_size / heads; here it is {self.head_dim}")
        for flag in ("attention_bias", "mlp_bias"):
            if self.flag(flag) and flag not in self.bias_flags:
                raise UnsupportedError(f"config.json sets {flag}; a {self.gguf} with such biases is not supported")
        if self.rotary:
            self._check_rope()

    def _check_rope(self) -> None:
        rope = read_rope(self.hp, self.rope_head_dim)
        if rope.kind not in self.rope_kinds:
            raise UnsupportedError(f"RoPE of type {rope.kind} is not supported for {self.gguf}")
        if rope.rotated != self.rope_head_dim and not self.partial_rope:
            raise UnsupportedError(f"partial_rotary_factor is not supported for {self.gguf}")
        if rope.kind == "yarn" and rope.beta != (32.0, 1.0) and self.gguf != "mistral3":
            beta = " and ".join(f"{b:g}" for b in rope.beta)
            raise UnsupportedError(f"llama.cpp's {self.gguf} computes YaRN with beta 32 and 1 only, not {beta}")

    def keys(self) -> dict[str, Value]:
        keys = super().keys()
        if self.exact_context:
            keys[Keys.LLM.CONTEXT_LENGTH] = self.exact_context
        keys |= {
            Keys.Attention.HEAD_COUNT_KV: self.n_kv_heads,
            self.norm_eps[0]: self.number(*self.norm_eps[1:]),
            Keys.Attention.KEY_LENGTH: self.head_dim,
            Keys.Attention.VALUE_LENGTH: self.head_dim,
            Keys.LLM.VOCAB_SIZE: self.vocab_rows,
        }
        return keys | rope_keys(self.hp, self.rope_head_dim) if self.rotary else keys

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d = self.integer("hidden_size")
        return {
            "token_embd.weight": (self.vocab_rows, d),
            "output.weight": (self.vocab_rows, d),
            "output_norm.weight": (d,),
            "blk.{i}.attn_norm.weight": (d,),
            "blk.{i}.ffn_norm.weight": (d,),
            **self.layer_shapes("{i}", self.head_dim, self.n_kv_heads, self.mlp_width),
        }

    def layer_shapes(self, i: int | str, head: int, n_kv_heads: int, mlp_width: int) -> dict[str, tuple[int, ...]]:
        """Shapes in layer ``i``, whose heads have ``head`` dimensions."""
        d, q, kv = self.integer("hidden_size"), self.n_heads * head, n_kv_heads * head
        return {
            f"blk.{i}.attn_q.weight": (q, d),
            f"blk.{i}.attn_k.weight": (kv, d),
            f"blk.{i}.attn_v.weight": (kv, d),
            f"blk.{i}.attn_output.weight": (d, q),
            f"blk.{i}.attn_q_norm.weight": (head,),
            f"blk.{i}.attn_k_norm.weight": (head,),
            f"blk.{i}.ffn_gate.weight": (mlp_width, d),
            f"blk.{i}.ffn_up.weight": (mlp_width, d),
            f"blk.{i}.ffn_down.weight": (d, mlp_width),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if not self.interleaved_rope:
            return tensor
        for part, heads in (("attn_q", self.n_heads), ("attn_k", self.n_kv_heads)):
            if f".{part}." in tensor.name:
                order = rope_interleave(heads, self.head_dim)
                # A bias is one row: what is reordered are its columns.
                return replace(tensor, column_order=order) if len(tensor.shape) == 1 else replace(tensor, row_order=order)
        return tensor

    def tensors(self) -> list[Tensor]:
        tensors = self.mapped()
        have = {t.name for t in tensors}
        if not self.tied and not self.bare and self.writes_text and "output.weight" not in have:
            raise CheckpointError("the checkpoint has no lm_head.weight and config.json does not tie it to the embedding")
        self._check_biases(have)
        return tensors + rope_tensors(self.hp, self.rope_head_dim) if self.rotary else tensors

    def _check_biases(self, have: set[str]) -> None:
        wanted = dict.fromkeys(self.bias_always, True)
        wanted |= {part: self.flag(flag) for flag, parts in self.bias_flags.items() for part in parts}
        for part, want in wanted.items():
            weights = [i for i in range(self.n_layers) if f"blk.{i}.{part}.weight" in have]
            there = [i for i in range(self.n_layers) if f"blk.{i}.{part}.bias" in have]
            if want and there != weights:
                raise CheckpointError(f"the checkpoint lacks biases of {part}; a shard is missing or it is another model")
            if there and not want:
                raise CheckpointError(f"the checkpoint has biases of {part}, which config.json says the model does not use")

    @staticmethod
    def check_kinds(
        tensors: list[Tensor], first: list[bool], ones: Iterable[str], others: Iterable[str], key: str = "layer_types"
    ) -> None:
        """Layers of two kinds: each must have all the parts of its own and none of the other's. Raises CheckpointError.

        Args:
            key: what in config.json says which layer is of which kind.
        """
        have = {t.name for t in tensors}
        for i, is_first in enumerate(first):
            for parts, wanted in ((ones, is_first), (others, not is_first)):
                for part in parts:
                    if (f"blk.{i}.{part}" in have) != wanted:
                        verb = "lacks" if wanted else "has"
                        raise CheckpointError(f"the checkpoint {verb} blk.{i}.{part}, unlike what {key} in config.json says")


class OwnHead(Decoder):
    """A family for which llama.cpp demands output.weight: a tied head is written as a copy of the embedding."""

    @property
    def tied(self) -> bool:
        return False

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        if super().tied and all(t.name != "output.weight" for t in tensors):
            embedding = next(t for t in tensors if t.name == "token_embd.weight")
            tensors.append(replace(embedding, name="output.weight"))
        return tensors


class Windowed(Decoder):
    """A family in which most layers see a window only, and llama.cpp's graph keeps to it.

    ``full_every``: one layer in so many sees everything, unless config.json lists the layers.
    """

    has_window = "always"
    keeps_window = True
    full_every: ClassVar[int]

    def is_sliding(self) -> list[bool]:
        """Whether each layer sees the window only."""
        return self.sliding_layers(self.full_every)

    def sliding_layers(self, full_every: int) -> list[bool]:
        kinds = self.layers_of("layer_types", WINDOW_KINDS, lambda i: WINDOW_KINDS[(i + 1) % full_every == 0])
        return [kind == "sliding_attention" for kind in kinds]

    def window_keys(self) -> dict[str, Value]:
        """The size of the window and the layers that keep to it. Raises CheckpointError if there is no sliding_window."""
        if self.window is None:
            raise CheckpointError(f"config.json: {self.gguf} with sliding layers needs a sliding_window")
        return {Keys.Attention.SLIDING_WINDOW: self.window, Keys.Attention.SLIDING_WINDOW_PATTERN: self.is_sliding()}
