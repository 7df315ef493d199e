"""Names that a cut vocabulary carries over decide between what fits, and nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.vocab.files import carried, carry
from pipeline.vocab.vocabulary import load_vocabulary
from tests.fixtures.tokenizers import make_tokenizer


def load(folder: Path, **said: Any) -> dict[str, Any]:
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    config = json.loads(files["tokenizer_config.json"])
    files["tokenizer_config.json"] = json.dumps({**config, **said}).encode()
    return dict(load_vocabulary(files, 540, {}).keys)


def test_of_two_names_that_fit_the_one_that_is_said_is_taken(tmp_path: Path) -> None:
    make_tokenizer("smollm2", tmp_path)
    keys = load(tmp_path)
    assert keys["tokenizer.ggml.pre"] == "smollm"
    assert carry(keys) == {"gguf_tokenizer": {"model": "gpt2", "pre": "smollm"}}
    assert load(tmp_path, gguf_tokenizer={"model": "gpt2", "pre": "refact"})["tokenizer.ggml.pre"] == "refact"


@pytest.mark.parametrize("said", ["falcon", {"pre": "falcon"}, {"pre": "made-up", "model": "x"}, {"pre": 7}, [], None])
def test_a_name_that_does_not_fit_or_that_nobody_knows_changes_nothing(said: Any, tmp_path: Path) -> None:
    make_tokenizer("smollm2", tmp_path)
    assert load(tmp_path, gguf_tokenizer=said)["tokenizer.ggml.pre"] == "smollm"


def test_of_the_ways_to_write_merged_characters_the_one_that_is_said_is_taken(tmp_path: Path) -> None:
    make_tokenizer("hf-trained-spm", tmp_path)
    plain = load(tmp_path)
    assert (plain["tokenizer.ggml.model"], plain.get("tokenizer.ggml.pre")) == ("llama", None)
    assert str(load(tmp_path, **carry(plain))) == str(plain)
    other = load(tmp_path, gguf_tokenizer={"model": "gpt2", "pre": "sarvam-moe"})
    assert (other["tokenizer.ggml.model"], other["tokenizer.ggml.pre"]) == ("gpt2", "sarvam-moe")
    assert str(load(tmp_path, gguf_tokenizer={"model": "gpt2", "pre": "gemma4"})) == str(plain)
    assert carried({}) == (None, None)
