"""Gemma 3n (text part): four streams mixed before and after each layer (AltUp), a narrow detour beside attention (LAuReL), an
embedding per layer, keys and values shared by the last layers, and in the first layers only the largest activations."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from gguf import Keys

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.gemma2 import Gemma2
from pipeline.architectures.gemma4 import PER_LAYER, Gemma4
from pipeline.architectures.shared.decoder import QK_NORMS, Decoder, sizes
from pipeline.architectures.shared.plain import in_blocks, known_names
from pipeline.architectures.shared.tensor import Slice, Tensor
from pipeline.format.gguf_file import Value

_OWN_KV = 20  # layers that compute keys and values of their own; llama.cpp has the number built in
_SPARSE = [0.95] * 10  # the first layers drop so much of their activations
_BUILT_IN = {
    "altup_num_inputs": 4, "altup_active_idx": 0, "laurel_rank": 64, "hidden_size_per_layer_input": 256,
    "altup_correct_scale": True, "final_logit_softcapping": 30.0,
}  # fmt: skip
_KEYS_VALUES = ("attn_k.weight", "attn_v.weight", "attn_k_norm.weight")
_MIXED = in_blocks("altup_correct_coef altup_predict_coef altup_router altup_router_norm laurel_l laurel_r laurel_post_norm")


class Gemma3n(Gemma2):
    gguf = "gemma3n"
    defaults = sizes(
        2048, 16384, 35, 8, 2, 32768, head_dim=256, sliding_window=512, tie_word_embeddings=True, rope_theta=1e6,
        num_kv_shared_layers=15, **_BUILT_IN,
    )  # fmt: skip
    names = Gemma2.names | QK_NORMS | PER_LAYER | known_names("model.layers.", _MIXED) | {
        "model.layers.{i}.altup.correct_output_scale": "blk.{i}.altup_correct_scale.weight",
        "model.altup_projections.{e}.weight": "altup_proj.weight",
        "model.altup_unembed_projections.{e}.weight": "altup_unembd_proj.weight",
    }  # fmt: skip
    optional = Decoder.optional | {f"blk.{{i}}.{part}" for part in _KEYS_VALUES}
    ignored = Gemma4.ignored
    rope_kinds = frozenset({"default"})
    full_every = 5

    @property
    def mlp_width(self) -> int:
        widths = self.hp.get("intermediate_size")
        if not isinstance(widths, list):
            return self.integer("intermediate_size")
        if len(widths) != self.n_layers or any(type(w) is not int or w != widths[0] for w in widths) or not widths[0] > 0:
            raise UnsupportedError(f"llama.cpp's gemma3n has one width for all {self.n_layers} MLPs; intermediate_size is not so")
        return int(widths[0])

    def check(self) -> None:
        Decoder.check(self)
        for name, value in _BUILT_IN.items():
            if self.hp.get(name) != value:
                raise UnsupportedError(f"config.json: {name} is not {value}, which llama.cpp's gemma3n has built in")
        sliding = self.is_sliding()
        own = self.n_layers - self.integer("num_kv_shared_layers", least=0)
        if own != _OWN_KV or sliding[own - 2 : own] != [True, False]:
            raise UnsupportedError(
                f"llama.cpp's gemma3n has {_OWN_KV} layers with keys and values of their own, the last but one of them with "
                f"a window and the last without; config.json says otherwise"
            )
        sparsity = self.hp.get("activation_sparsity_pattern")
        if sparsity is not None and sparsity != _SPARSE + [0.0] * (self.n_layers - len(_SPARSE)):
            raise UnsupportedError("llama.cpp's gemma3n has an activation_sparsity_pattern of 0.95 in 10 layers, 0 in all others")
        self.plain_local_rope(self._local())

    def _local(self) -> dict[str, object]:
        """The hyperparameters that the RoPE of layers with a window goes by."""
        return {**self.hp, "rope_theta": self.hp.get("rope_local_base_freq") or 1e4}

    def keys(self) -> dict[str, Value]:
        return Decoder.keys(self) | self.window_keys() | {
            Keys.LLM.FEED_FORWARD_LENGTH: [self.mlp_width] * self.n_layers,
            Keys.LLM.FINAL_LOGIT_SOFTCAPPING: self.number("final_logit_softcapping"),
            Keys.LLM.ALTUP_ACTIVE_IDX: self.integer("altup_active_idx", least=0),
            Keys.LLM.ALTUP_NUM_INPUTS: self.integer("altup_num_inputs"),
            Keys.LLM.EMBD_LENGTH_PER_LAYER_INP: self.integer("hidden_size_per_layer_input"),
            Keys.Attention.SHARED_KV_LAYERS: self.integer("num_kv_shared_layers", least=0),
            Keys.Rope.FREQ_BASE_SWA: self.plain_local_rope(self._local()),
        }  # fmt: skip

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, p, n = self.integer("hidden_size"), self.integer("hidden_size_per_layer_input"), self.integer("altup_num_inputs")
        rank = self.integer("laurel_rank")
        rows = self.integer("vocab_size_per_layer_input", default=self.vocab_rows)
        return super().expected_shapes() | {
            "per_layer_token_embd.weight": (rows, self.n_layers * p),
            "per_layer_model_proj.weight": (self.n_layers * p, d),
            "per_layer_proj_norm.weight": (p,),
            "altup_proj.weight": (n - 1, d, d),
            "altup_unembd_proj.weight": (n - 1, d, d),
            "blk.{i}.inp_gate.weight": (p, d),
            "blk.{i}.proj.weight": (d, p),
            "blk.{i}.post_norm.weight": (d,),
            "blk.{i}.altup_correct_coef.weight": (n, n),
            "blk.{i}.altup_correct_scale.weight": (d,),
            "blk.{i}.altup_predict_coef.weight": (n * n, n),
            "blk.{i}.altup_router.weight": (n, d),
            "blk.{i}.altup_router_norm.weight": (d,),
            "blk.{i}.laurel_l.weight": (rank, d),
            "blk.{i}.laurel_r.weight": (d, rank),
            "blk.{i}.laurel_post_norm.weight": (d,),
        }

    def adjust(self, tensor: Tensor) -> Tensor | Iterable[Tensor]:
        if tensor.name == "per_layer_token_embd.weight":
            # Tokens of images and sound have no row; transformers takes that of token 0 for them.
            source, lacking = tensor.sources[0].source, self.vocab_rows - tensor.n_rows
            sources = (*tensor.sources, *[Slice(source, 0, 1)] * max(0, lacking))
            return replace(tensor, shape=(self.vocab_rows, tensor.row_length), sources=sources)
        return replace(tensor, f32=True) if tensor.name.endswith("_coef.weight") else tensor

    def mapped(self) -> list[Tensor]:
        tensors = super().mapped()
        have = {t.name: t for t in tensors}
        for i, sliding in enumerate(self.is_sliding()):
            for part in _KEYS_VALUES:
                if f"blk.{i}.{part}" in have:
                    continue
                if i < _OWN_KV:
                    raise CheckpointError(f"the checkpoint lacks the weights of blk.{i}.{part}; a shard is missing")
                # transformers 5 leaves out what is never used, and llama.cpp demands it: the layer's own keys are those of
                # the last such layer before.
                whose = have[f"blk.{_OWN_KV - 2 if sliding else _OWN_KV - 1}.{part}"]
                tensors.append(replace(whose, name=f"blk.{i}.{part}"))
        return tensors
