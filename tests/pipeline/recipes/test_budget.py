"""Which types a budget may choose from."""

from __future__ import annotations

import pytest

from agent.fit.profile import find_profile
from pipeline.fit import fast_types
from pipeline.recipes.budget import FAST, candidates
from tests.fixtures.public_models import MODELS


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("device", [None, "pi5", "pi4"])
def test_iq4_nl_is_a_candidate_wherever_q4_0_is(device: str | None) -> None:
    """It has the same size and loses less, on every width and with or without an importance matrix."""
    types = fast_types(find_profile(device)) if device else FAST
    for model in MODELS:
        weights = list(model.weights())
        for measured in ([], [weight.name for weight in weights]):
            for kinds in candidates(weights, types, measured=measured).values():
                names = {kind.name for kind in kinds}
                assert ("Q4_0" in names) == ("IQ4_NL" in names)
