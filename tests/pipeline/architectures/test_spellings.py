"""The ways in which a checkpoint spells the names of its tensors and of its own kind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from agent.errors import UnsupportedError
from pipeline.architectures.find import find_architecture
from pipeline.quantize import dry_run
from pipeline.sources.checkpoint import TensorInfo
from tests.fixtures.packed_forms import Stored, write_safetensors
from tests.fixtures.random_llama import LlamaShape, write_small_files
from tests.pipeline.architectures.test_architectures import config_of, infos_of, keys_of, read

PREFIXES = ["_orig_mod.", "base_model.model.", "_orig_mod.base_model.model.", "base_model.model._orig_mod.", "module._orig_mod."]


@pytest.mark.parametrize("name", ["llama-tied-biases", "gemma3", "bert", "distilbert"])
@pytest.mark.parametrize("prefix", PREFIXES)
def test_what_training_left_before_the_names_is_taken_off(prefix: str, name: str) -> None:
    infos = {prefix + key: replace(info, name=prefix + key) for key, info in infos_of(name).items()}
    plain = read(config_of(name), infos_of(name)).tensors()
    for found, want in zip(read(config_of(name), infos).tensors(), plain, strict=True):
        assert (found.name, found.shape) == (want.name, want.shape)
        assert [s.source for s in found.sources] == [prefix + s.source for s in want.sources]
    within = {key.replace("layers.0.", "layers.0._orig_mod."): info for key, info in infos_of(name).items()}
    assert [t.name for t in read(config_of(name), within).tensors()] == [t.name for t in plain]


@pytest.mark.parametrize("name", ["llama", "qwen2", "qwen3-tied", "gemma3", "qwen3-moe", "lfm2"])
def test_a_bare_backbone_lacks_the_first_word_of_each_name(name: str) -> None:
    """What ``AutoModel.save_pretrained`` writes, Qwen3-Embedding for one; a head of its own is no part of it."""
    whole = infos_of(name)
    bare = {key.removeprefix("model."): info for key, info in whole.items() if not key.startswith("lm_head.")}
    found = {t.name: t.shape for t in read(config_of(name), bare).tensors()}
    want = {t.name: t.shape for t in read(config_of(name), whole).tensors() if t.name != "output.weight"}
    assert found == want


def test_a_backbone_without_its_own_head_says_what_it_is_good_for(tmp_path: Path) -> None:
    shape = LlamaShape(64, 96, 1, 4, 2, 320)
    write_small_files(tmp_path / "hf", shape)
    bare = {
        n.removeprefix("model."): Stored("F32", np.ones(s, "<f4")) for n, s in shape.shapes().items() if n != "lm_head.weight"
    }
    write_safetensors(tmp_path / "hf" / "model.safetensors", bare)
    plan = dry_run(str(tmp_path / "hf"), "Q8_0", tmp_path / "out.gguf")
    assert "output.weight" not in plan.choices
    assert any("bare backbone, without its head" in note for note in plan.notes)


@pytest.mark.parametrize("left", ["lora_A.weight", "lora_B.default.weight", "base_layer.weight"])
def test_an_adapter_left_in_a_checkpoint_is_refused_for_what_it_is(left: str) -> None:
    infos = {f"base_model.model.{key}": info for key, info in infos_of("llama").items()}
    name = f"base_model.model.model.layers.0.self_attn.q_proj.{left}"
    with pytest.raises(UnsupportedError, match="LoRA adapter that is not merged"):
        read(config_of("llama"), {**infos, name: TensorInfo(name, "F32", (4, 96), "f", 0, 1536)})


def test_the_class_of_transformers_decides_where_no_model_type_does() -> None:
    for name, kind in (
        ("LlamaForCausalLM", "llama"), ("Qwen3MoeForCausalLM", "qwen3_moe"), ("Gemma3ForConditionalGeneration", "gemma3"),
        ("BertModel", "bert"), ("DistilBertForMaskedLM", "distilbert"), ("SmolLM3ForCausalLM", "smollm3"),
        ("GraniteMoeSharedForCausalLM", "granitemoeshared"), ("Olmo2ForCausalLM", "olmo2"), ("Lfm2Model", "lfm2"),
    ):  # fmt: skip
        for config in ({"architectures": [name]}, {"model_type": None, "architectures": [name]}):
            assert find_architecture(config) is find_architecture({"model_type": kind})
    for strange in (["MambaForCausalLM"], "LlamaForCausalLM", [], [3], {"a": 1}, ["FindForCausalLM"], ["../LlamaModel"]):
        with pytest.raises(UnsupportedError, match="is not supported"):
            find_architecture({"architectures": strange})
    assert keys_of({**config_of("llama"), "model_type": None}) == keys_of(config_of("llama"))


def test_an_activation_under_a_key_that_the_family_does_not_read_says_nothing() -> None:
    """Falcon3's config.json has "activation": "swiglu" beside "hidden_act": "silu"."""
    for name, stray in (
        ("llama", "activation"),
        ("llama", "hidden_activation"),
        ("gemma3", "hidden_act"),
        ("bert", "activation"),
    ):
        read({**config_of(name), stray: "swiglu"}, infos_of(name))
    for name, own in (("llama", "hidden_act"), ("gemma3", "hidden_activation"), ("distilbert", "activation")):
        with pytest.raises(UnsupportedError, match=f"{own} is 'swiglu'"):
            read({**config_of(name), own: "swiglu"}, infos_of(name))
