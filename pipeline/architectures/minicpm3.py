"""MiniCPM 3: queries, keys and values go through narrow layers (MLA); llama.cpp has its multipliers built in."""

from __future__ import annotations

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import MLP, PRE_NORMS, TRUNK, Decoder, sizes
from pipeline.architectures.shared.plain import in_blocks, known_names
from pipeline.format.gguf_file import Value

_BUILT_IN = {"scale_emb": 12.0, "scale_depth": 1.4, "dim_model_base": 256.0}


class MiniCpm3(Decoder):
    gguf = "minicpm3"
    defaults = sizes(
        2560, 6400, 62, 40, None, 32768, rms_norm_eps=1e-5, q_lora_rank=768, kv_lora_rank=256, qk_nope_head_dim=64,
        qk_rope_head_dim=32, v_head_dim=64, tie_word_embeddings=True, **_BUILT_IN,
    )  # fmt: skip
    names = TRUNK | PRE_NORMS | MLP | known_names(
        "model.layers.{bid}.self_attn.",
        in_blocks("attn_q_a attn_q_a_norm attn_q_b attn_kv_a_mqa attn_kv_a_norm attn_kv_b attn_output"),
    )  # fmt: skip
    rope_kinds = frozenset({"default", "dynamic", "longrope"})

    @property
    def head_dim(self) -> int:
        return self.integer("qk_nope_head_dim") + self.integer("qk_rope_head_dim")

    @property
    def rope_head_dim(self) -> int:
        return self.integer("qk_rope_head_dim")

    def check(self) -> None:
        super().check()
        for name, value in _BUILT_IN.items():
            if self.number(name) != value:
                raise UnsupportedError(f"{name} is {self.number(name):g}; llama.cpp's minicpm3 has {value:g} built in")
        if self.n_kv_heads != self.n_heads:
            raise UnsupportedError("llama.cpp's minicpm3 has as many key-value heads as heads; config.json says otherwise")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            Keys.Attention.VALUE_LENGTH: self.integer("v_head_dim"),
            Keys.Attention.Q_LORA_RANK: self.integer("q_lora_rank"),
            Keys.Attention.KV_LORA_RANK: self.integer("kv_lora_rank"),
        }

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, n, v = self.integer("hidden_size"), self.n_heads, self.integer("v_head_dim")
        q, kv = self.integer("q_lora_rank"), self.integer("kv_lora_rank")
        return super().expected_shapes() | {
            "blk.{i}.attn_q_a.weight": (q, d),
            "blk.{i}.attn_q_a_norm.weight": (q,),
            "blk.{i}.attn_q_b.weight": (n * self.head_dim, q),
            "blk.{i}.attn_kv_a_mqa.weight": (kv + self.rope_head_dim, d),
            "blk.{i}.attn_kv_a_norm.weight": (kv,),
            "blk.{i}.attn_kv_b.weight": (n * (self.integer("qk_nope_head_dim") + v), kv),
            "blk.{i}.attn_output.weight": (d, n * v),
        }
