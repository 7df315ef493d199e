"""Hunyuan dense (0.5B to 7B): Llama with norms on queries and keys after RoPE, whose base ``alpha`` stretches once for all."""

from __future__ import annotations

from pipeline.architectures.shared.base import positive
from pipeline.architectures.shared.decoder import Decoder, sizes
from pipeline.architectures.shared.rope import rope_parameters


class HunyuanV1Dense(Decoder):
    gguf = "hunyuan-dense"
    defaults = sizes(4096, 11008, 32, 32, None, 2048, rms_norm_eps=1e-5)
    names = Decoder.names | {
        "model.layers.{i}.self_attn.query_layernorm.weight": "blk.{i}.attn_q_norm.weight",
        "model.layers.{i}.self_attn.key_layernorm.weight": "blk.{i}.attn_k_norm.weight",
    }

    def check(self) -> None:
        p = rope_parameters(self.hp)
        if p.get("rope_type", p.get("type")) == "dynamic" and p.get("alpha"):
            stretch = positive("rope alpha", p["alpha"]) ** (self.head_dim / max(1, self.head_dim - 2))
            theta = positive("rope_theta", p.get("rope_theta", 10000.0)) * stretch
            self.hp |= {"rope_theta": theta, "rope_scaling": None, "rope_parameters": None}
        super().check()
