"""The losses beside scipy and formulas that are written straight out, their gradients beside finite differences."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.distill.options import DIVERGENCES
from tests.fixtures.later import later

torch = later("torch")
scipy = later("scipy")
loss = later("pipeline.distill.loss")

ROWS, VOCABULARY = 5, 40


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def expected(teacher: torch.Tensor, student: torch.Tensor, kind: str, temperature: float = 1.0) -> np.ndarray:
    p, q = (scipy.special.softmax(x.detach().numpy() / temperature, -1) for x in (teacher, student))
    if kind == "js":
        return np.array([scipy.spatial.distance.jensenshannon(a, b) ** 2 for a, b in zip(p, q, strict=True)])
    return np.asarray((scipy.special.rel_entr(p, q) if kind == "forward" else scipy.special.rel_entr(q, p)).sum(-1))


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_each_divergence_is_scipys_times_the_square_of_the_temperature(kind: str, temperature: float) -> None:
    teacher, student = logits(0), logits(1)
    found = loss.distilled(loss.log_shares(teacher / temperature), student, None, temperature, kind)
    np.testing.assert_allclose(found.numpy(), temperature**2 * expected(teacher, student, kind, temperature), rtol=1e-9)
    same = loss.distilled(loss.log_shares(teacher / temperature), teacher, None, temperature, kind)
    np.testing.assert_allclose(same.numpy(), 0, atol=1e-12)


def test_the_square_keeps_the_gradient_as_large_at_any_temperature() -> None:
    """Hinton et al., section 2.1: at a high temperature the gradient is the difference of centred logits, over the tokens."""
    teacher, student = logits(0), logits(1).requires_grad_()
    temperature = 1e4
    (slope,) = torch.autograd.grad(
        loss.distilled(loss.log_shares(teacher / temperature), student, None, temperature, "forward").sum(), student
    )
    centred = [x.detach() - x.detach().mean(-1, keepdim=True) for x in (student, teacher)]
    np.testing.assert_allclose(slope.numpy(), ((centred[0] - centred[1]) / VOCABULARY).numpy(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("kind", DIVERGENCES)
@pytest.mark.parametrize("k", [None, 6])
def test_gradients_are_those_of_finite_differences(kind: str, k: int | None) -> None:
    teacher, student = logits(0)[:2, :12], logits(1)[:2, :12].clone().requires_grad_()
    ids = None if k is None else teacher.topk(k, -1).indices
    logs = loss.log_shares(teacher / 1.7, ids)
    assert torch.autograd.gradcheck(lambda x: loss.distilled(logs, x, ids, 1.7, kind), student)


@pytest.mark.parametrize("kind", DIVERGENCES)
def test_more_tokens_come_nearer_to_the_whole_and_all_are_the_whole(kind: str) -> None:
    teacher, student = logits(0), logits(1)
    whole, last = expected(teacher, student, kind), np.zeros(ROWS)
    for k in (1, 4, 16, VOCABULARY - 1, VOCABULARY):
        ids = teacher.topk(k, -1).indices
        found = loss.divergence(loss.log_shares(teacher, ids), loss.log_shares(student, ids), kind).numpy()
        assert (found >= last - 1e-12).all()
        last = found
    np.testing.assert_allclose(last, whole, rtol=1e-9)


def test_the_mass_of_all_others_counts() -> None:
    """A student that is right among the kept tokens and gives the others too much is told so."""
    teacher = logits(0)
    ids = teacher.topk(4, -1).indices
    student = teacher + 2
    student = student.scatter(-1, ids, student.gather(-1, ids) - 2)  # all others three times likelier, and more
    p, q = (loss.log_shares(x, ids) for x in (teacher, student))
    np.testing.assert_allclose((p[:, :4] - p[:, :4].logsumexp(-1, keepdim=True)).numpy(),
                               (q[:, :4] - q[:, :4].logsumexp(-1, keepdim=True)).numpy(), atol=1e-12)  # fmt: skip
    assert (loss.divergence(p, q, "forward") > 0.001).all()


def test_what_is_impossible_is_no_nan() -> None:
    sure = torch.full((1, 8), -torch.inf)
    sure[0, 3] = 0
    for kind in DIVERGENCES:
        x = torch.zeros(1, 8, requires_grad=True)
        total = loss.divergence(sure, loss.log_shares(x), kind).sum()
        total.backward()
        assert torch.isfinite(total)
        assert x.grad is not None
        assert torch.isfinite(x.grad).all()


def test_the_language_loss_is_the_logarithm_of_what_came() -> None:
    student, targets = logits(1), torch.tensor([3, 0, 39, 7, 7])
    want = -scipy.special.log_softmax(student.numpy(), -1)[np.arange(ROWS), targets.numpy()]
    np.testing.assert_allclose(loss.language(student, targets).numpy(), want, rtol=1e-9)


def test_hidden_states_and_embeddings_leave_padding_out() -> None:
    teacher, student = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mask = torch.tensor([[1, 1, 1], [1, 0, 0]])
    other = student.clone()
    other[1, 1:] = 100
    assert torch.equal(loss.apart(teacher, student, mask), loss.apart(teacher, other, mask))
    assert torch.equal(loss.embedding(student, mask), loss.embedding(other, mask))
    np.testing.assert_allclose(loss.embedding(student, mask)[0], student[0].mean(0), rtol=1e-6)
    np.testing.assert_allclose(loss.embedding(student, mask)[1], student[1, 0], rtol=1e-6)
    assert float(loss.apart(teacher, teacher, mask)) == 0
    assert float(loss.apart(teacher, torch.zeros(2, 3, 4), mask)) == pytest.approx(1)
    a, b = loss.embedding(teacher, mask).double().numpy(), loss.embedding(student, mask).double().numpy()
    cosines = (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)
    assert float(loss.turned(torch.from_numpy(a), torch.from_numpy(b))) == pytest.approx(1 - cosines.mean())


def test_attention_maps_of_other_numbers_of_heads_compare_by_their_mean() -> None:
    teacher, student = torch.randn(1, 4, 3, 3).softmax(-1), torch.randn(1, 2, 3, 3).softmax(-1)
    mask = torch.ones(1, 3)
    p, q = teacher[0].mean(0).double().numpy(), student[0].mean(0).double().numpy()
    assert float(loss.attended(teacher, student, mask)) == pytest.approx(scipy.special.rel_entr(p, q).sum(-1).mean(), rel=1e-4)
    assert float(loss.attended(teacher, teacher[:, [1, 0, 3, 2]], mask)) == pytest.approx(0, abs=1e-6)
