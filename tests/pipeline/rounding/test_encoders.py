"""``quantize --encoder gptq`` from end to end: a file that llama.cpp runs, the same after a break, and a clear word where not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import SprigError
from agent.gguf.reader import read_header
from pipeline.calibrate.collect import collect
from pipeline.encoders import dry_run, quantize
from pipeline.onepass import part_file
from tests.fixtures.command import only_json, sprig
from tests.fixtures.tiny import llama, llama_keys, llama_weights, write


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A GGUF in F32, and what was measured on it."""
    folder = tmp_path_factory.mktemp("rounding")
    gguf = llama(folder / "tiny.gguf")
    windows = [[1, *np.random.default_rng(i).integers(3, 286, 60).tolist()] for i in range(6)]
    collect(gguf, windows, folder / "statistics", hessians=True, threads=1)
    return gguf, folder / "statistics"


def tensors(path: Path) -> dict[str, bytes]:
    content = path.read_bytes()
    return {t.name: content[t.offset : t.offset + t.nbytes] for t in read_header(path).tensors.values()}


def test_a_file_that_llama_cpp_runs_and_a_record_of_each_tensor(model: tuple[Path, Path], tmp_path: Path) -> None:
    checkpoint, statistics = model
    made = quantize(str(checkpoint), "Q4_0", tmp_path / "a.gguf", statistics=statistics, threads=2, encoder="gptq")
    plain = quantize(str(checkpoint), "Q4_0", tmp_path / "b.gguf", imatrix=statistics / "imatrix.gguf")
    won = {t.tensor for t in made.rounding if t.method == "gptq"}
    assert len(won) >= 6
    ours, theirs = tensors(made.path), tensors(plain.path)
    assert made.types == plain.types
    assert {name for name in ours if ours[name] != theirs[name]} == won
    keys = read_header(made.path).keys
    assert keys["sprig.encoder"] == "gptq"
    assert "sprig.encoder" not in read_header(plain.path).keys
    assert any("error feedback, to 0." in note for note in made.notes)
    assert made.to_dict()["rounding"][0]["tensor"] in ours


@pytest.mark.parametrize("at", [3, 9])
def test_a_run_that_broke_off_ends_in_the_same_bytes(
    at: int, model: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, statistics = model
    job: dict[str, Any] = {"statistics": statistics, "threads": 2}
    unbroken = quantize(str(checkpoint), "Q5_0", tmp_path / "a.gguf", **job, encoder="gptq")
    real, calls = os.pwrite, iter(range(1 << 30))

    def breaks(*args: Any) -> int:
        if next(calls) == at:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patched:
        patched.setattr(part_file.os, "pwrite", breaks)
        with pytest.raises(KeyboardInterrupt):
            quantize(str(checkpoint), "Q5_0", tmp_path / "b.gguf", **job, encoder="gptq")
    again = quantize(str(checkpoint), "Q5_0", tmp_path / "b.gguf", resume=True, **job, encoder="gptq")
    assert again.resumed > 0
    assert again.path.read_bytes() == unbroken.path.read_bytes()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"encoder": "awq"}, "there is no encoder 'awq'; take one of ggml, gptq, tune"),
        ({"encoder": "ggml", "statistics": "S"}, "--statistics is for --encoder gptq"),
        ({"encoder": "gptq", "statistics": "S", "imatrix": "S"}, "leave --imatrix out"),
        ({"encoder": "gptq", "statistics": "S", "stream": True}, "leave --stream out"),
        ({"encoder": "gptq", "statistics": "nowhere"}, "holds no statistics"),
        ({"encoder": "gptq", "statistics": "S", "minutes": 2}, "--tune-minutes is for --encoder tune"),
        ({"encoder": "gptq", "statistics": "S", "recipe": "F16"}, "F16 has none of them; leave it out"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_said_in_a_line(options: dict[str, Any], says: str, model: tuple[Path, Path]) -> None:
    checkpoint, statistics = model
    told = {name: statistics if value == "S" else value for name, value in options.items()}
    for name in ("statistics", "imatrix"):
        if name in told:
            told[name] = Path(told[name])
    with pytest.raises(SprigError, match=says) as e:
        dry_run(str(checkpoint), told.pop("recipe", "Q4_0"), None, **told)
    assert "\n" not in str(e.value)


def test_the_command(model: tuple[Path, Path], tmp_path: Path) -> None:
    gguf, statistics = model
    said = ["quantize", str(gguf), "-q", "Q4_0", "--encoder", "gptq", "--statistics", str(statistics), "--json"]
    told = only_json(sprig(*said, "-o", tmp_path / "a.gguf", home=tmp_path))
    assert told["encoder"] == "gptq"
    assert {t["method"] for t in told["rounding"]} <= {"gptq", "ggml"}


def test_statistics_of_another_model_are_refused(model: tuple[Path, Path], tmp_path: Path) -> None:
    other = write(tmp_path / "other.gguf", llama_keys(), {n: w for n, w in llama_weights().items() if "attn_q" not in n})
    with pytest.raises(SprigError, match="another model"):
        dry_run(str(other), "Q4_0", None, statistics=model[1], encoder="gptq")
