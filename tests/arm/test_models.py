"""The demo model on emulated ARM processors: it says what it says on this machine, and takes the memory that was planned."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from pipeline import quantize
from tests.arm.emulation import HOST, answer, needs_llama, python
from tests.fixtures import smollm2
from tests.fixtures.packed_models import SHAPES, packed_model
from tests.fixtures.shared import shared

pytestmark = [pytest.mark.arm, pytest.mark.timeout(1200), needs_llama]

# Prompts whose continuation is clear: the second best token is far behind, so that rounding does not choose.
CAT = "The cat sat on the mat, and the dog lay down beside the fire."
PROMPTS = {
    "Q4_0": f"Q: Say: {CAT}\nA: {CAT}\n\nQ: Say: {CAT}\nA:",
    "Q8_0": "1, 2, 3, 4, 5, 6, 7,",
    "Q4_K_M": "1, 2, 3, 4, 5, 6, 7,",
}
CLEAR = 1.5  # difference of the two best logits
# How far log-probabilities on the two processors may be apart: of the token that is written, and of all of the likeliest.
NEAR_BEST, NEAR = 0.1, 1.0
LIBRARIES = {
    "cortex-a72": "libggml-cpu-armv8.0_1.so",
    "cortex-a76": "libggml-cpu-armv8.2_2.so",
    "i8mm": "libggml-cpu-armv8.6_0.so",
}
RUNS = [("cortex-a72", "Q4_0"), ("cortex-a76", "Q4_0"), ("i8mm", "Q4_0"), ("cortex-a76", "Q8_0"), ("cortex-a76", "Q4_K_M")]


def demo(quantization: str) -> Path:
    """The demo model as a GGUF."""
    checkpoint = shared("arm-checkpoint", lambda folder: smollm2.rebuild(folder / "m")) / "m"
    return shared(f"arm-{quantization}", lambda folder: quantize(str(checkpoint), quantization, folder / "m.gguf")) / "m.gguf"


def words(processor: str, quantization: str) -> Any:
    """What tests.arm.read_model finds on a processor; found out once."""

    def find(folder: Path) -> None:
        job = json.dumps(["words", {"path": str(demo(quantization)), "prompt": PROMPTS[quantization]}])
        (folder / "found.json").write_text(python(processor, "-m", "tests.arm.read_model", job, home=folder))

    return json.loads((shared(f"arm-{processor}-{quantization}", find) / "found.json").read_text())


@pytest.mark.parametrize(("processor", "quantization"), RUNS)
def test_sixteen_tokens_are_those_of_this_machine(processor: str, quantization: str) -> None:
    here, there = words(HOST, quantization), words(processor, quantization)
    for step in here["steps"]:
        best, second, *_ = step.values()
        assert best - second > CLEAR
    assert there["machine"] == "aarch64"
    assert there["tokens"] == here["tokens"]
    assert len(there["tokens"]) == 16
    for token, mine, theirs in zip(map(str, here["tokens"]), here["steps"], there["steps"], strict=True):
        apart = {one: abs(mine[one] - theirs[one]) for one in mine.keys() & theirs.keys()}
        assert len(apart) >= len(mine) - 4  # the last of the likeliest change places
        assert apart[token] < NEAR_BEST
        assert max(apart.values()) < NEAR


@pytest.mark.parametrize(("processor", "quantization"), RUNS)
def test_the_library_is_that_of_the_processor_and_takes_the_memory_that_was_planned(processor: str, quantization: str) -> None:
    there = words(processor, quantization)
    assert there["libraries"] == [LIBRARIES[processor]]
    assert there["repack"] == (processor != "cortex-a72")
    near(there)


def near(found: Any) -> None:
    """The plan is what ggml says of its buffers."""
    planned, buffers = found["planned"], found["buffers"]
    assert planned["weights"] == pytest.approx(buffers["weights"], rel=0.01)
    assert planned["cache"] == pytest.approx(buffers["cache"], rel=0.01)
    assert sum(planned.values()) == pytest.approx(sum(buffers.values()), rel=0.05)


@pytest.mark.parametrize("processor", ["cortex-a72", "cortex-a76"])
def test_models_of_other_shapes_take_what_was_planned(processor: str, tmp_path: Path) -> None:
    """Tied and untied, of types that ARM repacks and x86 does not, without and with packed kernels."""
    loads = []
    for shape, quantization in itertools.product(SHAPES, ("Q4_0", "Q8_0", "Q4_K_M")):
        if quantization == "Q4_K_M" and SHAPES[shape].width % 256:
            continue  # its rows are no whole number of blocks
        path = packed_model(tmp_path / f"{shape}-{quantization}", SHAPES[shape], quantization)
        loads += [{"path": str(path), "context": n, "cache": cache} for n, cache in ((1024, "f16"), (8192, "q8_0"))]
    for found in answer(processor, "-m", "tests.arm.read_model", json.dumps(["memory", loads]), home=tmp_path):
        near(found)
