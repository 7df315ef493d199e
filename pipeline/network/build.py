"""A network of torch from a checkpoint, or from a configuration alone.

transformers computes it, from the configuration alone: no code of a checkpoint runs, no weight is read by anything but
``pipeline.sources``.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import CONFIG_MAPPING, AutoModel, AutoModelForCausalLM
from transformers.initialization import no_init_weights

from agent.errors import CheckpointError, UnsupportedError
from agent.text import brief
from pipeline.format import ggml
from pipeline.format.ggml import Floats
from pipeline.sources.checkpoint import SOURCE_TYPES, Checkpoint

Network = Any  # a model of transformers


def build(config: Mapping[str, Any], tensors: Checkpoint, *, encoder: bool = False, attention: str | None = None) -> Network:
    """The checkpoint's network in float32, on the CPU, frozen.

    Args:
        config: config.json.
        tensors: the weights.
        encoder: take the backbone alone, without a head that tells tokens.
        attention: how attention is computed ("eager" can show its weights); by default as transformers chooses.

    Raises:
        UnsupportedError: transformers has other tensors than the checkpoint.
        CheckpointError: a tensor has another size than the configuration says.
    """
    with no_init_weights():
        network = _empty(config, encoder, attention)
    network.requires_grad_(False)
    network.tie_weights()
    given = {spelled(network, name): name for name in tensors.tensors}
    for name, parameter in held(network).items():
        if name in given:
            values = torch.from_numpy(_floats(tensors, given[name]))
            if values.numel() != parameter.numel():
                raise CheckpointError(
                    f"{brief(given[name])} has {values.numel()} numbers, config.json asks for {list(parameter.shape)}; "
                    "take weights and configuration of the same model"
                )
            parameter.copy_(values.view(parameter.shape))
        elif isinstance(parameter, nn.Parameter):
            raise UnsupportedError(f"the checkpoint has no {name}, which transformers computes with")
    return network.eval()


def fresh(config: Mapping[str, Any], seed: int, *, encoder: bool = False, attention: str | None = None) -> Network:
    """A network whose weights are drawn as transformers draws them, from ``seed``; float32, on the CPU, frozen."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = _empty(config, encoder, attention)
    network.requires_grad_(False)
    return network.eval()


def is_encoder(config: Mapping[str, Any]) -> bool:
    """Whether the model gives vectors and no next token."""
    name = next(iter(config.get("architectures") or ()), "")
    if not isinstance(name, str) or not name:
        kind = str(config.get("model_type"))
        return kind in CONFIG_MAPPING and CONFIG_MAPPING[kind] not in AutoModelForCausalLM._model_mapping
    return name.endswith(("ForMaskedLM", "Model")) and not name.endswith("LMHeadModel")


def held(network: Network) -> dict[str, Any]:
    """All that a checkpoint may hold of a network: its parameters, and a few buffers."""
    return dict(network.named_buffers()) | dict(network.named_parameters())


def spelled(network: Network, name: str) -> str:
    """A checkpoint's name of a parameter as ``network`` has it: a bare backbone leaves the prefix out."""
    prefix = f"{network.base_model_prefix}."
    if not hasattr(network, network.base_model_prefix):  # the network is the backbone
        return name.removeprefix(prefix)
    return name if name.startswith((prefix, "lm_head")) else prefix + name


def _empty(config: Mapping[str, Any], encoder: bool, attention: str | None) -> Network:
    kind = str(config.get("model_type"))
    if kind not in CONFIG_MAPPING:
        raise UnsupportedError(f"the installed transformers has no {brief(kind)} to learn with; a newer one may: "
                               "pip install -U transformers")  # fmt: skip
    auto = AutoModel if encoder else AutoModelForCausalLM
    try:
        return auto.from_config(_settings(kind, config), dtype=torch.float32, attn_implementation=attention)
    except ValueError as e:
        raise UnsupportedError(f"transformers has no language model of {kind}: {str(e).splitlines()[0]}") from None


def _settings(kind: str, config: Mapping[str, Any]) -> Any:
    """The configuration without what would load code, or give other weights than float32."""
    own = {k: v for k, v in config.items() if k not in ("auto_map", "dtype", "torch_dtype", "quantization_config")}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:  # transformers decodes some values of a file only
        json.dump(own, file)
        file.flush()
        return CONFIG_MAPPING[kind].from_json_file(file.name)


def _floats(checkpoint: Checkpoint, name: str) -> Floats:
    info = checkpoint.tensors[name]
    raw = np.ascontiguousarray(checkpoint.rows(name, 0, info.n_rows))
    return ggml.to_float(raw, SOURCE_TYPES[info.dtype], info.row_length).copy()
