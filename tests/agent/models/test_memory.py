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
from agent.models.file import ModelFile
from agent.models.memory import LEAST_CONTEXT, STEP, USUAL_CONTEXT, choose_context, need
from pipeline import quantize
from tests.fixtures.fake_engine import model_file
from tests.fixtures.generated import runs
from tests.fixtures.random_llama import LlamaShape, write_checkpoint

GREEDY = Sampling(temperature=0, seed=1)
SMALL = replace(
    model_file(""), weights=90_000_000, n_vocab=49152, n_embd=576, n_ff=1536, n_head=9, n_ctx_train=8192,
    cache_width=2 * 3 * 64 * 30,
)  # fmt: skip


def chosen(
    file: ModelFile, wanted: int | None, available: int, *, sequences: int = 4, batch: int = 256, cache: str = "f16"
) -> int:
    context, found = choose_context(file, wanted, available, sequences=sequences, batch=batch, cache=cache)
    assert found == need(file, context=context, sequences=sequences, batch=batch, cache=cache)
    assert found.total <= available
    return context


def test_the_usual_context_where_it_fits() -> None:
    assert chosen(SMALL, None, 10**10) == USUAL_CONTEXT
    assert chosen(replace(SMALL, n_ctx_train=2000), None, 10**10) == 2048
    assert chosen(SMALL, 3000, 10**10) == 3072


@settings(max_examples=runs(200), deadline=None, derandomize=True)
@given(
    available=st.integers(10**6, 2 * 10**9), more=st.integers(0, 10**9), sequences=st.integers(1, 8),
    cache=st.sampled_from(["f16", "q8_0"]), window=st.sampled_from([0, 512]), state=st.sampled_from([0, 10**6]),
)  # fmt: skip
def test_it_never_takes_more_than_there_is_and_grows_with_it(
    available: int, more: int, sequences: int, cache: str, window: int, state: int
) -> None:
    file = replace(SMALL, window=window, window_width=1000 if window else 0, state=state)
    try:
        context = chosen(file, None, available, sequences=sequences, cache=cache)
    except SprigError as error:
        assert "\n" not in str(error)  # noqa: PT017
        least = need(file, context=LEAST_CONTEXT, sequences=sequences, batch=256, cache=cache)
        assert least.total * 1.1 > available
        return
    assert context % STEP == 0
    assert LEAST_CONTEXT <= context <= USUAL_CONTEXT
    assert chosen(file, None, available + more, sequences=sequences, cache=cache) >= context
    assert chosen(file, context, available, sequences=sequences, cache=cache) == context


@settings(max_examples=runs(100), deadline=None, derandomize=True)
@given(a=st.integers(1, 32), b=st.integers(1, 32), cache=st.sampled_from(["f16", "q8_0"]))
def test_a_longer_context_needs_more(a: int, b: int, cache: str) -> None:
    short, long = (need(SMALL, context=n * STEP, sequences=2, batch=128, cache=cache) for n in sorted((a, b)))
    assert short.total <= long.total
    assert short.weights == long.weights


def test_a_quantized_cache_needs_half() -> None:
    wide, narrow = (need(SMALL, context=4096, sequences=1, batch=128, cache=cache).cache for cache in ("f16", "q8_0"))
    assert narrow / wide == pytest.approx(17 / 32)


def test_a_refusal_names_a_context_that_fits() -> None:
    with pytest.raises(SprigError, match=r"a context of \d+ would fit") as error:
        choose_context(SMALL, 8192, 300_000_000, sequences=4, batch=256, cache="f16")
    fitting = int(str(error.value).split("context=")[1].split()[0])
    assert chosen(SMALL, fitting, 300_000_000) == fitting


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As wide as SmolLM2-135M, with fewer layers and words and a wider cache, so that a context is large and full in a second."""
    folder = tmp_path_factory.mktemp("model")
    write_checkpoint(folder / "checkpoint", LlamaShape(576, 576, 2, 9, 9, 8192, tied=True))
    config = folder / "checkpoint" / "config.json"
    config.write_text(config.read_text().replace('"max_position_embeddings": 512', '"max_position_embeddings": 8192'))
    return quantize(str(folder / "checkpoint"), "Q8_0", folder / "m.gguf").path


@pytest.mark.parametrize(("context", "cache"), [(512, "f16"), (1024, "f16"), (1024, "q8_0")])
def test_what_is_said_is_what_is_taken(
    model: Path, context: int, cache: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPRIG_HOME", str(tmp_path))
    with Engine(model, context=context, cache=cache, repack=False, threads=2, conversations=1, keep_prefix=False) as engine:
        assert engine.wait().resident <= engine.need.total * 1.25
        tokens = list(itertools.islice(itertools.cycle(range(3, 300)), context - 8))
        *_, end = engine.generate("a", tokens, sampling=GREEDY, max_tokens=4)  # every page is touched now
    assert isinstance(end, EndStep)
    assert end.resident == pytest.approx(engine.need.total, rel=0.25)
