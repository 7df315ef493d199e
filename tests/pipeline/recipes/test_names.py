"""What people call a recipe or a type, and which one they get."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.errors import RecipeError
from pipeline.recipes.names import RECIPES, find_recipe, find_type, taken_note, wanted_recipe


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("Q4_K_M", "Q4_K_M"), ("q4_k_m", "Q4_K_M"), ("q4-k-m", "Q4_K_M"), (" iq4-nl ", "IQ4_NL"), ("bf16", "BF16"),
    ],
)  # fmt: skip
def test_the_own_name_in_any_writing_needs_no_word(name: str, recipe: str) -> None:
    assert find_recipe(name).name == recipe
    assert taken_note(name) is None


@pytest.mark.parametrize(
    ("name", "recipe"),
    [
        ("Q4_K", "Q4_K_M"), ("q5_k", "Q5_K_M"), ("Q3_K", "Q3_K_M"), ("q4", "Q4_K_M"), ("int4", "Q4_K_M"), ("4bit", "Q4_K_M"),
        ("4-bit", "Q4_K_M"), ("4 bits", "Q4_K_M"), ("q6", "Q6_K"), ("q8", "Q8_0"), ("int8", "Q8_0"), ("8bit", "Q8_0"),
        ("fp16", "F16"), ("half", "F16"), ("float16", "F16"), ("bfloat16", "BF16"), ("fp32", "F32"), ("float32", "F32"),
        ("q2", "Q2_K"), ("3-bit", "Q3_K_M"), ("INT5", "Q5_K_M"),
    ],
)  # fmt: skip
def test_what_people_say_is_taken_with_a_word(name: str, recipe: str) -> None:
    assert find_recipe(name).name == recipe
    assert taken_note(name) == f"{name!r} was taken as {recipe}"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("Q4_KM", "did you mean Q4_K_M?"), ("q4_k_l", "did you mean"), ("IQ4", "did you mean IQ4_"),
        ("Q40", "did you mean Q4_0?"),
        ("", "choose one of F32, "), ("awq", "choose one of"), ("7bit", "choose one of"), ("4", "choose one of"),
    ],
)  # fmt: skip
def test_a_wrong_name_gets_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(f"{name!r} is not a recipe; {hint}")):
        find_recipe(name)


def test_types_are_read_alike() -> None:
    assert find_type("q4_k", "--output-type").name == "Q4_K"
    assert find_type("q8", "--output-type").name == "Q8_0"
    assert find_type("int4", "--output-type").name == "Q4_K"
    assert find_type("iq2-xxs", "--output-type").name == "IQ2_XXS"
    with pytest.raises(RecipeError, match=r"--output-type: 'Q4_K_M' is not a type that can be written; did you mean Q4_K\?"):
        find_type("Q4_K_M", "--output-type")


def test_every_recipe_has_a_number_and_a_base() -> None:
    assert len({recipe.ftype for recipe in RECIPES.values()}) == len(RECIPES)
    bases = {
        name: RECIPES[name].base.name for name in ("Q2_K_S", "Q3_K_L", "IQ3_M", "IQ3_XS", "IQ3_XXS", "IQ2_M", "IQ2_S", "IQ2_XS")
    }
    assert bases == {
        "Q2_K_S": "Q2_K", "Q3_K_L": "Q3_K", "IQ3_M": "IQ3_S", "IQ3_XS": "IQ3_S", "IQ3_XXS": "IQ3_XXS",
        "IQ2_M": "IQ2_S", "IQ2_S": "IQ2_XS", "IQ2_XS": "IQ2_XS",
    }  # fmt: skip


def test_a_recipe_may_stand_behind_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert wanted_recipe("org/name:q8", None) == "q8"
    assert wanted_recipe("org/name", "q8") == "q8"
    assert wanted_recipe("org/name:q8", "Q8_0") == "Q8_0"
    with pytest.raises(RecipeError, match="two recipes are named, 'q8' behind the model and 'Q4_0'; leave one out"):
        wanted_recipe("org/name:q8", "Q4_0")
    assert wanted_recipe("https://huggingface.co/org/name/blob/main/model.safetensors", None) is None
    with pytest.raises(RecipeError, match=r"`sprig pull 'org/name:a b.gguf'` brings it as it is"):
        wanted_recipe("org/name:a b.gguf", None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "exp:1").mkdir(parents=True)
    assert wanted_recipe("runs/exp:1", None) is None
