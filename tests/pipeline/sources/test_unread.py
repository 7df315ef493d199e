"""Files that are something else than a checkpoint in the Hugging Face format are called what they are, with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import SprigError
from pipeline.quantize import dry_run
from pipeline.sources.source import headers, open_checkpoint, open_source
from tests.fixtures.loopback_hub import LoopbackHub
from tests.fixtures.random_llama import SMALL, write_checkpoint

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"a" * 64 + b"\nsize 11421896\n"


def read(model: str) -> None:
    source = open_source(model)
    headers(source)
    open_checkpoint(source).close()


def refusal(model: Path | str) -> str:
    with pytest.raises(SprigError) as caught:
        read(str(model))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "model", SMALL, shards=2)


@pytest.mark.parametrize(
    "name",
    [
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors.index.json",
        "model-00002-of-00002.safetensors",
    ],
)
def test_a_git_lfs_pointer_is_recognised_in_any_file(name: str, model: Path) -> None:
    (model / name).write_bytes(POINTER)
    said = refusal(model)
    assert name in said
    assert "is a Git LFS pointer, not the file itself: run git lfs pull" in said


def test_a_pointer_for_a_gguf_or_a_bin_file(model: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf").write_bytes(POINTER)
    assert "model.gguf is a Git LFS pointer" in refusal(tmp_path / "model.gguf")
    for file in model.glob("model*"):
        file.unlink()
    (model / "pytorch_model.bin").write_bytes(POINTER)
    pytest.importorskip("torch")
    assert "pytorch_model.bin is a Git LFS pointer" in refusal(model)


def test_a_pointer_on_the_hub_is_one_too(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "tokenizer.json").write_bytes(POINTER)
    with LoopbackHub({"org/model": model}) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
        assert "tokenizer.json of org/model is a Git LFS pointer" in refusal("org/model")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        (["consolidated.safetensors", "params.json", "tekken.json"], "consolidated.safetensors, which is Mistral's own format"),
        (["consolidated.00.pth", "params.json", "tokenizer.model"], "consolidated.00.pth, the format of its maker's own program"),
        (["model.pth"], "torch files under names of their own (model.pth)"),
        (["last.ckpt", "optimizer.pt"], "torch files under names of their own (last.ckpt)"),
        (["notes.txt"], "no checkpoint; looked for model.safetensors"),
    ],
)
def test_weights_in_another_format_are_named_with_what_to_do(files: list[str], says: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"{}")
    assert says in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("qwen.tiktoken", r"tokenizer only as qwen\.tiktoken, whose rules stand in the model's own Python code; take a revision"),
        ("tiktoken.model", r"only as tiktoken\.model"),
        ("tokenizer.model", r"tokenizer\.model is a list of tiktoken"),
        ("tekken.json", r"tekken\.json is not JSON"),
        ("sentencepiece.bpe.model", r"sentencepiece\.bpe\.model is a list of tiktoken"),
    ],
)
def test_a_tokenizer_that_only_other_programs_read_is_named(name: str, says: str, model: Path, tmp_path: Path) -> None:
    (model / "tokenizer.json").unlink()
    (model / "tokenizer_config.json").unlink()
    (model / name).write_bytes(b"IQ== 0\nIg== 1\n")
    with pytest.raises(SprigError, match=says):
        dry_run(str(model), "Q4_0", tmp_path / "out.gguf")
    assert name in open_source(str(model)).files, "llama.cpp's script may read it"
