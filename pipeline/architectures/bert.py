"""BERT: an encoder that gives an embedding per token."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from gguf import Keys, PoolingType

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.shared.base import Architecture
from pipeline.format.gguf_file import Value

_MODE = "pooling_mode_"
_POOLING = {
    "mean_tokens": PoolingType.MEAN, "mean": PoolingType.MEAN, "cls_token": PoolingType.CLS, "cls": PoolingType.CLS,
    "lasttoken": PoolingType.LAST,
}  # fmt: skip


def weights_and_biases(table: Mapping[str, str]) -> dict[str, str]:
    """Each line of the table twice: for the weight and for the bias."""
    return {f"{theirs}.{kind}": f"{ours}.{kind}" for theirs, ours in table.items() for kind in ("weight", "bias")}


EMBEDDINGS = {
    "embeddings.word_embeddings.weight": "token_embd.weight",
    "embeddings.position_embeddings.weight": "position_embd.weight",
    **weights_and_biases({"embeddings.LayerNorm": "token_embd_norm"}),
}


def pooling_type(files: Mapping[str, bytes]) -> int | None:
    """llama.cpp's number for how sentence-transformers makes one vector of all tokens; None where no file says.

    Source: ``NAME_Pooling/config.json`` of https://sbert.net, and ``enum llama_pooling_type``.

    Raises:
        CheckpointError: the file is broken.
        UnsupportedError: a way of pooling that llama.cpp does not have.
    """
    name = next((name for name in sorted(files) if name.endswith("_Pooling/config.json")), None)
    if name is None:
        return None
    try:
        config = json.loads(files[name])
        modes = {key.removeprefix(_MODE) for key, on in config.items() if on is True and key.startswith(_MODE)}
    except (ValueError, AttributeError, RecursionError):
        raise CheckpointError(f"{name} is not a JSON object; download it again") from None
    if isinstance(config.get("pooling_mode"), str):
        modes.add(config["pooling_mode"])
    found = {_POOLING.get(mode) for mode in modes}
    if len(found) != 1 or None in found:
        how = " and ".join(sorted(modes))[:60] or "nothing"
        raise UnsupportedError(f"{name} pools by {how}; llama.cpp pools by mean, cls or last token")
    return found.pop()


class Bert(Architecture):
    gguf = "bert"
    defaults: ClassVar[dict[str, Any]] = {
        "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
        "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    }  # fmt: skip
    # llama.cpp computes the tanh form of GELU whichever of these a model was trained with.
    activations = frozenset({"gelu", "gelu_new", "gelu_pytorch_tanh", "gelu_fast"})
    names = EMBEDDINGS | {"embeddings.token_type_embeddings.weight": "token_types.weight"} | weights_and_biases({
        "encoder.layer.{i}.attention.self.query": "blk.{i}.attn_q",
        "encoder.layer.{i}.attention.self.key": "blk.{i}.attn_k",
        "encoder.layer.{i}.attention.self.value": "blk.{i}.attn_v",
        "encoder.layer.{i}.attention.output.dense": "blk.{i}.attn_output",
        "encoder.layer.{i}.attention.output.LayerNorm": "blk.{i}.attn_output_norm",
        "encoder.layer.{i}.intermediate.dense": "blk.{i}.ffn_up",
        "encoder.layer.{i}.output.dense": "blk.{i}.ffn_down",
        "encoder.layer.{i}.output.LayerNorm": "blk.{i}.layer_output_norm",
    })  # fmt: skip
    # The heads of pre-training are no part of an embedding.
    ignored: ClassVar[tuple[str, ...]] = (r"position_ids$", r"^pooler\.", r"^cls\.(predictions|seq_relationship)\.")

    def normalize(self, name: str) -> str:
        name = name.removeprefix("bert.")
        return re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name))

    @property
    def tied(self) -> bool:
        return False  # no head

    def check(self) -> None:
        super().check()
        if self.integer("hidden_size") % self.n_heads:
            raise CheckpointError(f"config.json: hidden_size is no multiple of {self.n_heads} heads")
        if self.hp.get("position_embedding_type", "absolute") != "absolute":
            raise UnsupportedError("llama.cpp's bert has absolute positions only; position_embedding_type is another")
        if self.flag("is_decoder"):
            raise UnsupportedError("config.json makes a decoder of BERT (is_decoder); llama.cpp has the encoder only")

    def keys(self) -> dict[str, Value]:
        return super().keys() | {
            Keys.Attention.LAYERNORM_EPS: self.number("layer_norm_eps"),
            Keys.Attention.CAUSAL: False,
            Keys.LLM.VOCAB_SIZE: self.vocab_rows,
        }

    def gguf_keys(self, files: Mapping[str, bytes]) -> dict[str, Value]:
        keys = super().gguf_keys(files) | {Keys.Tokenizer.TOKEN_TYPE_COUNT: self.integer("type_vocab_size")}
        pooling = pooling_type(files)
        return keys if pooling is None else keys | {Keys.LLM.POOLING_TYPE.format(arch=self.gguf): pooling}

    def expected_shapes(self) -> dict[str, tuple[int, ...]]:
        d, ff = self.integer("hidden_size"), self.integer("intermediate_size")
        return {
            "token_embd.weight": (self.vocab_rows, d),
            "position_embd.weight": (self.integer("max_position_embeddings"), d),
            "token_types.weight": (self.integer("type_vocab_size"), d),
            "blk.{i}.ffn_up.weight": (ff, d),
            "blk.{i}.ffn_down.weight": (d, ff),
            **{f"blk.{{i}}.{part}.weight": (d, d) for part in ("attn_q", "attn_k", "attn_v", "attn_output")},
            **{f"{norm}.weight": (d,) for norm in ("token_embd_norm", "blk.{i}.attn_output_norm", "blk.{i}.layer_output_norm")},
        }
