"""OLMo 1: Llama with norms that have no weights, and in some models queries, keys and values cut at a bound."""

from __future__ import annotations

from gguf import Keys

from pipeline.architectures.shared.decoder import ATTENTION, MLP, TRUNK, sizes
from pipeline.architectures.shared.plain import LayerNormed
from pipeline.format.gguf_file import Value


class Olmo(LayerNormed):
    gguf = "olmo"
    defaults = sizes(4096, 11008, 32, 32, None, 2048)
    names = {theirs: ours for theirs, ours in TRUNK.items() if "norm" not in ours} | ATTENTION | MLP
    interleaved_rope = True

    def check(self) -> None:
        self.hp["layer_norm_eps"] = 1e-5  # OLMo's own, whatever config.json says
        super().check()

    def keys(self) -> dict[str, Value]:
        clipped = self.hp.get("clip_qkv") is not None
        return super().keys() | ({Keys.Attention.CLAMP_KQV: self.number("clip_qkv")} if clipped else {})
