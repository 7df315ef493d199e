"""MiniCPM 1, 2 and 4: Llama with three multipliers. MiniCPM 4.1 reads long texts sparsely, which llama.cpp does not."""

from __future__ import annotations

import math

from gguf import Keys

from agent.errors import CheckpointError
from pipeline.architectures.shared.decoder import Decoder, sizes
from pipeline.format.gguf_file import Value


class MiniCpm(Decoder):
    gguf = "minicpm"
    defaults = sizes(
        4096, 11008, 32, 32, None, 2048, scale_emb=1.0, scale_depth=1.0, dim_model_base=1.0, tie_word_embeddings=True
    )
    interleaved_rope = True
    rope_kinds = frozenset({"default", "linear", "dynamic", "yarn", "longrope"})

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            Keys.LLM.CONTEXT_LENGTH: min(self.integer("max_position_embeddings"), self.dense_length()),
            Keys.LLM.EMBEDDING_SCALE: self.number("scale_emb"),
            Keys.LLM.RESIDUAL_SCALE: self.number("scale_depth") / math.sqrt(self.n_layers),
            Keys.LLM.LOGIT_SCALE: self.integer("hidden_size") / self.number("dim_model_base"),
        }

    def dense_length(self) -> int:
        """Tokens up to which each sees all before it, as llama.cpp computes it."""
        sparse = self.hp.get("sparse_config") or {}
        length = sparse.get("dense_len", 2**31 - 1) if isinstance(sparse, dict) else 0
        if type(length) is not int or length < 1:
            raise CheckpointError("config.json: sparse_config must be an object whose dense_len is a whole number of tokens")
        return length
