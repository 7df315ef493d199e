"""What cannot be pruned is refused in one line, before minutes of measuring, and leaves nothing behind."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import SprigError
from pipeline.prune.prune import prune
from pipeline.sources.checkpoint import read_safetensors_header
from tests.fixtures.checkpoints import save
from tests.fixtures.command import one_line, only_json, sprig
from tests.fixtures.later import needs
from tests.pipeline.prune.models import tiny

needs("torch", "transformers")

LLAMA = "llama-odd-heads"  # 90 channels, 9 heads in 3 groups, 75 neurons


def refusal(tmp_path: Path, model: Path, **wishes: Any) -> str:
    """The message of a run that must fail and leave its folder as it was."""
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SprigError) as caught:
        prune(str(model), tmp_path / "new", threads=1, **{"check": False, **wishes})
    assert sorted(tmp_path.rglob("*")) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("wishes", "says"),
    [
        ({}, "nothing to cut"),
        ({"ffn": "75"}, "1 to 74 can stay"),
        ({"ffn": "0%"}, "is no amount"),
        ({"heads": 4}, "take 3, 6"),
        ({"heads": 9}, "1 to 8 can stay"),
        ({"depth": "drop:3"}, "layers 0 to 2"),
        ({"depth": "drop:0-2"}, "one must stay"),
        ({"depth": 3}, "1 to 2 can stay"),
        ({"width": 64}, "divide the channels"),
        ({"sparsity": 1.2}, "out of range"),
        ({"sparsity": 0.5, "pattern": "2:4"}, "does not fit"),
        ({"ffn": "20%", "statistics": Path("/nowhere")}, "holds no statistics"),
    ],
)
def test_a_wish_that_this_model_cannot_have(wishes: dict[str, Any], says: str, tmp_path: Path) -> None:
    assert says in refusal(tmp_path, tiny(LLAMA) / "hf", **wishes)


@pytest.mark.slow
def test_statistics_of_another_model(tmp_path: Path) -> None:
    assert "another model" in refusal(tmp_path, tiny(LLAMA) / "hf", ffn=32, statistics=tiny("qwen3") / "statistics")
    other = tmp_path / "other"  # the same shapes, other norms
    save(LLAMA, other, seed=8)
    for path in (tiny(LLAMA) / "hf").glob("tokenizer*"):
        shutil.copy(path, other)
    said = refusal(tmp_path, other, ffn=32, statistics=tiny(LLAMA) / "statistics", check=True)
    assert "another model" in said


@pytest.mark.parametrize(
    ("case", "wishes", "says"),
    [
        ("qwen3-moe", {"ffn": 32}, "qwen3_moe' cannot be pruned"),
        ("phi3", {"heads": 2}, "no head can go"),
        ("olmo2", {"heads": "34%"}, "built in, so no head"),
        ("bert", {"heads": 3}, "heads of an encoder"),
        ("distilbert", {"depth": 2}, "name those that go"),
        ("smollm3", {"depth": "drop:1"}, "counts its layers"),
        ("gemma3", {"width": 64}, "--ffn and --depth can"),
    ],
)
def test_a_family_that_lies_otherwise(case: str, wishes: dict[str, Any], says: str, tmp_path: Path) -> None:
    model = tmp_path / "hf"
    save(case, model)
    assert says in refusal(tmp_path, model, **wishes)


def test_weights_that_are_not_numbers(tmp_path: Path) -> None:
    model = tmp_path / "hf"
    shutil.copytree(tiny(LLAMA) / "hf", model)
    path = model / "model.safetensors"
    info = read_safetensors_header(path)["model.layers.1.mlp.up_proj.weight"]
    raw = np.memmap(path, np.uint8, "r+")
    raw[info.offset : info.offset + 4] = np.frombuffer(np.float32("nan").tobytes(), np.uint8)
    raw.flush()
    said = refusal(tmp_path, model, ffn=32, statistics=tiny(LLAMA) / "statistics")
    assert "model.layers.1.mlp.up_proj.weight' holds NaN" in said


def test_a_gguf_and_a_place_that_is_taken(tmp_path: Path) -> None:
    assert "is a GGUF" in refusal(tmp_path, tiny(LLAMA) / "model.gguf", ffn=32)
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "mine").touch()
    assert "exists already" in refusal(tmp_path, tiny(LLAMA) / "hf", ffn=32)


def test_the_command_for_a_person_and_for_a_script(tmp_path: Path) -> None:
    arguments = ["prune", tiny(LLAMA) / "hf", "--depth", "drop:0", "--ffn", "32", "--statistics", tiny(LLAMA) / "statistics"]
    done = sprig(*arguments, "-o", tmp_path / "a", "--no-check", "--json", home=tmp_path)
    told = only_json(done)
    assert re.search(r"^tensors are written: \d+ tensors in [\d.]+ s$", done.stderr, re.MULTILINE)
    assert [part["kind"] for part in told["parts"]] == ["depth", "ffn"]
    assert told["gguf"]["after"] < told["gguf"]["before"]
    assert json.loads((tmp_path / "a" / "config.json").read_bytes())["intermediate_size"] == 32
    done = sprig(*arguments, "-o", tmp_path / "a", "--no-check", home=tmp_path)
    assert "exists already" in one_line(done)
    for wrong, says in (
        ((), "nothing to cut"), (("--ffn", "many"), "--ffn 'many' is no amount"), (("--depth", "drop:2-1"), "names no layers"),
        (("--sparsity", "0.5", "--method", "luck"), "there is no method 'luck'"), (("--pattern", "4:2"), "'4:2' is no pattern"),
    ):  # fmt: skip
        done = sprig("prune", "/nowhere", "-o", tmp_path / "b", *wrong, home=tmp_path)
        assert done.returncode == 2
        assert says in done.stderr
