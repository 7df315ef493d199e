"""The divergence from the teacher's likeliest tokens: exact with all of them, never larger with some."""

from __future__ import annotations

import math

import pytest

from tests.fixtures.later import later

torch = later("torch")
room = later("pipeline.tune.divergence")

VOCABULARY = 300


def logits(seed: int) -> torch.Tensor:
    return 3 * torch.randn(7, VOCABULARY, generator=torch.Generator().manual_seed(seed))


def whole(teacher: torch.Tensor, student: torch.Tensor) -> torch.Tensor:
    p = teacher.log_softmax(-1)
    return (p.exp() * (p - student.log_softmax(-1))).sum(-1)


@pytest.mark.slow
def test_all_tokens_give_the_whole_divergence_and_some_no_more() -> None:
    teacher, student = logits(0), logits(1)
    exact = whole(teacher, student)
    torch.testing.assert_close(room.divergence(student, room.keep(teacher, VOCABULARY)), exact, rtol=1e-4, atol=1e-4)
    last = torch.zeros(7)
    for k in (4, 64, 299):
        found = room.divergence(student, room.keep(teacher, k))
        assert (found <= exact + 1e-4).all()
        assert (found >= last - 1e-4).all()
        last = found
    assert (room.divergence(teacher, room.keep(teacher, 16)).abs() < 1e-5).all()


def test_the_gradient_leads_to_the_teacher() -> None:
    teacher, student = logits(0), logits(1).requires_grad_()
    for _ in range(60):
        loss = room.divergence(student, room.keep(teacher, 32)).mean()
        (slope,) = torch.autograd.grad(loss, student)
        student = (student - 50 * slope).detach().requires_grad_()
    assert loss < 0.05 * whole(teacher, logits(1)).mean()


def test_blind_guessing_is_as_far_as_equal_chances() -> None:
    teacher = logits(2)
    equal = torch.zeros(7, VOCABULARY)
    assert room.blind(room.keep(teacher, 64), VOCABULARY) == pytest.approx(
        float(room.divergence(equal, room.keep(teacher, 64)).mean()), abs=1e-4
    )
    assert room.blind(room.keep(equal, 64), VOCABULARY) == pytest.approx(0, abs=1e-4)
    assert room.blind(room.keep(torch.eye(7, VOCABULARY) * 100, 64), VOCABULARY) == pytest.approx(math.log(VOCABULARY), abs=1e-3)
