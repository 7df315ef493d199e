"""The memory that a model is said to need, against what its process really takes; and the context that is chosen by it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.engine.handle import EndStep, Engine
from agent.engine.sampling import Sampling
from agent.errors import SprigError
from agent.gguf.types import ARM_REPACKED
from agent.models.file import ModelFile, read_model
from agent.models.memory import LEAST_CONTEXT, STEP, USUAL_CONTEXT, Cache, MemoryBudget, need, plan_load
from pipeline import quantize
from tests.fixtures.fake_engine import model_file
from tests.fixtures.generated import runs
from tests.fixtures.ggml_buffers import ggml_buffers
from tests.fixtures.packed_models import SHAPES, packed_model
from tests.fixtures.random_llama import LlamaShape, write_checkpoint

CACHES: tuple[Cache, ...] = ("f16", "q8_0")
GREEDY = Sampling(temperature=0, seed=1)
SMALL = replace(
    model_file(""), weights=90_000_000, n_vocab=49152, n_embd=576, n_ff=1536, n_head=9, n_ctx_train=8192,
    cache_width=2 * 3 * 64 * 30,
)  # fmt: skip


def budget(size: int) -> MemoryBudget:
    return MemoryBudget(size, "so much may be taken")


def chosen(file: ModelFile, wanted: int | None, available: int, *, sequences: int = 4, cache: Cache | None = "f16") -> int:
    plan = plan_load(file, budget(available), context=wanted, cache=cache, sequences=sequences)
    assert plan.need == need(file, context=plan.context, sequences=sequences, batch=256, cache=plan.cache)
    assert plan.need.total <= available
    return plan.context


def test_the_usual_context_where_it_fits() -> None:
    assert chosen(SMALL, None, 10**10) == USUAL_CONTEXT
    assert chosen(replace(SMALL, n_ctx_train=2000), None, 10**10) == 2048
    assert chosen(SMALL, 3000, 10**10) == 3072


@settings(max_examples=runs(200), deadline=None, derandomize=True)
@given(
    available=st.integers(10**6, 2 * 10**9), more=st.integers(0, 10**9), sequences=st.integers(1, 8),
    cache=st.sampled_from(CACHES), window=st.sampled_from([0, 512]), state=st.sampled_from([0, 10**6]),
)  # fmt: skip
def test_it_never_takes_more_than_there_is_and_grows_with_it(
    available: int, more: int, sequences: int, cache: Cache, window: int, state: int
) -> None:
    file = replace(SMALL, window=window, window_width=1000 if window else 0, state=state)
    try:
        context = chosen(file, None, available, sequences=sequences, cache=cache)
    except SprigError as error:
        assert "\n" not in str(error)  # noqa: PT017
        least = need(file, context=LEAST_CONTEXT, sequences=sequences, batch=256, cache=cache)
        assert least.total * 1.05 > available
        return
    assert context % STEP == 0
    assert LEAST_CONTEXT <= context <= USUAL_CONTEXT
    assert chosen(file, None, available + more, sequences=sequences, cache=cache) >= context
    assert chosen(file, context, available, sequences=sequences, cache=cache) == context


@settings(max_examples=runs(100), deadline=None, derandomize=True)
@given(a=st.integers(1, 32), b=st.integers(1, 32), cache=st.sampled_from(CACHES))
def test_a_longer_context_needs_more(a: int, b: int, cache: Cache) -> None:
    short, long = (need(SMALL, context=n * STEP, sequences=2, batch=128, cache=cache) for n in sorted((a, b)))
    assert short.total <= long.total
    assert short.weights == long.weights


def test_a_quantized_cache_needs_half() -> None:
    wide, narrow = (plan_load(SMALL, budget(10**10), context=4096, cache=cache).need.cache for cache in CACHES)
    assert narrow / wide == pytest.approx(17 / 32)


def test_a_refusal_names_a_context_that_fits() -> None:
    with pytest.raises(SprigError, match=r"a context of \d+ would fit") as error:
        plan_load(SMALL, budget(300_000_000), context=8192, cache="f16")
    fitting = int(str(error.value).split("; a context of ")[1].split()[0])
    assert chosen(SMALL, fitting, 300_000_000) == fitting


def test_a_quantized_cache_is_taken_before_the_context_gets_short() -> None:
    def planned(size: int) -> tuple[int, str]:
        plan = plan_load(SMALL, budget(size))
        return plan.context, plan.cache

    enough = need(SMALL, context=4096, sequences=4, batch=256, cache="f16").total * 21 // 20 + 1
    assert planned(10**10) == (8192, "f16")
    assert planned(enough) == (4096, "f16")
    assert planned(enough - 10**6) > (4096, "q8_0")
    assert planned(170_000_000)[1] == "q8_0"
    assert planned(170_000_000)[0] < 4096


def test_a_tied_embedding_that_is_repacked_counts_twice_and_only_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Q4_0 of SmolLM2: 114.5 MiB on a Cortex-A76, 85.8 on a Cortex-A72 that has no packed kernels."""
    file = replace(SMALL, matrices={"Q4_0": 60_000_000}, tied={"Q8_0": 30_000_000})
    for types, repack, weights in ((ARM_REPACKED, True, 120_000_000), ({"Q4_0"}, True, 90_000_000), (set(), False, 90_000_000)):
        monkeypatch.setattr("agent.models.memory.repacked_types", lambda types=types: frozenset(types))
        plan = plan_load(file, budget(10**10))
        assert (plan.repack, plan.need.weights) == (repack, weights)
    monkeypatch.setattr("agent.models.memory.repacked_types", lambda: ARM_REPACKED)
    tight = plan_load(file, budget(plan_load(file, budget(10**10)).need.total))  # no room for what is held twice
    assert (tight.repack, tight.context) == (False, 8192)


def test_seven_tenths_of_what_is_free_are_planned_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.models.memory.available_memory", lambda: 10**9)
    assert MemoryBudget.of(None) == MemoryBudget(
        7 * 10**8, "700 MB may be taken, 70 % of what is free (the option memory allows more)"
    )
    assert MemoryBudget.of(5) == MemoryBudget(5, "5 bytes may be taken")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide as SmolLM2-135M, with fewer layers and words and a wider cache, so that a context is large and full in a second."""
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder / "checkpoint", LlamaShape(576, 576, 2, 9, 9, 8192, tied=True))
    config = folder / "checkpoint" / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 512', '"max_position_embeddings": 8192'))
    return quantize(str(folder / "checkpoint"), "Q8_0", folder / "m.gguf").path


@pytest.mark.slow
@pytest.mark.parametrize(("context", "cache"), [(512, "f16"), (1024, "f16"), (1024, "q8_0")])
def test_what_is_said_is_what_is_taken(
    model: Path, context: int, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    with Engine(model, context=context, cache=cache, repack=False, threads=2, conversations=1, keep_prefix=False) as engine:
        assert engine.wait().resident <= engine.need.total * 1.25
        tokens = list(itertools.islice(itertools.cycle(range(3, 300)), context - 8))
        *_, end = engine.generate("a", tokens, sampling=GREEDY, max_tokens=4)  # every page is touched now
    assert isinstance(end, EndStep)
    assert end.resident == pytest.approx(engine.need.total, rel=0.25)


WAYS = [
    {"context": context, "cache": cache, "flash": flash, "repack": repack}
    for context in (1024, 8192)
    for cache, flash in (("f16", True), ("f16", False), ("q8_0", True))
    for repack in (True, False)
]


@pytest.fixture(scope="module", params=SHAPES)
def packed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, float]]]:
    """A model, and what ggml says of its buffers for each of the ways."""
    path = packed_model(tmp_path_factory.mktemp("packed"), SHAPES[request.param])
    return path, ggml_buffers(path, WAYS)


@pytest.mark.parametrize("number", range(len(WAYS)), ids=lambda number: "-".join(map(str, WAYS[number].values())))
def test_the_estimate_is_what_ggml_says_of_its_buffers(
    packed: tuple[Path, list[dict[str, float]]], number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, way, said = packed[0], dict(WAYS[number]), packed[1][number]
    flash = way.pop("flash")
    monkeypatch.setattr("agent.models.memory.flash_attention", lambda cache: flash)
    plan = plan_load(read_model(path), budget(10**10), **way)
    assert plan.need.weights == pytest.approx(said["weights"], rel=0.01)
    assert plan.need.cache == pytest.approx(said["cache"], rel=0.01)
    assert plan.need.total - plan.need.process == pytest.approx(sum(said.values()), rel=0.05)
