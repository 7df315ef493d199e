"""Which part of a checkpoint is converted: the text part of a wrapper, the head of a classifier; and what a person is told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.errors import CheckpointError, UnsupportedError
from pipeline.architectures.find import find_architecture
from pipeline.architectures.shared.classifier import labels
from pipeline.architectures.shared.pooling import dense_paths, prompts, read_dense
from pipeline.sources.checkpoint import TensorInfo
from tests.pipeline.architectures.test_architectures import config_of, infos_of, keys_of, read

EYE, EAR = "vision_tower.patch_embed.weight", "audio_tower.conv1.weight"


def info(name: str, *shape: int) -> TensorInfo:
    return TensorInfo(name, "F32", shape, "f", 0, 4 * max(1, int(1 if not shape else shape[0])))


SPELLINGS = {
    "transformers 5": ("smolvlm", "model.language_model.", "lm_head.", "model."),
    "transformers 4": ("llava", "language_model.model.", "language_model.lm_head.", ""),
    "SmolVLM": ("smolvlm", "model.text_model.", "lm_head.", "model."),
    "an Omni that thinks": ("qwen2_5_omni", "thinker.model.", "thinker.lm_head.", "thinker."),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_text_part_of_a_wrapper_is_found_under_every_prefix(spelling: str) -> None:
    kind, trunk, head, others = SPELLINGS[spelling]
    text = config_of("llama")
    config: dict[str, Any] = {"model_type": kind, "text_config": text, "vision_config": {}, "audio_config": {}}
    if kind == "qwen2_5_omni":
        config = {"model_type": kind, "thinker_config": config, "talker_config": {}}
    infos = {}
    for name, found in infos_of("llama").items():
        infos[name.replace("model.", trunk, 1) if name.startswith("model.") else name.replace("lm_head.", head)] = found
    for name in (others + EYE, others + EAR):
        infos[name] = info(name, 4, 4)
    arch = read(config, infos)
    assert {t.name for t in arch.tensors()} == {t.name for t in read(text, infos_of("llama")).tensors()}
    speech = " and speech" if kind == "qwen2_5_omni" else ""
    assert arch.notes() == [f"2 tensors of the vision and audio{speech} part are left out: the GGUF takes text only"]


def test_a_model_of_text_alone_keeps_every_tensor() -> None:
    name = "vision_tower.weight"
    with pytest.raises(UnsupportedError, match="vision_tower"):
        read(config_of("llama"), infos_of("llama") | {name: info(name, 4, 4)})
    assert read(config_of("llama"), infos_of("llama")).notes() == []


def test_qwen2_vl_on_the_hub_states_its_text_part_flat_and_in_transformers_4s_words() -> None:
    flat = {
        "model_type": "qwen2_vl", "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "rms_norm_eps": 1e-6, "rope_theta": 1e6,
        "rope_scaling": {"type": "mrope", "mrope_section": [16, 24, 24]}, "vision_config": {"depth": 32},
        "tie_word_embeddings": True,
    }  # fmt: skip
    keys = keys_of(flat)
    assert (keys["rope.dimension_sections"], keys["rope.freq_base"]) == ([16, 24, 24, 0], 1e6)
    assert "rope.scaling.type" not in keys


@pytest.mark.parametrize("sections", [[1, 2, 3, 4, 5], "x", [1.5], [-1]])
def test_sections_that_are_no_numbers(sections: object) -> None:
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": sections}
    with pytest.raises(CheckpointError, match="mrope_section"):
        keys_of({"model_type": "qwen2_vl_text", "rope_parameters": rope})


def test_positions_of_roberta_start_behind_those_of_padding() -> None:
    (rows,) = (t for t in read(config_of("xlm-roberta"), infos_of("xlm-roberta")).tensors() if t.name == "position_embd.weight")
    assert (rows.shape, rows.sources[0].start) == ((510, 96), 2)
    with pytest.raises(CheckpointError, match="pad_token_id"):
        read(config_of("xlm-roberta") | {"pad_token_id": 600}, infos_of("xlm-roberta"))


def test_nomic_embed_as_it_was_published() -> None:
    published = {
        "model_type": "nomic_bert", "n_embd": 96, "n_layer": 3, "n_head": 6, "n_inner": 160, "n_positions": 8192,
        "max_trained_positions": 2048, "layer_norm_epsilon": 1e-12, "rotary_emb_base": 1000, "activation_function": "swiglu",
        "qkv_proj_bias": False, "prenorm": False, "vocab_size": 512, "rotary_emb_fraction": 1.0, "type_vocab_size": 2,
    }  # fmt: skip
    keys = read(published, infos_of("nomic-bert")).keys()
    assert (keys["{arch}.context_length"], keys["{arch}.rope.freq_base"], keys["{arch}.attention.head_count"]) == (
        2048,
        1000.0,
        6,
    )


def test_modernbert_on_the_hub_names_its_two_ropes_flat() -> None:
    flat = {"model_type": "modernbert", "global_rope_theta": 5e4, "local_rope_theta": 3e3, "global_attn_every_n_layers": 2}
    keys = keys_of(flat | {"num_hidden_layers": 4})
    assert (keys["rope.freq_base"], keys["rope.freq_base_swa"]) == (5e4, 3e3)
    assert keys["attention.sliding_window_pattern"] == [False, True, False, True]


def test_a_eurobert_needs_no_head_and_ignores_that_of_pre_training() -> None:
    """Its defaults are those of transformers, which has no causal model of this type to build a case with."""
    transformers = pytest.importorskip("transformers")
    full = json.loads(transformers.AutoConfig.for_model("eurobert").to_json_string(use_diff=False))
    assert keys_of({"model_type": "eurobert"}) == keys_of(full)
    config = {**config_of("llama"), "model_type": "eurobert"}
    assert "output.weight" not in {t.name for t in read(config, infos_of("llama")).tensors()}


REFUSALS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a classifier of llama's": ("llama", {"architectures": ["LlamaForSequenceClassification"]}, "llama has no head that gives"),
    "one score": ("qwen3", {"architectures": ["Qwen3ForSequenceClassification"], "id2label": {"0": "score"}}, "softmax"),
    "a classifier of DistilBERT's": ("distilbert", {"architectures": ["DistilBertForSequenceClassification"]}, "ReLU"),
    "experts": ("nomic-bert", {"moe_every_n_layers": 2}, "moe_every_n_layers is 2"),
    "biases": ("modernbert", {"attention_bias": True}, "attention_bias"),
    "another pooling": ("modernbert", {"classifier_pooling": "max"}, "'max'"),
    "a scaled RoPE": ("modernbert", {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0}}}, "scale"),
}  # fmt: skip


@pytest.mark.parametrize("why", REFUSALS)
def test_what_llama_cpp_computes_otherwise_is_refused(why: str) -> None:
    name, changes, words = REFUSALS[why]
    with pytest.raises(UnsupportedError) as refusal:
        read(config_of(name) | changes, infos_of(name))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_head_for_every_token_is_no_classifier_of_texts() -> None:
    infos = infos_of("bert") | {
        "classifier.weight": info("classifier.weight", 9, 96),
        "classifier.bias": info("classifier.bias", 9),
    }
    with pytest.raises(UnsupportedError, match=r"classifier\.weight"):
        read(config_of("bert") | {"architectures": ["BertForTokenClassification"]}, infos)


def test_a_classifier_of_pairs_is_told_of_token_types() -> None:
    config = config_of("bert") | {"architectures": ["BertForSequenceClassification"]}
    head = {name: info(name, *shape) for name, shape in (("classifier.weight", (2, 96)), ("classifier.bias", (2,)))}
    assert "the type 0" in read(config, infos_of("bert") | head).notes()[0]
    with pytest.raises(CheckpointError, match=r"cls\.output"):
        read(config, infos_of("bert"))


@pytest.mark.parametrize(
    ("hp", "wanted"),
    [
        ({}, ["LABEL_0", "LABEL_1"]),
        ({"num_labels": 1}, ["LABEL_0"]),
        ({"id2label": {"10": "k", "9": "j", "0": "a"}}, ["a", "j", "k"]),
    ],
)
def test_the_labels_of_a_classifier(hp: dict[str, Any], wanted: list[str]) -> None:
    assert labels(hp) == wanted


@pytest.mark.parametrize("hp", [{"num_labels": 0}, {"num_labels": True}, {"num_labels": 10**9}, {"id2label": {"x": "y"}}])
def test_labels_that_cannot_be(hp: dict[str, Any]) -> None:
    with pytest.raises(CheckpointError):
        labels(hp)


@pytest.mark.parametrize("content", [b"{", b"[1, null]", b'{"a": 1}', b"[" * 100_000])
def test_a_modules_json_that_says_nothing(content: bytes) -> None:
    assert dense_paths({"modules.json": content}) == []


def test_a_dense_layer_with_a_broken_file() -> None:
    files = {"2_Dense/config.json": json.dumps({}).encode(), "2_Dense/model.safetensors": b"no safetensors"}
    with pytest.raises(CheckpointError, match="2_Dense"):
        read_dense(files, "2_Dense")
    assert read_dense({}, "2_Dense") is None


def test_a_reranker_without_its_two_answers() -> None:
    config, infos = config_of("qwen3"), infos_of("qwen3")
    files = {"README.md": b"# Qwen3-Reranker-0.6B", "tokenizer.json": b'{"model": {"vocab": {"yes": 1}}}'}
    with pytest.raises(CheckpointError, match="'no'"):
        find_architecture(config)(config, infos, files).tensors()


def test_the_prompts_of_sentence_transformers_go_into_the_file() -> None:
    said = {"prompts": {"query": "ask: ", "document": "", "STS": "compare: ", "passage": 1}, "default_prompt_name": None}
    files = {"config_sentence_transformers.json": json.dumps(said).encode()}
    config, infos = config_of("bert"), infos_of("bert")
    keys = find_architecture(config)(config, infos, files).gguf_keys()
    assert {key: text for key, text in keys.items() if key.startswith("sprig.")} == {"sprig.prompt.query": "ask: "}


@pytest.mark.parametrize("content", [b"{}", b'{"prompts": null}', b'{"prompts": ["query"]}'])
def test_files_of_sentence_transformers_without_a_prompt(content: bytes) -> None:
    assert prompts({"config_sentence_transformers.json": content}) == {}
