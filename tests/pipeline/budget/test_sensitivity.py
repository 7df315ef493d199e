"""What probes and errors say about each tensor."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from agent.errors import RecipeError
from agent.gguf.types import TYPES_BY_NAME, GGMLType
from pipeline import quantize
from pipeline.budget.divergence import Divergence, windows
from pipeline.budget.errors import GGML, Rounder
from pipeline.budget.sensitivity import Probe, Sensitivity, groups_of, members, read_sensitivity
from pipeline.budget.work_file import WorkFile, row_ranges
from pipeline.format import ggml
from pipeline.format.ggml import Bytes, Floats
from pipeline.format.imatrix import ImportanceMatrix
from pipeline.forward.process import ForwardProcess
from tests.fixtures.ggufs import SHAPES, write_bf16
from tests.fixtures.random_llama import write_checkpoint
from tests.fixtures.shared import shared
from tests.pipeline.budget.test_spend import SHAPE, TEXT

Q4, Q8 = TYPES_BY_NAME["Q4_0"], TYPES_BY_NAME["Q8_0"]
DOWN = "blk.1.ffn_down.weight"
N_LAYERS = 8
NAMES = [
    f"blk.{i}.{role}.weight" for i in range(N_LAYERS) for role in ("attn_q", "attn_k", "attn_v", "ffn_up", "ffn_gate", "ffn_down")
]


@pytest.fixture(scope="module")
def f16() -> Path:
    def make(folder: Path) -> None:
        write_checkpoint(folder / "model", SHAPE)
        quantize(str(folder / "model"), "F16", folder / "f16.gguf", threads=1)

    return shared("budget-f16", make) / "f16.gguf"


@pytest.fixture
def own_f16(f16: Path, tmp_path: Path) -> Path:
    """In a folder of the test's own: the probes' copy comes beside it."""
    (tmp_path / "f16.gguf").hardlink_to(f16)
    return tmp_path / "f16.gguf"


@pytest.fixture
def work(own_f16: Path) -> WorkFile:
    with ThreadPoolExecutor(1) as pool:
        return WorkFile(own_f16, None, pool)


def test_slopes_of_role_and_depth_give_back_what_the_probes_measured() -> None:
    """Losses that are made of a factor for each role and one for each depth are found again, tensor by tensor."""
    rng = np.random.default_rng(4)
    error = {name: rng.uniform(0.5, 2) for name in [*NAMES, "token_embd.weight"]}
    factors = {group: rng.uniform(0.1, 10) for group in members(error, N_LAYERS)}
    loss = {n: e * np.prod([factors[g] for g in groups_of(n, N_LAYERS)]) for n, e in error.items()}
    probes = tuple(Probe(g, "Q4_0", sum(loss[n] for n in some)) for g, some in members(error, N_LAYERS).items())
    table = {name: {"Q4_0": e} for name, e in error.items()}
    found = Sensitivity("m", "", "", "ggml", "", N_LAYERS, table, table, probes).losses()
    assert {name: some["Q4_0"] for name, some in found.items()} == pytest.approx(loss, rel=1e-6)


def test_a_tensor_outside_the_blocks_loses_what_was_measured_in_each_type() -> None:
    """The others take the slope of the type with the smallest error; an encoder that halves the error halves the loss."""
    plain = {"Q4_0": 0.02, "IQ4_NL": 0.01}
    probes = (Probe("output.weight", "IQ4_NL", 0.08), Probe("output.weight", "Q4_0", 0.1))
    errors = {"output.weight": {"Q4_0": 0.01, "IQ4_NL": 0.01, "Q8_0": 0.0001}}
    found = Sensitivity("m", "", "", "gptq", "", N_LAYERS, errors, {"output.weight": plain}, probes).losses()
    assert found["output.weight"] == pytest.approx({"Q4_0": 0.05, "IQ4_NL": 0.08, "Q8_0": 0.0008})


def test_a_group_that_loses_nothing_does_not_spoil_the_others() -> None:
    groups = members(NAMES, N_LAYERS)
    probes = tuple(Probe(g, "Q4_0", 0.0 if g == "attn_v" else 1.0) for g in groups)
    table = {name: {"Q4_0": 1.0} for name in NAMES}
    found = {n: some["Q4_0"] for n, some in Sensitivity("m", "", "", "ggml", "", N_LAYERS, table, table, probes).losses().items()}
    assert np.isfinite(list(found.values())).all()
    assert max(found[n] for n in groups["attn_v"]) == 0


def test_groups_are_few_and_tensors_outside_the_blocks_have_their_own() -> None:
    roles, depths = {"attn_qk", "attn_v", "ffn_up", "ffn_down"}, {f"depth {i}" for i in range(4)}
    outer = {"token_embd.weight", "output.weight"}
    assert set(members([*NAMES, *outer], N_LAYERS)) == roles | depths | outer
    assert groups_of("blk.0.attn_q.weight", 1) == ("attn_qk", "depth 0")


def test_it_comes_back_from_its_file(tmp_path: Path) -> None:
    probes = tuple(Probe(g, "Q4_0", 0.5) for g in members(["token_embd.weight"], 2))
    known = Sensitivity(
        "m", "i", "", "ggml", "t", 2, {"token_embd.weight": {"Q4_0": 0.1}}, {"token_embd.weight": {"Q4_0": 0.1}}, probes
    )
    known.save(tmp_path / "folder" / "s.json")
    assert read_sensitivity(tmp_path / "folder" / "s.json") == known
    assert known.losses() == {"token_embd.weight": {"Q4_0": pytest.approx(0.5)}}


def test_the_copy_carries_what_rounding_makes_of_the_weights_and_gets_them_back(own_f16: Path) -> None:
    with ThreadPoolExecutor(1) as pool, WorkFile(own_f16, None, pool) as work:
        before = work.copy.read_bytes()
        work.lower([DOWN], Q4)
        after, entry = work.copy.read_bytes(), work.tensors[DOWN]
        part = slice(entry.offset, entry.offset + entry.nbytes)
        assert (before[: part.start], before[part.stop :]) == (after[: part.start], after[part.stop :])
        values = np.frombuffer(after[part], np.float16)
        assert all(len(set(block)) <= 16 for block in values.reshape(-1, 32).tolist())
        copy, held = work.copy, next(row_ranges(entry))
        np.testing.assert_allclose(
            values[: (held.stop - held.start) * entry.shape[-1]].astype(np.float32),
            work.rounded(DOWN, held, Q4).ravel(),
            atol=1e-4,
        )
        work.restore([DOWN])
        assert work.copy.read_bytes() == before
    assert not copy.exists()


@pytest.mark.slow
def test_a_changed_copy_diverges_from_the_original_and_an_unchanged_one_does_not(own_f16: Path, tmp_path: Path) -> None:
    with (
        ThreadPoolExecutor(1) as pool,
        WorkFile(own_f16, None, pool) as work,
        Divergence(own_f16, [TEXT[:400]], tmp_path, 1) as divergence,
    ):
        assert divergence.of(work.copy) == 0
        work.lower([DOWN], Q4)
        assert 0 < divergence.of(work.copy) < 1
    assert list(tmp_path.iterdir()) == [own_f16]


@pytest.mark.slow
def test_a_text_of_a_few_words_is_refused(own_f16: Path) -> None:
    with ForwardProcess(own_f16) as process, pytest.raises(RecipeError, match="fewer than 192 tokens"):
        windows(process, ["A few words."])


class FakeInputs:
    """Second moments that a test made up."""

    def __init__(self, moment: Floats | None, squares: Floats | None) -> None:
        self.moment, self.own = moment, squares

    def hessian(self, name: str, fold: object = None, matrix: int = 0) -> tuple[Floats, int] | None:
        return None if self.moment is None else (self.moment * 7, 7)

    def squares(self, name: str) -> Floats | None:
        return self.own


def test_second_moments_their_diagonal_and_an_imatrix_agree(work: WorkFile) -> None:
    diagonal = np.linspace(0.1, 5, work.tensors[DOWN].shape[-1], dtype=np.float32)
    weighted = [
        Rounder(inputs=FakeInputs(moment, squares)).shares(work, DOWN, [Q4])["Q4_0"]
        for moment, squares in ((np.diag(diagonal), None), (None, diagonal[None]))
    ]
    assert weighted[0] == pytest.approx(weighted[1], rel=1e-4)
    work.imatrix = ImportanceMatrix({DOWN: diagonal[None]}, (), 1, "", "made up")
    assert GGML.shares(work, DOWN, [Q4])["Q4_0"] < weighted[0]  # ggml rounds by it too


def test_more_bits_are_a_smaller_error_and_an_encoders_own_errors_take_their_place(work: WorkFile) -> None:
    plain = GGML.shares(work, DOWN, [Q4, Q8])
    assert 1e-3 < plain["Q4_0"] < 0.02
    assert plain["Q8_0"] < plain["Q4_0"] / 50

    def errors(name: str, weights: Floats, kinds: object) -> dict[str, float]:
        return {"Q4_0": 0.25 * float(np.square(weights).sum())}

    found = Rounder("better", None, errors).shares(work, DOWN, [Q4, Q8])
    assert found == {"Q4_0": pytest.approx(0.25, rel=0.1), "Q8_0": plain["Q8_0"]}


def test_an_encoder_rounds_the_probe_of_an_embedding(own_f16: Path) -> None:
    """What it leaves to ggml, ggml rounds."""

    def encode(name: str, weights: Floats, kind: GGMLType) -> Bytes | None:
        return ggml.quantize(np.zeros_like(weights), kind) if name == DOWN else None

    with ThreadPoolExecutor(1) as pool, WorkFile(own_f16, None, pool) as work:
        other = "blk.0.ffn_down.weight"
        Rounder("zeros", None, None, encode).lower(work, [DOWN, other], Q4)
        after = work.copy.read_bytes()
        parts = [after[t.offset : t.offset + t.nbytes] for t in (work.tensors[DOWN], work.tensors[other])]
        assert [np.frombuffer(part, np.float16).any() for part in parts] == [False, True]


def test_experts_are_looked_at_one_by_one_with_their_own_importances(tmp_path: Path) -> None:
    shape = next(s for s in SHAPES if s.experts)
    path = write_bf16(tmp_path / "experts.gguf", shape)
    with ThreadPoolExecutor(1) as pool:
        work = WorkFile(path, None, pool)
        name, entry = next((n, t) for n, t in work.tensors.items() if len(t.shape) == 3)
        ranges = list(row_ranges(entry, 64))
        assert {r.matrix for r in ranges} > {0}
        assert all(r.matrix * entry.shape[1] <= r.start < r.stop <= (r.matrix + 1) * entry.shape[1] for r in ranges)
        assert sum(r.stop - r.start for r in row_ranges(entry)) == entry.shape[0] * entry.shape[1]
        assert 0 < GGML.shares(work, name, [Q4])["Q4_0"] < 0.05
