"""The table of rules: well formed, and right also for the models that are too large or too old to be quantized in a test."""

from __future__ import annotations

from collections import Counter

import pytest

from agent.gguf.types import BF16, TYPES_BY_NAME
from pipeline.recipes.mixtures import Weight, choose_types
from pipeline.recipes.names import RECIPES
from pipeline.recipes.rules import CONDITIONS, ROLES, RULES, ModelFacts, role_of


def test_every_line_speaks_of_recipes_conditions_and_types_that_there_are() -> None:
    for recipes, role, conditions, kind in RULES:
        assert recipes == "*" or set(recipes.split()) <= RECIPES.keys()
        assert role in {role for _, role in ROLES} | {"head", "embedding"}
        assert set(conditions) <= CONDITIONS.keys()
        assert kind in TYPES_BY_NAME
    assert {condition for line in RULES for condition in line[2]} == CONDITIONS.keys()


def types_of(recipe: str, facts: ModelFacts, *parts: str, has_imatrix: bool = False) -> dict[str, Counter[str]]:
    """Role -> how many tensors of it get which type, in a model of ``facts.n_layers`` layers with these parts."""
    names = ["token_embd", "output", *(f"blk.{i}.{part}" for i in range(facts.n_layers) for part in parts)]
    weights = [Weight(f"{name}.weight", (256, 256), BF16) for name in names]
    found: dict[str, Counter[str]] = {}
    for name, choice in choose_types(weights, RECIPES[recipe], facts, has_imatrix=has_imatrix).items():
        found.setdefault(role_of(name), Counter())[choice.type.name] += 1
    return found


@pytest.mark.parametrize(
    ("recipe", "counts"),
    [
        ("Q4_K_M", {"Q6_K": 40, "Q5_K": 40}),
        ("Q4_K_S", {"Q5_K": 80}),
        ("Q3_K_M", {"Q5_K": 80}),
        ("Q5_K_M", {"Q6_K": 40, "Q5_K": 40}),
        ("Q4_0", {"Q4_0": 80}),
    ],
)
def test_a_70b_keeps_more_of_its_values(recipe: str, counts: dict[str, int]) -> None:
    for facts in (ModelFacts("llama", 80, 64, 8), ModelFacts("qwen2", 80, 64, 64)):
        assert types_of(recipe, facts, "attn_v")["attn_v"] == counts
    other = types_of(recipe, ModelFacts("llama", 80, 64, 64), "attn_v")["attn_v"]
    assert (other == counts) == (recipe in ("Q5_K_M", "Q4_0"))


def test_falcon_has_rules_of_its_own() -> None:
    falcon, llama = (ModelFacts(name, 32, 64, 8) for name in ("falcon", "llama"))
    assert types_of("Q4_K_M", falcon)["head"] == {"Q8_0": 1}
    assert types_of("Q4_K_M", llama)["head"] == {"Q6_K": 1}
    assert types_of("Q4_K_M", falcon, "ffn_down")["ffn_down"] == {"Q6_K": 2, "Q5_K": 14, "Q4_K": 16}
    assert types_of("Q4_K_M", llama, "ffn_down")["ffn_down"] == {"Q6_K": 16, "Q4_K": 16}
    assert types_of("Q4_K_S", falcon, "ffn_down")["ffn_down"] == {"Q4_K": 32}
    assert types_of("Q4_K_S", llama, "ffn_down")["ffn_down"] == {"Q5_K": 4, "Q4_K": 28}
    assert types_of("Q3_K_M", falcon, "attn_output", "ffn_down") == {
        "embedding": {"Q3_K": 1}, "head": {"Q8_0": 1}, "attn_output": {"Q3_K": 32},
        "ffn_down": {"Q5_K": 2, "Q4_K": 14, "Q3_K": 16},
    }  # fmt: skip


def test_an_imatrix_changes_what_the_first_layers_need() -> None:
    facts = ModelFacts("llama", 32, 32, 32)
    assert types_of("Q4_0", facts, "ffn_down", has_imatrix=True)["ffn_down"] == {"Q4_1": 4, "Q4_0": 28}
    assert types_of("IQ4_XS", facts, "ffn_down")["ffn_down"] == {"Q5_K": 4, "IQ4_XS": 28}
    assert types_of("IQ4_XS", facts, "ffn_down", has_imatrix=True)["ffn_down"] == {"IQ4_XS": 32}
