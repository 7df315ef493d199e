"""The speed that is predicted, against figures that others have published and against what must be so."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.fit.profile import DeviceProfile, Figure, find_profile
from agent.fit.speed import bytes_per_token, decode_seconds, predict, prefill_seconds
from agent.models.file import ModelFile
from tests.fixtures.fake_engine import model_file
from tests.fixtures.generated import runs

# llama.cpp issue 26484, 2026-08-03: one model of 24 layers in five quantizations on a Raspberry Pi 5, 4 threads, 256 tokens: GB
# of the file, tokens a second. The embedding is the output too, so all of the file is read for each token.
PI5 = {
    "Q2_K": (0.339, 30.39),
    "Q3_K_M": (0.355, 28.39),
    "Q4_K_M": (0.398, 25.77),
    "Q5_K_M": (0.420, 23.23),
    "Q8_0": (0.531, 19.87),
}
LAYERS = 24
# Of the same board, not used for its profile's bandwidth: layers, GB, tokens a second, and where.
PI5_OTHERS = {
    "LFM2 350M Q5_K, llama.cpp 19356": (16, 0.260, 43.0),
    "LFM2 700M Q5_K, llama.cpp 19356": (16, 0.530, 21.33),
    "LFM2 350M Q6_K, llama.cpp 19360": (16, 0.293, 38.51),
    "LFM2 700M Q6_K, llama.cpp 19360": (16, 0.610, 17.83),
    "Llama 3.2 3B Q4_K_M, ai-benchmarks 7": (28, 2.02, 4.88),
}
# Weights that a prompt goes through, and tokens a second with 512 of them (the same two pull requests).
PI5_PROMPTS = {"Q5_K": ((287e6, 187.35), (642e6, 89.73)), "Q6_K": ((287e6, 224.06), (642e6, 105.82))}
BITS = {"Q5_K": 5.5, "Q6_K": 6.5625}


def file(layers: int, size: float, kind: str = "Q4_K", **more: object) -> ModelFile:
    """A model whose weights are all of one type and all read for each token."""
    facts = {"n_layer": layers, "matrices": {kind: int(size)}, "cache_width": 0, "query_width": 0, **more}
    return replace(model_file(""), **facts)


def device(layer: float, bandwidth: float) -> DeviceProfile:
    """A Raspberry Pi 5 with other figures for writing: milliseconds and GB/s."""
    pi5 = find_profile("pi5")
    decode = replace(
        pi5.decode, layer=Figure(layer, "derived", "a test"), bandwidth=Figure(bandwidth, "derived", "a test"), types={}
    )
    return replace(pi5, decode=decode)


def rate(layers: int, gigabytes: float, device: DeviceProfile) -> float:
    return 1 / decode_seconds(file(layers, gigabytes * 1e9), device, depth=0)


def test_two_points_of_a_published_table_predict_the_three_between_them() -> None:
    (small, quick), (large, slow) = PI5["Q2_K"], PI5["Q8_0"]
    bandwidth = (large - small) / (1 / slow - 1 / quick)
    fixed = 1 / quick - small / bandwidth
    found = device(1e3 * fixed / LAYERS, bandwidth)
    for name in ("Q3_K_M", "Q4_K_M", "Q5_K_M"):
        size, measured = PI5[name]
        assert rate(LAYERS, size, found) == pytest.approx(measured, rel=0.08), name
    # They are the figures of the profile.
    pi5 = find_profile("pi5").decode
    assert pi5.bandwidth.value == pytest.approx(bandwidth, rel=0.01)
    assert pi5.layer.value == pytest.approx(1e3 * fixed / LAYERS, abs=0.005)


@pytest.mark.parametrize("name", PI5_OTHERS)
def test_the_raspberry_pi_5_writes_other_models_as_its_profile_says(name: str) -> None:
    layers, size, measured = PI5_OTHERS[name]
    pi5 = find_profile("pi5")
    assert rate(layers, size, pi5) == pytest.approx(measured, rel=pi5.decode.error / 100), name


@pytest.mark.parametrize("kind", PI5_PROMPTS)
def test_the_raspberry_pi_5_reads_prompts_as_its_profile_says(kind: str) -> None:
    pi5 = find_profile("pi5")
    for weights, measured in PI5_PROMPTS[kind]:
        model = file(16, weights * BITS[kind] / 8, kind)
        assert 1 / prefill_seconds(model, pi5, prompt=512) == pytest.approx(measured, rel=0.1), (kind, weights)


def test_bytes_over_bandwidth_alone_promise_a_small_model_far_too_much() -> None:
    pi4 = find_profile("pi4")
    smollm = file(30, 90e6, "Q4_0")
    bare = pi4.decode.bandwidth.value * 1e9 / 90e6
    assert bare / predict(smollm, pi4, context=1024).writes > 1.25


def test_only_the_experts_that_are_used_are_read() -> None:
    moe = file(10, 1000, "Q4_K", experts={"Q4_K": 800}, expert_share=1 / 8)
    assert bytes_per_token(moe) == {"Q4_K": 300}
    assert bytes_per_token(file(10, 1000, "Q4_K", tied={"Q6_K": 50})) == {"Q4_K": 1000, "Q6_K": 50}


def test_the_output_is_not_computed_for_the_tokens_of_a_prompt() -> None:
    pi5 = find_profile("pi5")
    plain = file(10, 100e6, "Q8_0")
    tied = replace(plain, tied={"Q8_0": 900_000_000}, head={"Q8_0": 900_000_000})
    assert prefill_seconds(tied, pi5, prompt=512) == prefill_seconds(plain, pi5, prompt=512)
    assert decode_seconds(tied, pi5, depth=0) > 5 * decode_seconds(plain, pi5, depth=0)


def test_types_that_are_not_repacked_are_read_slowly_and_so_is_what_is_not_held_repacked() -> None:
    pi5 = find_profile("pi5")
    packed, plain = (prefill_seconds(file(1, size, kind), pi5, prompt=1) for size, kind in ((144e6, "Q4_K"), (176e6, "Q5_0")))
    assert plain > 2 * packed
    assert prefill_seconds(file(1, 144e6, "Q4_K"), pi5, prompt=1, repack=False) > 2 * packed


@settings(max_examples=runs(100), deadline=None, derandomize=True)
@given(
    depths=st.lists(st.integers(0, 32768), min_size=2, max_size=2), layers=st.integers(1, 80), size=st.integers(10**6, 10**10),
    window=st.sampled_from([0, 512]), name=st.sampled_from(["pi4", "pi5", "zero2w", "pixel-9"]),
)  # fmt: skip
def test_more_context_and_more_bytes_never_make_it_faster(
    depths: list[int], layers: int, size: int, window: int, name: str
) -> None:
    model = file(layers, size, "Q4_K", cache_width=64 * layers, window=window, window_width=64 if window else 0, query_width=100)
    near, far = sorted(depths)
    profile = find_profile(name)
    assert 0 < decode_seconds(model, profile, depth=near) <= decode_seconds(model, profile, depth=far)
    assert decode_seconds(model, profile, depth=far, cache="q8_0") <= decode_seconds(model, profile, depth=far)
    assert 0 < prefill_seconds(model, profile, prompt=near + 1) <= prefill_seconds(model, profile, prompt=far + 1)
    larger = replace(model, matrices={"Q4_K": 2 * size})
    for seconds in (decode_seconds(larger, profile, depth=0) - decode_seconds(model, profile, depth=0),
                    prefill_seconds(larger, profile, prompt=9) - prefill_seconds(model, profile, prompt=9)):  # fmt: skip
        assert seconds > 0


def test_every_pair_of_a_table_that_lies_apart_gives_a_bandwidth_near_the_others() -> None:
    """The table's own noise: its two ends are the pair to take, neighbours are not."""
    far = [(a, b) for a, b in itertools.combinations(PI5.values(), 2) if b[0] - a[0] > 0.12]
    assert all(10 < (b[0] - a[0]) / (1 / b[1] - 1 / a[1]) < 13 for a, b in far)
