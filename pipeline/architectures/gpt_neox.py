"""GPT-NeoX and Pythia: LayerNorm, biases, GELU, fused projections in which each head's rows stand together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from gguf import Keys

from agent.errors import UnsupportedError
from pipeline.architectures.shared.decoder import OwnHead, sizes
from pipeline.architectures.shared.plain import GELU, GroupedQkv, in_blocks, known_names, with_biases
from pipeline.format.gguf_file import Value


class GptNeoX(OwnHead, GroupedQkv):
    gguf = "gptneox"
    defaults = sizes(
        6144, 24576, 44, 64, None, 2048, layer_norm_eps=1e-5, partial_rotary_factor=0.25, attention_bias=True,
        use_parallel_residual=True, hidden_act="gelu",
    )  # fmt: skip
    aliases: ClassVar[Mapping[str, str]] = {"rotary_pct": "partial_rotary_factor", "rotary_emb_base": "rope_theta"}
    activations = GELU
    names = (
        known_names("gpt_neox.", ["token_embd"])
        | dict.fromkeys(("embed_out.weight", "lm_head.weight"), "output.weight")
        | with_biases(
            known_names("gpt_neox.", ["output_norm", *in_blocks("attn_norm attn_qkv attn_output ffn_norm ffn_up ffn_down")])
        )
    )
    ignored = (*GroupedQkv.ignored, r"\.attention\.(masked_)?bias$")
    partial_rope = True
    # Each checkpoint has them, as the biases in ``names``.
    bias_flags: ClassVar[Mapping[str, tuple[str, ...]]] = {"attention_bias": ("attn_qkv", "attn_output")}

    @property
    def n_kv_heads(self) -> int:
        return self.n_heads

    def check(self) -> None:
        super().check()
        if not self.flag("attention_bias"):
            raise UnsupportedError("config.json says attention_bias false; llama.cpp's gptneox demands these biases")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {Keys.LLM.USE_PARALLEL_RESIDUAL: self.flag("use_parallel_residual")}
