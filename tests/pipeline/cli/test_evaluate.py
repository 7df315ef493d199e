"""`sprig evaluate` and `sprig quantize --gate` as a person or a script meets them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fixtures.command import one_line, only_json, sprig
from tests.pipeline.evaluate.models import TEXTS, tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate")
    tiny(folder / "whole.gguf")
    tiny(folder / "near.gguf", 0.003)
    for name, text in TEXTS.items():
        (folder / f"{name}.txt").write_text(text)
    return folder


@pytest.mark.slow
def test_figures_for_a_script_and_for_a_person(files: Path, tmp_path: Path) -> None:
    arguments = [
        "evaluate", files / "near.gguf", "--reference", files / "whole.gguf", "--text", files / "bees.txt", "--text",
        files / "hills.txt", "-c", "32", "--threads", "1",
    ]  # fmt: skip
    data = only_json(sprig(*arguments, "--json", home=tmp_path))
    assert list(data["candidates"][0]["per_domain"]) == ["bees.txt", "hills.txt"]
    assert data["candidates"][0]["overall"]["kld"]["value"] > 0
    assert data["reference"]["name"] == "whole.gguf"
    told = sprig(*arguments, "--windows", "4", home=tmp_path)
    assert told.returncode == 0, told.stderr
    assert "4 of 32 tokens, the second half of each" in told.stdout
    assert "mean KLD" in told.stdout


@pytest.mark.slow
def test_llama_perplexitys_windows_are_asked_for_by_its_name(files: Path, tmp_path: Path) -> None:
    done = sprig(
        "evaluate", files / "near.gguf", "--text", files / "bees.txt", "-c", "32", "--windows", "llama-perplexity", home=tmp_path
    )
    assert "as llama-perplexity cuts them" in done.stdout


@pytest.mark.slow
def test_wrong_usage_and_what_is_missing(files: Path, tmp_path: Path) -> None:
    for windows in ("0", "some"):
        done = sprig("evaluate", files / "near.gguf", "--windows", windows, home=tmp_path)
        assert done.returncode == 2
        assert "neither a number of windows nor llama-perplexity" in done.stderr.replace("\n", " ")
    assert "gone.gguf" in one_line(sprig("evaluate", tmp_path / "gone.gguf", home=tmp_path))
    assert "gone.txt" in one_line(sprig("evaluate", files / "near.gguf", "--text", tmp_path / "gone.txt", home=tmp_path))
    short = tmp_path / "short.txt"
    short.write_text("a bee")
    assert "short.txt is too short" in one_line(
        sprig("evaluate", files / "near.gguf", "--text", short, "-c", "64", home=tmp_path)
    )


def test_questions_and_the_reports_place_are_looked_at_before_any_model_is_loaded(files: Path, tmp_path: Path) -> None:
    (tmp_path / "exam.jsonl").write_text('{"question": "Why?"}')
    short = tmp_path / "short.txt"
    short.write_text("a bee")  # what would be told next
    arguments = ["evaluate", files / "near.gguf", "--text", short, "-c", "64"]
    assert "exam.jsonl, line 1" in one_line(sprig(*arguments, "--tasks", tmp_path / "exam.jsonl", home=tmp_path))
    assert "short.txt is no folder" in one_line(sprig(*arguments, "--report", short / "page", home=tmp_path))


def test_a_gate_is_read_before_any_work(files: Path, tmp_path: Path) -> None:
    done = sprig("quantize", files / "whole.gguf", "-q", "Q8_0", "-o", tmp_path / "q.gguf", "--gate", "kld=much", home=tmp_path)
    assert "kld=much" in one_line(done)
    assert not list(tmp_path.glob("q.*"))
