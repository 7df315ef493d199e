"""A network from a checkpoint or a configuration, without a line of the checkpoint's code."""

from __future__ import annotations

from typing import Any

import pytest

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.source import open_checkpoint, open_source, read_config
from tests.fixtures.later import later
from tests.fixtures.learners import models

torch = later("torch")
transformers = later("transformers")
network = later("pipeline.network.build")


def built(name: str, **changes: Any) -> Any:
    source = open_source(str(models() / name))
    with open_checkpoint(source) as tensors:
        return network.build({**read_config(source), **changes}, tensors, encoder=name == "encoder")


def test_a_language_model_computes_what_transformers_does() -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(models() / "teacher", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(built("teacher")(ids).logits, theirs(ids).logits)


def test_an_encoder_does_too() -> None:
    theirs = transformers.AutoModel.from_pretrained(models() / "encoder", dtype=torch.float32)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(built("encoder")(ids).last_hidden_state, theirs(ids).last_hidden_state)


def test_fresh_weights_follow_the_seed_and_leave_torchs_own_alone() -> None:
    config = read_config(open_source(str(models() / "teacher")))
    state = torch.get_rng_state()
    one, same, other = (network.fresh(config, seed).get_input_embeddings().weight for seed in (0, 0, 1))
    assert torch.equal(state, torch.get_rng_state())
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_is_an_encoder_is_said_by_the_architecture_or_the_kind() -> None:
    for config, expected in (
        ({"architectures": ["DistilBertModel"]}, True),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, True),
        ({"architectures": ["GPT2LMHeadModel"]}, False),
        ({"architectures": ["LlamaForCausalLM"]}, False),
        ({"model_type": "distilbert"}, True),
        ({"model_type": "llama"}, False),
        ({"architectures": [7]}, False),
    ):
        assert network.is_encoder(config) is expected, config


def test_a_configuration_of_another_model_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"has \d+ numbers, config.json asks for \[512, 64\]"):
        built("teacher", hidden_size=64)
    with pytest.raises(UnsupportedError, match=r"the checkpoint has no model\.layers\.2\..*, which transformers computes with"):
        built("teacher", num_hidden_layers=3)
    with pytest.raises(UnsupportedError, match="the installed transformers has no 'own' to learn with"):
        built("teacher", model_type="own")
