"""The names of GGUFs on the Hub, as their makers write them: what each tells, and what a person means by a part of it."""

from __future__ import annotations

import pytest

from agent.models.selector import is_model, quantization, select, split_part, stem

NAMES = {
    "Qwen3-0.6B-Q8_0.gguf": "Q8_0",
    "qwen2.5-0.5b-instruct-q4_k_m.gguf": "Q4_K_M",
    "Qwen2.5-7B-Instruct-Q4_K_M-00001-of-00002.gguf": "Q4_K_M",
    "Llama-3.2-1B-Instruct.Q5_K_S.gguf": "Q5_K_S",
    "Qwen3-4B-UD-IQ2_XXS.gguf": "UD-IQ2_XXS",
    "SmolLM2-1.7B-Instruct-IQ4_NL.gguf": "IQ4_NL",
    "phi-2.Q4_0.gguf": "Q4_0",
    "gemma-3-1b-it-qat-q4_0.gguf": "Q4_0",
    "gpt-oss-20b-MXFP4.gguf": "MXFP4",
    "BF16/Qwen3-30B-A3B-BF16-00002-of-00002.gguf": "BF16",
    "stories15M-f32.gguf": "F32",
    "ggml-model-TQ2_0.gguf": "TQ2_0",
    "model.gguf": "",
    "Qwen2-VL.gguf": "",
}


@pytest.mark.parametrize("name", NAMES)
def test_a_name_tells_its_quantization(name: str) -> None:
    assert quantization(name) == NAMES[name]
    assert is_model(name)
    assert "/" not in stem(name)
    assert not stem(name).endswith((".gguf", "-of-00002"))


def test_what_lies_beside_models_is_none() -> None:
    for name in (
        "mmproj-F16.gguf",
        "x/mmproj-model-f16.gguf",
        "gemma-3-4b-it-mmproj.gguf",
        "imatrix.gguf",
        "a.md",
        "a.ggufx",
    ):
        assert not is_model(name)
    assert is_model("basil-Q4_K_M-imatrix.gguf")


def test_the_number_of_a_part() -> None:
    assert split_part("a/b-00002-of-00003.gguf") == ("a/b.gguf", 2, 3)
    assert split_part("b-2-of-3.gguf") is split_part("b.gguf") is None


@pytest.mark.parametrize(
    ("selector", "means"),
    [
        ("Q4_K_M", ["m-Q4_K_M.gguf"]),
        ("q4_k_m", ["m-Q4_K_M.gguf"]),
        ("UD-Q4_K_XL", ["m-UD-Q4_K_XL.gguf"]),
        ("Q4_0", ["m-Q4_0.gguf"]),
        ("Q4", ["m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf", "m-Q4_0.gguf", "m-Q4_0_4_4.gguf"]),
        ("m-Q4_0", ["m-Q4_0.gguf"]),
        ("q5_0", ["m_q5_0.gguf"]),
        ("m-q4_0.GGUF", ["m-Q4_0.gguf"]),
        ("Q8_0", ["Q8_0/m-00001-of-00002.gguf"]),
        ("Q8_0/m-00001-of-00002.gguf", ["Q8_0/m-00001-of-00002.gguf"]),
        ("K_M", []),
        ("4_0", []),
        (".*", []),
        ("", []),
    ],
)
def test_what_a_person_means(selector: str, means: list[str]) -> None:
    names = ["m-Q4_K_M.gguf", "m-UD-Q4_K_XL.gguf", "m-Q4_0.gguf", "m-Q4_0_4_4.gguf", "m_q5_0.gguf", "Q8_0/m-00001-of-00002.gguf"]
    assert select(names, selector, str) == means
