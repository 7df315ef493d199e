"""What a model gives for a whole text: one vector, pooled as sentence-transformers pools it, or the scores of a classifier."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pytest

from agent.gguf.reader import read_header
from agent.models.file import read_model
from pipeline import quantize
from tests.fixtures.checkpoints import build_model, save, small, use_ggml_gelu
from tests.fixtures.quiet_llama import quiet_llama
from tests.fixtures.tokenizers import make_tokenizer

if TYPE_CHECKING:
    import torch
    import transformers

pytestmark = pytest.mark.slow
Floats = npt.NDArray[np.float64]

VOCABULARY = 512
TOLERANCE = 4e-3  # of GELU's table; see test_same_words.py
TOKENS = [int(t) for t in np.random.default_rng(5).integers(3, VOCABULARY, 40)]


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def converted(folder: Path, tokenizer: str = "smollm2") -> Path:
    make_tokenizer(tokenizer, folder, VOCABULARY)
    path = quantize(str(folder), "F32", folder / "out.gguf", threads=1).path
    assert not read_model(path).causal, "the agent takes it for a model that writes"
    return path


def in_llama_cpp(path: Path) -> Floats:
    """What llama.cpp makes of TOKENS: pooled as the file says."""
    lib = quiet_llama()
    model = lib.llama_model_load_from_file(str(path).encode(), lib.llama_model_default_params())
    params = lib.llama_context_default_params()
    params.n_ctx = params.n_batch = params.n_ubatch = len(TOKENS)
    params.n_threads = params.n_threads_batch = 1
    params.type_k = params.type_v = 0  # GGML_TYPE_F32
    params.flash_attn_type = 0
    params.embeddings = True
    context = lib.llama_init_from_model(model, params)
    batch = lib.llama_batch_init(len(TOKENS), 0, 1)
    try:
        batch.n_tokens = len(TOKENS)
        for i, token in enumerate(TOKENS):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0], batch.logits[i] = token, i, 1, 0, 1
        assert lib.llama_decode(context, batch) == 0
        scores = lib.llama_pooling_type(context) == 4
        width = lib.llama_model_n_cls_out(model) if scores else lib.llama_model_n_embd_out(model)
        return np.ctypeslib.as_array(lib.llama_get_embeddings_seq(context, 0), (width,)).astype(np.float64)
    finally:
        lib.llama_batch_free(batch)
        lib.llama_free(context)
        lib.llama_model_free(model)


def of_all_tokens(model: transformers.PreTrainedModel) -> Floats:
    """[40, hidden_size] embeddings."""
    import torch

    with torch.no_grad():
        found = model.base_model(input_ids=torch.tensor([TOKENS])).last_hidden_state[0]
    return np.asarray(found.double().numpy())


def scores_of(model: transformers.PreTrainedModel) -> Floats:
    import torch

    with torch.no_grad():
        return np.asarray(model(input_ids=torch.tensor([TOKENS])).logits[0].double().numpy())


def pools(folder: Path, **modes: bool) -> None:
    """The file by which sentence-transformers says how it pools."""
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(modes))


def dense(folder: Path, name: str, weights: torch.Tensor, **config: Any) -> torch.Tensor:
    """A dense layer of sentence-transformers."""
    from safetensors.torch import save_file

    (folder / name).mkdir()
    save_file({"linear.weight": weights}, folder / name / "model.safetensors")
    sizes = {"in_features": weights.shape[1], "out_features": weights.shape[0], "bias": False}
    activation = {"activation_function": "torch.nn.modules.linear.Identity"}
    (folder / name / "config.json").write_text(json.dumps(sizes | activation | config))
    return weights


def modules(folder: Path, *names: str) -> None:
    kinds = [{"idx": i, "path": n, "type": f"sentence_transformers.models.{n.split('_')[-1]}"} for i, n in enumerate(names)]
    (folder / "modules.json").write_text(json.dumps(kinds))


def test_a_qwen3_embedding_is_that_of_the_last_token(tmp_path: Path) -> None:
    model = save("qwen3-tied", tmp_path)
    pools(tmp_path, pooling_mode_lasttoken=True)
    assert np.abs(in_llama_cpp(converted(tmp_path)) - of_all_tokens(model)[-1]).max() < TOLERANCE


def test_an_embedding_model_needs_no_head(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    model = save("qwen3", tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    pools(tmp_path, pooling_mode_lasttoken=True)
    assert np.abs(in_llama_cpp(converted(tmp_path)) - of_all_tokens(model)[-1]).max() < TOLERANCE


def test_an_lfm2_that_looks_both_ways(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its code came with the model: no mask, and convolutions around each token instead of behind it."""
    import torch

    model = save("lfm2", tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"architectures": ["Lfm2BidirectionalModel"]}))
    pools(tmp_path, pooling_mode_cls_token=True)

    def around(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, **_: Any) -> torch.Tensor:
        return torch.nn.functional.conv1d(x, weight.unsqueeze(1), bias, padding=1, groups=x.shape[1])

    monkeypatch.setattr("transformers.models.lfm2.modeling_lfm2.causal_conv1d_fn", around)
    with torch.no_grad():
        no_mask = {"full_attention": None, "conv": None}
        found = model.base_model(input_ids=torch.tensor([TOKENS]), attention_mask=no_mask, use_cache=False)
    wanted = found.last_hidden_state[0, 0].double().numpy()
    assert np.abs(in_llama_cpp(converted(tmp_path)) - wanted).max() < TOLERANCE


def test_eurobert_looks_both_ways(tmp_path: Path) -> None:
    from transformers import AutoModelForMaskedLM

    model = build_model("eurobert", small({"mask_token_id": 3}), kind=AutoModelForMaskedLM)
    model.save_pretrained(tmp_path)
    pools(tmp_path, pooling_mode_mean_tokens=True)
    assert np.abs(in_llama_cpp(converted(tmp_path)) - of_all_tokens(model).mean(axis=0)).max() < TOLERANCE


def test_embedding_gemma_goes_through_its_two_dense_layers(tmp_path: Path) -> None:
    import torch

    model = save("embedding-gemma", tmp_path)
    use_ggml_gelu(model)
    pools(tmp_path, pooling_mode_mean_tokens=True)
    modules(tmp_path, "0_Transformer", "1_Pooling", "2_Dense", "3_Dense")
    torch.manual_seed(1)
    first = dense(tmp_path, "2_Dense", torch.randn(160, 96) / 10)
    second = dense(tmp_path, "3_Dense", torch.randn(96, 160).to(torch.bfloat16) / 10)
    wanted = second.double().numpy() @ (first.double().numpy() @ of_all_tokens(model).mean(axis=0))
    path = converted(tmp_path)
    assert wanted.std() > 0.5
    assert np.abs(in_llama_cpp(path) - wanted).max() < TOLERANCE
    keys = read_header(path).keys
    assert keys["general.architecture"] == "gemma-embedding"
    assert (keys["gemma-embedding.dense_2_feat_out"], keys["gemma-embedding.dense_3_feat_in"]) == (160, 160)


@pytest.mark.parametrize(("name", "activation"), [("bert", "Identity"), ("embedding-gemma", "Tanh")])
def test_dense_layers_that_llama_cpp_does_not_compute_are_left_out_with_a_note(
    name: str, activation: str, tmp_path: Path
) -> None:
    import torch

    save(name, tmp_path)
    pools(tmp_path, pooling_mode_mean_tokens=True)
    modules(tmp_path, "0_Transformer", "1_Pooling", "2_Dense", "3_Dense")
    for layer in ("2_Dense", "3_Dense"):
        dense(tmp_path, layer, torch.eye(96), activation_function=f"torch.nn.{activation}")
    make_tokenizer("bert-uncased" if name == "bert" else "smollm2", tmp_path, VOCABULARY)
    result = quantize(str(tmp_path), "F32", tmp_path / "out.gguf", threads=1)
    assert any("dense layers behind pooling" in note for note in result.notes)
    assert not any("dense" in tensor for tensor in read_header(result.path).tensors)


CLASSIFIERS: dict[str, tuple[str, dict[str, Any], str]] = {
    "bge-reranker": ("xlm-roberta", {"num_labels": 1, "pad_token_id": 1, "layer_norm_eps": 0.01}, "t5-json"),
    "xlm-roberta": ("xlm-roberta", {"id2label": {0: "bad", 1: "so so", 2: "good"}, "layer_norm_eps": 0.01}, "t5-json"),
    "bert": ("bert", {"num_labels": 2, "layer_norm_eps": 0.01}, "bert-uncased"),
    "modernbert-cls": (
        "modernbert",
        {"num_labels": 3, "classifier_pooling": "cls", "cls_token_id": 1, "sep_token_id": 2},
        "smollm2",
    ),
    "modernbert-mean": (
        "modernbert",
        {"num_labels": 1, "classifier_pooling": "mean", "cls_token_id": 1, "sep_token_id": 2},
        "smollm2",
    ),
    "qwen3": ("qwen3", {"id2label": {0: "a", 1: "b", 2: "c"}, "head_dim": 24, "pad_token_id": 0}, "smollm2"),
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_the_scores_of_a_classifier_are_the_originals(name: str, tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    model_type, changes, tokenizer = CLASSIFIERS[name]
    model = build_model(model_type, small(changes), kind=AutoModelForSequenceClassification)
    model.save_pretrained(tmp_path)
    use_ggml_gelu(model)
    wanted = scores_of(model)
    if model_type == "qwen3":
        wanted = np.exp(wanted - wanted.max()) / np.exp(wanted - wanted.max()).sum()  # llama.cpp makes shares of them
    path = converted(tmp_path, tokenizer)
    assert np.abs(in_llama_cpp(path) - wanted).max() < TOLERANCE
    keys = read_header(path).keys
    arch = keys["general.architecture"]
    assert keys[f"{arch}.pooling_type"] == 4
    assert keys[f"{arch}.classifier.output_labels"] == list(model.config.id2label.values())


@pytest.mark.parametrize("case", ["qwen3", "qwen3-tied"])
def test_qwen3_reranker_gives_the_shares_of_yes_and_no(case: str, tmp_path: Path) -> None:
    model = save(case, tmp_path)
    make_tokenizer("smollm2", tmp_path, VOCABULARY)
    spec = json.loads((tmp_path / "tokenizer.json").read_text())
    vocab, (yes, no) = spec["model"]["vocab"], (300, 301)
    texts = {number: text for text, number in vocab.items()}
    renamed = {texts[yes]: "yes", texts[no]: "no"}
    spec["model"]["vocab"] = {renamed.get(text, text): number for text, number in vocab.items()}
    gone = set(renamed)
    spec["model"]["merges"] = [m for m in spec["model"]["merges"] if not gone & {*_pair(m), "".join(_pair(m))}]
    (tmp_path / "tokenizer.json").write_text(json.dumps(spec))
    (tmp_path / "README.md").write_text("---\nlicense: apache-2.0\n---\n# Qwen3-Reranker-0.6B\n")
    path = quantize(str(tmp_path), "F32", tmp_path / "out.gguf", threads=1).path
    import torch

    with torch.no_grad():
        logits = model(input_ids=torch.tensor([TOKENS])).logits[0, -1, [yes, no]].double()
    assert np.abs(in_llama_cpp(path) - logits.softmax(0).numpy()).max() < 1e-4
    keys = read_header(path).keys
    assert keys["qwen3.classifier.output_labels"] == ["yes", "no"]
    assert "{query}" in keys["tokenizer.chat_template.rerank"]
    assert not read_model(path).causal


def _pair(merge: str | list[str]) -> list[str]:
    return merge.split(" ") if isinstance(merge, str) else merge
