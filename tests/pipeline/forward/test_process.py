"""A model in a child process: windows in, logits out; what cannot run is one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import GGUFError, OutputError
from agent.files import reserve
from pipeline.forward.process import ForwardProcess
from tests.fixtures.tiny import llama


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("forward") / "tiny.gguf")


def test_a_window_gives_the_logits_of_its_last_tokens_and_forgets_the_one_before(model: Path) -> None:
    with ForwardProcess(model, n_ctx=32, n_outputs=32) as process:
        ids = process.tokenize("a blue bee")
        assert len(ids) > 8
        whole = process.logits(ids).copy()
        end = process.logits(ids, len(ids) - 3).copy()
        other = process.logits(ids[::-1])
        assert whole.shape == (len(ids), process.n_vocab)
        np.testing.assert_allclose(end, whole[-3:], rtol=1e-5, atol=1e-5)
        assert not np.allclose(other, whole)
        assert process.bos == 1
        assert process.peak_memory() > 1 << 20


@pytest.mark.slow
def test_several_models_compute_at_once(model: Path) -> None:
    with ForwardProcess(model, n_ctx=16, n_outputs=8) as a, ForwardProcess(model, n_ctx=16, n_outputs=8) as b:
        for process in (a, b):
            process.ask_logits([1, 5, 9, 7], 2)
        np.testing.assert_array_equal(a.take_logits(2), b.take_logits(2))


def test_a_window_that_is_too_long_is_refused_and_the_model_stays(model: Path) -> None:
    with ForwardProcess(model, n_ctx=16, n_outputs=16) as process:
        with pytest.raises(GGUFError, match="17 tokens does not fit 16"):
            process.logits([5] * 17, 16)
        assert np.isfinite(process.logits([5, 6], 1)).all()


def test_what_is_no_model_is_told_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "no.gguf"
    path.write_bytes(b"not a model at all")
    with pytest.raises(GGUFError, match=r"no\.gguf does not run in llama\.cpp: .*magic"):
        ForwardProcess(path)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="this system has no memory that looks like a disk")
def test_logits_go_over_the_disk_where_shared_memory_is_too_small(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container often has 64 MB of it; who writes beyond that is killed."""
    tried: list[Path] = []

    def full_memory(fd: int, size: int, path: Path) -> None:
        tried.append(path.parent)
        if len(tried) == 1:
            raise OutputError("no room")
        reserve(fd, size, path)

    monkeypatch.setattr("pipeline.forward.process.reserve", full_memory)
    with ForwardProcess(model, n_ctx=16, n_outputs=8) as process:
        assert np.isfinite(process.logits([1, 5, 9, 7], 2)).all()
    assert tried[0] != tried[1]
    monkeypatch.undo()
    with pytest.raises(OutputError):
        ForwardProcess(model, n_ctx=16, n_outputs=1 << 40)


def test_a_model_whose_process_dies_is_told(model: Path) -> None:
    with ForwardProcess(model) as process:
        process._child.kill()
        with pytest.raises(GGUFError, match="the kernel killed it"):
            process.tokenize("a")


@pytest.mark.slow
def test_the_memory_of_a_model_is_its_own_and_not_what_its_parent_holds(model: Path) -> None:
    held = np.ones(30_000_000, np.float64)  # Linux lets a child's ru_maxrss begin with this
    with ForwardProcess(model) as process:
        process.tokenize("a")
        assert 1 << 20 < process.peak_memory() < held.nbytes
