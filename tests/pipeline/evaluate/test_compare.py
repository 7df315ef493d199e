"""Files run side by side: the figures are those of an independent computation, and what cannot be compared is one line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from agent.errors import GGUFError, SprigError
from pipeline import evaluate
from pipeline.evaluate.compare import divergences
from pipeline.evaluate.figures import Evaluation
from pipeline.evaluate.lines import lines
from pipeline.evaluate.windows import Window, cut_windows
from pipeline.forward.process import ForwardProcess
from tests.fixtures.random_llama import SMALL, write_checkpoint
from tests.fixtures.tiny import TOKENS, TYPES, llama_keys, llama_weights, write
from tests.pipeline.evaluate.models import N_CTX, TEXTS, tiny


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return tiny(folder / "whole.gguf"), tiny(folder / "near.gguf", 0.003), tiny(folder / "far.gguf", 0.03)


@pytest.fixture(scope="module")
def found(files: tuple[Path, Path, Path]) -> Evaluation:
    whole, near, far = files
    return evaluate([near, far], reference=whole, texts=TEXTS, n_ctx=N_CTX, threads=1)


def log_probabilities(path: Path, windows: tuple[Window, ...]) -> list[np.ndarray]:
    """Of each window's scored tokens, by the definition, in float64."""
    found = []
    with ForwardProcess(path, n_ctx=N_CTX, n_outputs=N_CTX, threads=1) as process:
        for window in windows:
            logits = process.logits(list(window.ids))[window.first : -1].astype(np.float64)
            found.append(logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)))
    return found


@pytest.mark.slow
def test_the_figures_are_those_of_the_definitions(files: tuple[Path, Path, Path], found: Evaluation) -> None:
    with ForwardProcess(files[0], n_ctx=N_CTX, threads=1) as process:
        windows = cut_windows(TEXTS, process.tokenize, bos=process.bos, n_ctx=N_CTX)
    p, q = (log_probabilities(path, windows) for path in files[:2])
    targets = [np.array(w.targets) for w in windows]
    nlls = [-row[np.arange(len(t)), t] for row, t in zip(q, targets, strict=True)]
    base = [-row[np.arange(len(t)), t] for row, t in zip(p, targets, strict=True)]
    klds = [(np.exp(a) * (a - b)).sum(axis=1) for a, b in zip(p, q, strict=True)]
    of = found.candidates[0].overall
    assert (of.windows, of.tokens) == (len(windows), sum(map(len, targets)))
    assert of.kld is not None
    assert of.kld_median is not None
    assert of.kld_p99 is not None
    assert of.top1 is not None
    assert of.rms_dp is not None
    assert of.kld.value == pytest.approx(np.concatenate(klds).mean(), rel=1e-3)
    assert of.kld_median.value == pytest.approx(np.median(np.concatenate(klds)), rel=1e-2)
    assert of.kld_p99.value == pytest.approx(np.quantile(np.concatenate(klds), 0.99), rel=1e-2)
    assert of.nll.value == pytest.approx(np.concatenate(nlls).mean(), rel=1e-5)
    assert of.perplexity.value == pytest.approx(math.exp(np.concatenate(nlls).mean()), rel=1e-4)
    # Every token of these texts is one letter, of one byte.
    assert of.bits_per_byte.value == pytest.approx(np.concatenate(nlls).mean() / math.log(2), rel=1e-5)
    same = [a.argmax(axis=1) == b.argmax(axis=1) for a, b in zip(p, q, strict=True)]
    assert of.top1.value == pytest.approx(np.concatenate(same).mean())
    dp = np.exp(-np.concatenate(nlls)) - np.exp(-np.concatenate(base))
    assert of.rms_dp.value == pytest.approx(math.sqrt((dp**2).mean()), rel=1e-3)
    assert of.kld.error == pytest.approx(np.std([k.mean() for k in klds], ddof=1) / math.sqrt(len(klds)), rel=1e-2)
    assert [w.kld for w in found.candidates[0].per_window] == pytest.approx([k.mean() for k in klds], rel=1e-3)
    assert found.reference is not None
    assert found.reference.overall.nll.value == pytest.approx(np.concatenate(base).mean(), rel=1e-5)


def test_the_other_candidate_is_paired_with_the_first_on_the_same_windows(found: Evaluation) -> None:
    near, far = found.candidates
    assert near.overall.kld_over_first is None
    over, kld, other = far.overall.kld_over_first, near.kld, far.kld
    assert over is not None
    assert kld is not None
    assert other is not None
    assert over.value == pytest.approx(other.value - kld.value)
    means = [
        b.kld - a.kld for a, b in zip(near.per_window, far.per_window, strict=True) if a.kld is not None and b.kld is not None
    ]
    assert over.error == pytest.approx(np.std(means, ddof=1) / math.sqrt(len(means)))
    assert over.value > 10 * kld.value


def test_each_domain_has_its_own_figures(found: Evaluation) -> None:
    assert found.domains == ("bees", "hills")
    for one in found.candidates:
        parts = one.per_domain.values()
        assert sum(part.tokens for part in parts) == one.overall.tokens
        assert sum(part.tokens * part.nll.value for part in parts) == pytest.approx(one.overall.tokens * one.overall.nll.value)


@pytest.mark.slow
def test_a_file_is_no_distance_from_itself(files: tuple[Path, Path, Path]) -> None:
    of = evaluate([files[0]], reference=files[0], texts=TEXTS, n_ctx=N_CTX, threads=1).candidates[0].overall
    assert of.kld is not None
    assert of.top1 is not None
    assert (of.kld.value, of.top1.value) == (pytest.approx(0, abs=1e-9), 1)


@pytest.mark.slow
def test_without_a_reference_there_is_perplexity_only(files: tuple[Path, Path, Path]) -> None:
    one = evaluate([files[1]], texts=TEXTS, n_ctx=N_CTX, threads=1)
    assert one.reference is None
    assert one.candidates[0].kld is None
    assert "KLD" not in "\n".join(lines(one))
    two = evaluate(files[1:], texts=TEXTS, n_ctx=N_CTX, threads=1)
    assert two.candidates[0].overall.nll == one.candidates[0].overall.nll
    assert two.candidates[1].overall.nll_over_first is not None


def test_it_is_plain_data_and_lines(found: Evaluation) -> None:
    data: dict[str, Any] = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert data["candidates"][0]["overall"]["kld"]["value"] == pytest.approx(found.candidates[0].overall.kld.value)  # type: ignore[union-attr]
    assert data["reference"]["name"] == "whole.gguf"
    assert data["candidates"][0]["size"] == found.candidates[0].path.stat().st_size
    text = "\n".join(lines(found))
    for word in ("whole.gguf", "near.gguf", "far.gguf", "mean KLD", "bits/byte", "beside near.gguf", "bees", "hills", "±"):
        assert word in text


def test_progress_counts_windows(files: tuple[Path, Path, Path]) -> None:
    seen: list[tuple[int, int]] = []
    evaluate(
        [files[1]], texts=TEXTS, n_ctx=N_CTX, windows=3, threads=1, on_progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.slow
def test_llama_perplexitys_windows_come_with_its_errors(files: tuple[Path, Path, Path]) -> None:
    found = evaluate([files[1]], reference=files[0], texts=TEXTS, n_ctx=N_CTX, style="llama-perplexity", threads=1)
    of = found.candidates[0].overall
    assert of.tokens == of.windows * (N_CTX - 1 - N_CTX // 2)
    assert of.kld is not None
    assert of.kld.token_error is not None


@pytest.mark.slow
def test_the_light_call_gives_the_divergence_of_each_window(files: tuple[Path, Path, Path], found: Evaluation) -> None:
    with ForwardProcess(files[0], n_ctx=N_CTX, threads=1) as process:
        windows = cut_windows(TEXTS, process.tokenize, bos=process.bos, n_ctx=N_CTX)
    klds = divergences(files[0], files[2], windows, threads=1)
    assert klds.tolist() == pytest.approx([w.kld for w in found.candidates[1].per_window])
    whole = [Window("all", windows[0].ids, 0), Window("short", windows[1].ids[:9], 2)]
    assert divergences(files[0], files[2], whole, threads=1).shape == (2,)


@pytest.mark.slow
def test_a_checkpoint_may_be_the_reference_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from pipeline import quantize

    checkpoint = write_checkpoint(tmp_path / "hf", SMALL)
    candidate = quantize(str(checkpoint), "Q8_0", tmp_path / "q.gguf").path
    folder = tmp_path / "tmp"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    texts = {"a": "The quick brown fox jumps over the lazy dog. " * 20}
    found = evaluate([candidate], reference=str(checkpoint), texts=texts, n_ctx=64, threads=1)
    assert found.reference is not None
    assert found.reference.name == str(checkpoint)
    assert found.reference.bits_per_weight > 30
    assert found.candidates[0].kld is not None
    assert 0 < found.candidates[0].kld.value < 0.05
    assert list(folder.iterdir()) == []


# What cannot be compared.


def test_another_vocabulary_is_told_with_the_token(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    other = tiny(tmp_path / "other.gguf", tokenizer__ggml__tokens=[*TOKENS[:-1], "ß"])
    with pytest.raises(
        SprigError, match=r"other\.gguf has another vocabulary than .*whole\.gguf \(its token 285 is 'ß', not 'z'"
    ):
        evaluate([other], reference=files[0], texts=TEXTS, n_ctx=N_CTX)
    folder = write_checkpoint(tmp_path / "another", SMALL)  # of which a file is made; what the user said is told, not its name
    with pytest.raises(SprigError, match=r"other\.gguf has another vocabulary than [^ ]*another \("):
        evaluate([other], reference=str(folder), texts=TEXTS, n_ctx=N_CTX)
    more = [*TOKENS, "[PAD]"]
    padded = write(
        tmp_path / "padded.gguf",
        llama_keys(
            tokenizer__ggml__tokens=more, tokenizer__ggml__scores=[0.0] * len(more), tokenizer__ggml__token_type=[*TYPES, 5]
        ),
        llama_weights(len(more)),
    )
    with pytest.raises(SprigError, match=r"padded\.gguf has another vocabulary .*287 tokens, not 286"):
        evaluate([files[1], padded], texts=TEXTS, n_ctx=N_CTX)


@pytest.mark.slow
def test_a_model_that_computes_nan_is_named(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    weights = llama_weights()
    weights["output_norm.weight"] = np.full_like(weights["output_norm.weight"], 3e38)
    bad = write(tmp_path / "bad.gguf", llama_keys(), weights)
    for candidate, reference in ((bad, files[0]), (files[1], bad), (bad, None)):
        with pytest.raises(GGUFError, match=r"bad\.gguf cannot be evaluated: llama\.cpp computes NaN"):
            evaluate([candidate], reference=reference, texts=TEXTS, n_ctx=N_CTX, threads=1)


def test_a_missing_file_and_windows_that_are_too_long_are_told(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    with pytest.raises(GGUFError, match=r"cannot read .*gone\.gguf"):
        evaluate([tmp_path / "gone.gguf"], texts=TEXTS)
    with pytest.raises(SprigError, match=r"was trained for 64 tokens of context, and windows have 512"):
        evaluate([files[0]], texts=TEXTS)
    with pytest.raises(SprigError, match="at least one"):
        evaluate([], texts=TEXTS)


def test_a_model_that_writes_nothing_is_told(files: tuple[Path, Path, Path], tmp_path: Path) -> None:
    vectors = tiny(tmp_path / "vectors.gguf", llama__pooling_type=1)
    with pytest.raises(SprigError, match="writes none"):
        evaluate([vectors], texts=TEXTS, n_ctx=N_CTX)
