"""The F32 GGUF of an embedding model gives the vectors that the checkpoint gives in transformers, pooled as its files say."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pytest

from agent.embedding.embedder import Embedder
from pipeline import quantize
from tests.fixtures.checkpoints import save
from tests.fixtures.tokenizers import make_tokenizer

if TYPE_CHECKING:
    import transformers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]
Floats = npt.NDArray[np.float32]

VOCABULARY = 512
TEXTS = ["the quick brown fox", "a dog", "", "Where is the station?", "Über den Wolken 北京 🌱", "one two three " * 30, "a dog"]
POOLING: dict[str, Callable[[Floats], Floats]] = {
    "mean_tokens": lambda rows: rows.mean(axis=0),
    "cls_token": lambda rows: rows[0],
    "lasttoken": lambda rows: rows[-1],
}
MODELS = [
    ("bert", "bert-uncased", "mean_tokens"),
    ("bert", "bert-uncased", "cls_token"),
    ("distilbert", "bert-uncased", "mean_tokens"),
    ("nomic-bert", "bert-uncased", "mean_tokens"),
    ("xlm-roberta", "xlm-roberta", "cls_token"),
    ("modernbert", "modernbert", "mean_tokens"),
    ("embedding-gemma", "gemma3", "mean_tokens"),
    ("qwen3-tied", "qwen2", "lasttoken"),
]


@pytest.fixture(scope="module", autouse=True)
def _quiet() -> None:
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()


def in_transformers(model: transformers.PreTrainedModel, folder: Path, pooling: str) -> Floats:
    """One vector a text, 1 long, each text by itself."""
    import tokenizers
    import torch

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    vectors = []
    for text in TEXTS:
        with torch.no_grad():
            rows = model.base_model(input_ids=torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].numpy()
        vectors.append(POOLING[pooling](rows))
    found = np.stack(vectors)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def end_with(token: str, folder: Path) -> None:
    """Lets the tokenizer put a token behind every text, as that of Qwen3-Embedding does."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {token}", special_tokens=[(token, tokenizer.token_to_id(token))]
    )
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.mark.parametrize(("name", "tokenizer", "pooling"), MODELS)
def test_same_vectors(name: str, tokenizer: str, pooling: str, tmp_path: Path) -> None:
    model = save(name, tmp_path)
    make_tokenizer(tokenizer, tmp_path, VOCABULARY)
    if pooling == "lasttoken":
        end_with("<|endoftext|>", tmp_path)
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    said = {"prompts": {"query": "ask: ", "document": ""}}
    (tmp_path / "config_sentence_transformers.json").write_text(json.dumps(said))
    path = quantize(str(tmp_path), "F32", tmp_path / "out.gguf", threads=1).path
    wanted = in_transformers(model, tmp_path, pooling)
    with Embedder(path, threads=1) as embedder:
        found = embedder.embed(TEXTS)
        assert embedder.prompts == {"query": "ask: ", "document": ""}
        assert embedder.width == wanted.shape[1]
    cosines = (found * wanted).sum(axis=1)
    assert cosines.min() > 0.9999, cosines
