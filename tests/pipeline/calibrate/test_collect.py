"""What a model's weights see, measured through llama.cpp: the same as a computation by hand, within bounds, also after a kill."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from agent.errors import GGUFError, OutputError, SprigError
from pipeline.calibrate import collect as room
from pipeline.calibrate.collect import collect
from pipeline.calibrate.statistics import Statistics, moments_file
from pipeline.format.imatrix import read_imatrix
from pipeline.forward.process import ForwardProcess
from tests.fixtures.tiny import FFN, WIDTH, Weights, llama, llama_keys, llama_weights, write
from tests.pipeline.calibrate.reference import EXPERTS, USED, activations, experts_llama

WINDOWS = [[1, *np.random.default_rng(i).integers(3, 286, 23).tolist()] for i in range(5)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("collect") / "tiny.gguf")


@pytest.fixture(scope="module")
def statistics(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Statistics:
    return collect(model, WINDOWS, tmp_path_factory.mktemp("statistics"), hessians=True, threads=1)


def moments_of(weights: Weights, windows: list[list[int]], name: str, matrix: int = 0) -> tuple[np.ndarray, int]:
    rows = np.concatenate([activations(weights, ids)[name][matrix] for ids in windows])
    return rows.T @ rows, len(rows)


def close(found: np.ndarray, right: np.ndarray) -> None:
    """Attention computes in half precision."""
    np.testing.assert_allclose(found, right, rtol=0, atol=4e-3 * np.abs(right).max())


def test_second_moments_are_those_of_a_computation_by_hand(statistics: Statistics) -> None:
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down", "head"):
        weight = "token_embd.weight" if name == "head" else f"blk.0.{name}.weight"
        for fold, windows in (("A", WINDOWS[0::2]), ("B", WINDOWS[1::2]), (None, WINDOWS)):
            found = statistics.hessian(weight, fold)  # type: ignore[arg-type]
            right, tokens = moments_of(llama_weights(), windows, name)
            assert found is not None
            assert found[1] == tokens
            close(found[0], right)
            assert np.array_equal(found[0], found[0].T)


def test_the_imatrix_is_the_diagonal_without_the_head(statistics: Statistics) -> None:
    matrix = statistics.imatrix()
    assert sorted(matrix.entries) == sorted(
        f"blk.0.{n}.weight" for n in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    )
    for name, values in matrix.entries.items():
        found = statistics.hessian(name)
        assert found is not None
        np.testing.assert_allclose(values[0], np.diag(found[0]) / found[1], rtol=1e-5)
    head = statistics.squares("token_embd.weight")
    assert head is not None
    assert "token_embd.weight" in statistics.square_sums(head=True).sums
    assert (matrix.chunks, len(statistics.facts.inputs)) == (len(WINDOWS), 5)


def test_weights_that_share_an_input_are_measured_once(statistics: Statistics) -> None:
    shared = [set(one.weights) for one in statistics.facts.inputs]
    assert {f"blk.0.attn_{part}.weight" for part in "qkv"} in shared
    assert {"blk.0.ffn_gate.weight", "blk.0.ffn_up.weight"} in shared
    assert len(list((statistics.folder / "hessians").iterdir())) == 2 * len(shared)


@pytest.mark.slow
def test_a_window_that_takes_two_computations_is_counted_once(model: Path, tmp_path: Path) -> None:
    window = [1, *np.random.default_rng(9).integers(3, 286, 539).tolist()]
    found = collect(model, [window, WINDOWS[1]], tmp_path, hessians=True, threads=1).hessian("blk.0.ffn_down.weight", "A")
    right, tokens = moments_of(llama_weights(), [window], "ffn_down")
    assert found is not None
    assert found[1] == tokens == 540
    close(found[0], right)


@pytest.mark.slow
def test_each_expert_has_the_tokens_that_it_was_given(tmp_path: Path) -> None:
    weights = experts_llama(tmp_path / "experts.gguf")
    found = collect(tmp_path / "experts.gguf", WINDOWS, tmp_path / "s", hessians=True, threads=1)
    for name in ("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps"):
        tokens = 0
        for e in range(EXPERTS):
            right, n = moments_of(weights, WINDOWS, name, e)
            own = found.hessian(f"blk.0.{name}.weight", None, e)
            assert own is not None
            assert own[1] == n
            close(own[0], right)
            tokens += n
        assert tokens == USED * sum(map(len, WINDOWS))
    entry = found.imatrix().of("blk.0.ffn_down_exps.weight", (EXPERTS, WIDTH, FFN))
    assert entry is not None
    assert entry.shape == (EXPERTS, FFN)


@pytest.mark.slow
def test_experts_whose_second_moments_do_not_fit_are_left_out_with_a_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experts_llama(tmp_path / "experts.gguf")
    monkeypatch.setattr(room, "_room", lambda *_: 20_000)
    found = collect(tmp_path / "experts.gguf", WINDOWS[:2], tmp_path / "s", hessians=True, threads=1)
    assert found.hessian("blk.0.ffn_down_exps.weight") is None
    assert found.hessian("blk.0.attn_q.weight") is not None
    assert "experts are left out" in found.facts.notes[0]
    assert found.imatrix().entries["blk.0.ffn_down_exps.weight"].shape == (EXPERTS, FFN)


@pytest.mark.slow
def test_with_little_memory_the_text_is_read_once_for_each_group(
    model: Path, statistics: Statistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_room", lambda *_: 9_000)  # the largest input takes 8,320
    told: list[tuple[int, int]] = []
    found = collect(
        model, WINDOWS, tmp_path, hessians=True, threads=1, on_progress=lambda done, total: told.append((done, total))
    )  # fmt: skip
    assert told[-1] == (3 * len(WINDOWS), 3 * len(WINDOWS))
    for one in found.facts.inputs:
        mine, whole = found.hessian(one.name), statistics.hessian(one.name)
        assert mine is not None
        assert whole is not None
        np.testing.assert_allclose(mine[0], whole[0], rtol=1e-5, atol=1e-6)
    monkeypatch.setattr(room, "_room", lambda *_: 8_000)
    with pytest.raises(SprigError, match=r"ffn_down\.weight takes 8 kB"):
        collect(model, WINDOWS, tmp_path, hessians=True, threads=1)
    told.clear()
    monkeypatch.setattr(room, "_room", lambda *_: -1)  # squares take next to nothing
    collect(model, WINDOWS, tmp_path, hessians=False, threads=1, on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (len(WINDOWS), len(WINDOWS))


@pytest.mark.slow
def test_a_killed_run_goes_on_where_it_was(
    model: Path, statistics: Statistics, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_KEEP", 1)

    def kill(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, WINDOWS, tmp_path, hessians=True, threads=1, on_progress=kill)
    with pytest.raises(SprigError, match="unfinished"):
        Statistics.open(tmp_path)
    moments_file(tmp_path, 1, "A").unlink()  # as if it had not been written any more
    seen: list[int] = []
    found = collect(
        model, WINDOWS, tmp_path, hessians=True, threads=1, resume=True, on_progress=lambda done, _: seen.append(done)
    )
    for one in found.facts.inputs:
        mine, whole = found.hessian(one.name), statistics.hessian(one.name)
        assert mine is not None
        assert whole is not None
        assert mine[1] == whole[1]
        np.testing.assert_allclose(mine[0], whole[0], rtol=1e-5, atol=1e-6)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["hessians", "imatrix.gguf", "statistics.json"]


@pytest.mark.slow
def test_another_text_is_no_resuming(model: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collect(model, WINDOWS, tmp_path, hessians=True, threads=1, on_progress=stop)
    with pytest.raises(SprigError, match="another model, text or wish"):
        collect(model, WINDOWS[:3], tmp_path, hessians=True, threads=1, resume=True)


@pytest.mark.slow
def test_a_column_that_is_always_zero_is_safe(tmp_path: Path) -> None:
    weights = llama_weights()
    weights["blk.0.attn_norm.weight"][3:5] = 0
    path = write(tmp_path / "zero.gguf", llama_keys(), weights)
    found = collect(path, WINDOWS[:2], tmp_path / "s", hessians=True, threads=1)
    matrix = found.hessian("blk.0.attn_q.weight")
    assert matrix is not None
    assert not matrix[0][3:5].any()
    assert not matrix[0][:, 3:5].any()
    assert (found.imatrix().entries["blk.0.attn_q.weight"][0, 3:5] == 0).all()


@pytest.mark.slow
def test_values_that_are_not_finite_are_one_line(tmp_path: Path) -> None:
    weights = llama_weights()
    weights["blk.0.ffn_norm.weight"] = np.full_like(weights["blk.0.ffn_norm.weight"], 3e38)
    path = write(tmp_path / "nan.gguf", llama_keys(), weights)
    with pytest.raises(GGUFError, match=r"blk\.0\.ffn_\w+\.weight is multiplied with values that are not finite"):
        collect(path, WINDOWS[:2], tmp_path / "s", hessians=False, threads=1)


def test_what_cannot_be_done_is_said_before_the_work(model: Path, tmp_path: Path) -> None:
    with pytest.raises(SprigError, match="needs two"):
        collect(model, WINDOWS[:1], tmp_path / "s", hessians=False)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match=r"letter\.txt, which is no statistics"):
        collect(model, WINDOWS, tmp_path / "mine", hessians=False)


def test_llama_imatrix_finds_the_same(tmp_path: Path) -> None:
    program = os.environ.get("LLAMA_IMATRIX") or shutil.which("llama-imatrix")
    if program is None:
        pytest.skip("llama-imatrix is not here; LLAMA_IMATRIX names it")
    path = tmp_path / "experts.gguf"
    experts_llama(path)
    text = tmp_path / "text.txt"
    text.write_text(" ".join(["the lark climbs over wet fields and a slow train hums far away"] * 20))
    subprocess.run(
        [program, "-m", path, "-f", text, "-o", tmp_path / "theirs.gguf", "-c", "64", "-b", "64", "--chunks", "4", "-t", "1",
         "--no-ppl"],
        check=True, capture_output=True,
    )  # fmt: skip
    with ForwardProcess(path, n_ctx=64, threads=1) as process:
        ids = process.tokenize(text.read_text())
        ids = [process.bos, *ids] if process.add_bos else ids
        windows = [ids[i : i + 64] for i in range(0, 256, 64)]
        windows = [[process.bos, *w[1:]] if process.add_bos else w for w in windows]
    mine = collect(path, windows, tmp_path / "s", hessians=False, threads=1).imatrix()
    theirs = read_imatrix(tmp_path / "theirs.gguf")
    assert set(mine.entries) == set(theirs.entries)
    for name, values in mine.entries.items():
        other = theirs.entries[name]
        assert (values * other).sum() / np.linalg.norm(values) / np.linalg.norm(other) > 0.999, name
    assert mine.chunks == theirs.chunks
