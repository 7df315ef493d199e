"""A calibration from end to end: an imatrix that quantize takes, from a GGUF or a checkpoint, with a text or without."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import OutputError, RecipeError, SprigError
from agent.gguf.reader import read_header
from pipeline import calibrate, quantize
from pipeline.calibrate.statistics import Statistics
from pipeline.format.imatrix import merge_sums, read_sums, write_imatrix
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.command import one_line, only_json, process, sprig
from tests.fixtures.random_llama import SMALL, LlamaShape, write_checkpoint
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.usefixtures("home")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("calibrate") / "tiny.gguf")


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("text") / "larks.txt"
    path.write_text("the lark climbs over wet fields and a slow train hums " * 30, encoding="utf-8")
    return path


@pytest.mark.slow
def test_an_imatrix_for_quantize_and_nothing_else_is_left(model: Path, text: Path, tmp_path: Path) -> None:
    found = calibrate(str(model), tmp_path / "i.gguf", texts=[text], tokens=256, threads=1)
    assert (found.tokens, found.windows) == (256, 4)
    assert found.left > 0
    assert [p.name for p in tmp_path.iterdir() if p.name != "home"] == ["i.gguf"]
    made = quantize(str(model), "IQ4_NL", tmp_path / "small.gguf", imatrix=tmp_path / "i.gguf")
    keys = read_header(made.path).keys
    assert keys["quantize.imatrix.dataset"].startswith("larks.txt sha256:")
    assert keys["quantize.imatrix.entries_count"] == 7
    other = write_checkpoint(tmp_path / "other", LlamaShape(64, 96, 2, 2, 2, 320))
    with pytest.raises(RecipeError, match="another model"):
        quantize(str(other), "Q4_0", tmp_path / "no.gguf", imatrix=tmp_path / "i.gguf")


@pytest.mark.slow
def test_a_checkpoint_is_measured_through_a_file_of_its_own(text: Path, tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "hf", SMALL)
    found = calibrate(
        str(folder), tmp_path / "out" / "i.gguf", texts=[text], tokens=1024, statistics=tmp_path / "s", threads=1, head=True
    )
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["i.gguf"]
    assert "output.weight" in read_sums(found.path).sums
    statistics = Statistics.open(tmp_path / "s")
    assert statistics.hessian("blk.3.ffn_down.weight") is not None
    assert "output.weight" not in statistics.imatrix().entries


@pytest.mark.slow
def test_merged_files_are_one_run_over_both_texts(model: Path, text: Path, tmp_path: Path) -> None:
    one = calibrate(str(model), tmp_path / "one.gguf", texts=[text], tokens=256, threads=1)
    both = calibrate(str(model), tmp_path / "both.gguf", texts=[text], tokens=256, merge=[one.path], threads=1)
    alone = calibrate(None, tmp_path / "alone.gguf", merge=[one.path, one.path])
    a, b, c = (read_sums(found.path) for found in (one, both, alone))
    for name, sums in a.sums.items():
        np.testing.assert_allclose(b.sums[name], 2 * sums, rtol=1e-5)
        np.testing.assert_array_equal(c.sums[name], 2 * sums)
        np.testing.assert_array_equal(b.counts[name], 2 * a.counts[name])
    assert b.chunks == c.chunks == 2 * a.chunks
    write_imatrix(
        tmp_path / "other.gguf", {"blk.0.attn_q.weight": np.ones((1, 64), np.float32)},
        {"blk.0.attn_q.weight": np.ones(1, np.float32)}, datasets=["x"], chunks=1, chunk_size=64,
    )  # fmt: skip
    with pytest.raises(RecipeError, match="only files of one model"):
        calibrate(None, tmp_path / "no.gguf", merge=[one.path, tmp_path / "other.gguf"])


def test_one_count_for_all_experts_is_spread_over_them(tmp_path: Path) -> None:
    """Older files have it."""
    for name, counts in (("old", [4.0]), ("new", [1.0, 3.0])):
        sums = np.arange(8, dtype=np.float32).reshape(len(counts), -1)
        write_imatrix(
            tmp_path / name, {"w": sums}, {"w": np.array(counts, np.float32)}, datasets=[name], chunks=1, chunk_size=512
        )  # fmt: skip
    merged = merge_sums([read_sums(tmp_path / "old"), read_sums(tmp_path / "new")])
    assert merged.counts["w"].tolist() == [5, 7]
    assert merged.sums["w"].tolist() == [[0, 2, 4, 6], [8, 10, 12, 14]]
    assert merged.datasets == ("old", "new")


@pytest.mark.slow
def test_a_model_that_was_quantized_to_few_bits_is_told_of(text: Path, model: Path, tmp_path: Path) -> None:
    low = quantize(str(model), "Q4_0", tmp_path / "low.gguf").path
    found = calibrate(str(low), tmp_path / "i.gguf", texts=[text], tokens=128, threads=1)
    assert "Q4_0" in found.notes[0]


@pytest.mark.slow
def test_the_model_writes_its_own_text_and_it_is_kept(tmp_path: Path) -> None:
    pytest.importorskip("pipeline.text.seeds", reason="the project's own texts are not here")
    path = chat_model(tmp_path / "chat.gguf", "hermes", llama__context_length=2048)
    found = calibrate(str(path), tmp_path / "i.gguf", tokens=1024, statistics=tmp_path / "s", threads=1)
    assert found.tokens == 1024
    assert "talks that the model wrote" in found.datasets[0]
    assert found.datasets[1].startswith("sha256:")
    kept = (tmp_path / "s" / "text.json").read_bytes()
    again = calibrate(str(path), tmp_path / "i.gguf", tokens=1024, statistics=tmp_path / "s", threads=1, resume=True)
    assert (tmp_path / "s" / "text.json").read_bytes() == kept
    assert again.datasets == found.datasets


def test_what_cannot_be_done_is_one_line(model: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="is a folder"):
        calibrate(str(model), tmp_path, texts=[text])
    with pytest.raises(SprigError, match="too few"):
        calibrate(str(model), tmp_path / "i.gguf", texts=[text], tokens=64)
    with pytest.raises(RecipeError, match=r"--merge: .* not an imatrix"):
        calibrate(str(model), tmp_path / "i.gguf", texts=[text], merge=[model])
    with pytest.raises(SprigError, match="nothing to do"):
        calibrate(None, tmp_path / "i.gguf")
    (tmp_path / "short.txt").write_text("too short")
    with pytest.raises(SprigError, match="too few for two windows"):
        calibrate(str(model), tmp_path / "i.gguf", texts=[tmp_path / "short.txt"])
    assert [p.name for p in tmp_path.iterdir() if p.name != "home"] == ["short.txt"]


@pytest.mark.slow
def test_the_command_gives_one_object_or_one_line(model: Path, text: Path, tmp_path: Path) -> None:
    done = process("calibrate", model, "-o", tmp_path / "i.gguf", "--text", text, "--json", "--threads", "1", home=tmp_path)
    assert done.returncode == 0, done.stderr
    assert only_json(done)["tensors"] == 7
    assert "activations are measured" in done.stderr
    assert sprig("calibrate", home=tmp_path).returncode == 2
    bad = sprig("calibrate", model, "-o", tmp_path / "i.gguf", "--text", tmp_path / "none.txt", home=tmp_path)
    assert bad.returncode == 1
    assert "none.txt is no file" in one_line(bad)
