"""What fits a device and what to take: on boards of every size, with models of known shapes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.errors import SprigError
from agent.fit.fit import FormEstimate, ModelForm, device_budget, fit
from agent.fit.profile import Figure, find_profile
from agent.models.memory import MemoryBudget, Processor, plan_load
from tests.fixtures.fake_engine import model_file

pytestmark = pytest.mark.usefixtures("home")

BITS = {"F16": 16, "Q8_0": 8.5, "Q6_K": 6.5625, "Q5_K": 5.5, "Q4_K": 4.5, "Q4_0": 4.5, "Q5_0": 5.5, "Q3_K": 3.4375}


def forms(weights: float, *kinds: str) -> list[ModelForm]:
    """A model of so many weights, 30 layers and a short cache in some types."""
    found = []
    for kind in kinds:
        size = int(weights * BITS[kind] / 8)
        facts = replace(
            model_file("", name="x"), size=size, weights=size, matrices={kind: size}, n_layer=30, n_embd=1024, n_ff=4096,
            n_head=16, n_vocab=50000, n_ctx_train=8192, cache_width=30 * 1024, query_width=30 * 1024,
        )  # fmt: skip
        found.append(ModelForm(kind, facts))
    return found


def chosen(weights: float, device: str, *kinds: str, context: int | None = None) -> FormEstimate | None:
    profile = find_profile(device)
    return fit(forms(weights, *kinds), profile, device_budget(profile, None), context).chosen


ALL = ("F16", "Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K")


@pytest.mark.parametrize(("weights", "device", "kind"), [
    (135e6, "pi5", "Q8_0"),  # a small model is quick enough in its best form; more than that is not worth its bytes
    (1.35e9, "pi5", "Q5_K"),  # 10 tokens a second decide
    (3.2e9, "pi5", "Q4_K"),  # too slow in every form, and three bits are too few
    (1.8e9, "pi5-2gb", "Q3_K"),  # nothing else has room
    (300e6, "pi4-1gb", "Q6_K"),
])  # fmt: skip
def test_the_best_quality_that_is_quick_enough_is_taken(weights: float, device: str, kind: str) -> None:
    found = chosen(weights, device, *ALL)
    assert found is not None
    assert found.recipe == kind


def test_types_that_the_processor_reads_slowly_are_left_out_where_others_are_quick() -> None:
    """A width that 256 does not divide turns Q4_K into Q5_0, which ARM does not repack."""
    on_pi5, on_pi4 = chosen(1.5e9, "pi5", "Q5_0", "Q4_0"), chosen(1.5e9, "pi4", "Q5_0", "Q4_0")
    assert on_pi5 is not None
    assert on_pi5.recipe == "Q4_0"
    profile = find_profile("pi5")
    slow = fit(forms(1.5e9, "Q5_0"), profile, device_budget(profile, None)).estimates[0]
    assert (slow.slow, slow.slow_types) == (1.0, ("Q5_0",))
    assert slow.hazard == "100% of it is Q5_0, slow to read here"
    # A Raspberry Pi 4 repacks nothing, so nothing is slower than the rest.
    assert on_pi4 is not None
    assert on_pi4.hazard == ""
    assert on_pi4.recipe == "Q4_0"  # the smaller is the faster


def test_on_a_pc_only_what_was_measured_to_be_slow_is_slow() -> None:
    """x86 repacks few types, and is as quick with most of the others."""
    pi5 = find_profile("pi5")
    rates = {"Q8_0": 24.0, "Q4_0": 30.0, "Q5_0": 16.0}
    figures = {kind: Figure(rate, "measured", "a test") for kind, rate in rates.items()}
    pc = replace(
        pi5, processor=Processor("x86_64", frozenset({"avx2"})),
        prefill=replace(pi5.prefill, types=figures, repacked=figures["Q4_0"], plain=figures["Q5_0"]),
    )  # fmt: skip
    found = fit(forms(135e6, "Q8_0", "Q5_0", "Q4_0"), pc, device_budget(pc, None))
    assert [one.slow for one in found.estimates] == [0, 1, 0]
    assert found.chosen is not None
    assert found.chosen.recipe == "Q8_0"


def test_what_is_planned_is_what_the_agent_would_load_there() -> None:
    profile = find_profile("pi5-2gb")
    budget = device_budget(profile, None)
    (one,) = fit(forms(1.2e9, "Q4_K"), profile, budget).estimates
    assert one.plan == plan_load(one.file, budget, processor=profile.processor)
    assert one.plan is not None
    assert one.plan.need.total <= budget.size == profile.budget
    assert one.plan.repack
    assert [row.context for row in one.contexts] == [1024, 2048, 4096, 8192]
    assert all(row.q8_0.cache < row.f16.cache for row in one.contexts)
    (old,) = fit(forms(1.2e9, "Q4_K"), find_profile("pi4"), budget).estimates
    assert old.plan is not None
    assert not old.plan.repack


def test_an_embedding_that_is_held_twice_counts_only_where_it_is_repacked() -> None:
    (form,) = forms(1e8, "Q4_0")
    tied = ModelForm("Q4_0", replace(form.file, tied={"Q4_0": 50_000_000}, weights=form.file.weights + 50_000_000))
    pi5, pi4 = (
        fit([tied], profile, device_budget(profile, None)).estimates[0].contexts[0].f16.weights
        for profile in (find_profile("pi5"), find_profile("pi4"))
    )
    assert pi5 - pi4 == 50_000_000


def test_a_model_that_fits_nowhere_is_told_with_the_smallest_need() -> None:
    profile = find_profile("zero2w")
    found = fit(forms(3e9, *ALL), profile, device_budget(profile, None))
    assert found.chosen is None
    assert found.why.startswith("none fits: the smallest, Q3_K, needs 1.3")
    assert "with a context of 1024" in found.why
    assert "267 MB may be taken" in found.why
    assert "\n" not in found.why


def test_a_context_that_is_asked_for_is_held_to() -> None:
    profile = find_profile("pi5-2gb")
    budget = device_budget(profile, None)
    found = fit(forms(1.2e9, "Q8_0", "Q4_K"), profile, budget, 8192)
    assert [one.plan is not None for one in found.estimates] == [False, True]
    assert [row.context for row in found.estimates[0].contexts] == [8192]
    with pytest.raises(SprigError, match="was trained for 8192 tokens of context, and 9000 were asked for"):
        fit(forms(1e8, "Q8_0"), profile, budget, 9000)


def test_more_memory_can_be_allowed() -> None:
    profile = find_profile("zero2w")
    assert device_budget(profile, 400_000_000) == MemoryBudget.of(400_000_000)
    assert "70 % of the 382 MB that its system leaves" in device_budget(profile, None).words


def test_an_embedding_model_is_refused() -> None:
    profile = find_profile("pi5")
    (form,) = forms(1e8, "Q8_0")
    with pytest.raises(SprigError, match="embedding model"):
        fit([ModelForm("Q8_0", replace(form.file, causal=False))], profile, device_budget(profile, None))
