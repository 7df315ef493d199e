"""The compiled loops beside those in NumPy: the same numbers, and where a code differs, no worse a tensor."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.format.ggml import Floats
from pipeline.rounding import descent, feedback
from pipeline.rounding.blocks import FORMATS, values
from pipeline.rounding.compiled_folder import copy_of_compiled
from pipeline.rounding.descent import descend
from pipeline.rounding.feedback import round_with_feedback, to_blocks
from pipeline.rounding.kernels import NUMPY, Kernels, kernels
from pipeline.rounding.moments import Moment, moment, output_error
from tests.pipeline.rounding.test_gptq import activations, weights_like


@pytest.fixture
def compiled() -> Kernels:
    pytest.importorskip("numba")
    found = kernels()
    assert found is not NUMPY
    return found


def rounded(weights: Floats, known: Moment, name: str, use: Kernels, patch: pytest.MonkeyPatch) -> Floats:
    patch.setattr(feedback, "kernels", lambda: use)
    patch.setattr(descent, "kernels", lambda: use)
    form = FORMATS[name]
    done = round_with_feedback(weights, known, form)
    descend(done, known, form, 1)
    return values(to_blocks(done, known, form), form)


@pytest.mark.parametrize("name", FORMATS)
def test_compiled_loops_round_like_those_in_numpy(name: str, compiled: Kernels, monkeypatch: pytest.MonkeyPatch) -> None:
    x, weights = activations(600, 1), weights_like(rows=40)
    weights[3] = 0
    weights[4, :64] = 0
    known = moment(x.T @ x, 0.3, FORMATS[name])
    plain, fast = (rounded(weights, known, name, use, monkeypatch) for use in (NUMPY, compiled))
    errors = [output_error(weights - made, x.T @ x) for made in (plain, fast)]
    assert errors[1] == pytest.approx(errors[0], rel=0.02)
    assert np.mean(plain == fast) > 0.8, "they take the same codes, but where a tie falls otherwise and those behind it follow"
    assert not fast[3].any()


def test_a_row_comes_out_the_same_whatever_is_beside_it(compiled: Kernels) -> None:
    form, weights = FORMATS["IQ4_NL"], np.ascontiguousarray(weights_like(rows=50, columns=32).T)
    importance = np.linspace(0.5, 2, 32, dtype=np.float32)
    follow = np.tril(np.full((32, 32), 0.1, np.float32), -1)

    def of(part: Floats) -> Floats:
        step, offset = compiled.fitted(part, importance, form)
        step, offset = compiled.best(compiled.rounding_loss(part, importance, step, offset, form), 4, step, offset)
        return compiled.feed(part, part, follow, importance, step, offset, form)[0]

    assert np.array_equal(of(weights)[:, 5:16], of(np.ascontiguousarray(weights[:, 5:16])))


def test_without_numba_it_goes_on_in_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "pipeline.rounding.compiled", raising=False)
    monkeypatch.delattr("pipeline.rounding.compiled", raising=False)
    assert kernels.__wrapped__() is NUMPY


def test_a_child_gets_a_copy_of_what_was_compiled_and_changes_nothing_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    with copy_of_compiled() as copy:
        assert list(copy.iterdir()) == []
    for name in ("rounding_1", "of_others"):
        (tmp_path / "cache" / name).mkdir(parents=True)
        (tmp_path / "cache" / name / "loop.nbi").write_text(name)
    with copy_of_compiled() as copy:
        assert [p.name for p in copy.iterdir()] == ["rounding_1"]
        (copy / "rounding_1" / "loop.nbi").write_text("hostile")
    assert not copy.exists()
    assert (tmp_path / "cache" / "rounding_1" / "loop.nbi").read_text() == "rounding_1"
