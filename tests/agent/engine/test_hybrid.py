"""Models that cannot forget a part of what they read: recurrent layers, gated delta nets, sliding windows.

Going back must give the same words as a fresh start, and still cost less; tiny checkpoints of three such families, made by the
real pipeline, in the real engine.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.engine.handle import EndStep, Engine, TextStep
from agent.engine.sampling import Sampling
from pipeline import quantize
from tests.fixtures.checkpoints import save
from tests.fixtures.shared import shared
from tests.fixtures.tokenizers import make_tokenizer

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("home")]

GREEDY = Sampling(temperature=0, seed=1)
PREFIX = [int(t) for t in np.random.default_rng(4).integers(3, 512, 90)]
QUESTION = [int(t) for t in np.random.default_rng(5).integers(3, 512, 40)]


@pytest.fixture(scope="module", params=["lfm2", "qwen3.5", "gemma3"])
def model(request: pytest.FixtureRequest) -> Path:
    def make(folder: Path) -> None:
        pytest.importorskip("transformers")
        save(request.param, folder / "checkpoint")
        make_tokenizer("smollm2", folder / "checkpoint", 512)
        quantize(str(folder / "checkpoint"), "F32", folder / "out.gguf", threads=1)

    return shared(f"hybrid-{request.param}", make) / "out.gguf"


@pytest.fixture
def engine(model: Path) -> Iterator[Engine]:
    with Engine(model, context=512, threads=1, batch=64) as made:
        yield made


def answer(engine: Engine, conversation: str, tokens: list[int], *, prefix: int = len(PREFIX)) -> tuple[list[int], EndStep]:
    ids: list[int] = []
    end = None
    for step in engine.generate(conversation, tokens, sampling=GREEDY, max_tokens=16, prefix=prefix):
        if isinstance(step, TextStep):
            ids += step.ids
        elif isinstance(step, EndStep):
            end = step
    assert end is not None
    return ids, end


def cached(end: EndStep) -> int:
    return int(end.timing["cached_tokens"])


def test_a_second_turn_computes_only_what_is_new(engine: Engine) -> None:
    first = [*PREFIX, *QUESTION]
    said, _ = answer(engine, "a", first)
    longer = [*first, *said, 30, 31, 32, 33]
    again, end = answer(engine, "a", longer)
    assert cached(end) >= len(first) + max(0, len(said) - 1)
    fresh, start = answer(engine, "fresh", longer, prefix=0)
    assert cached(start) <= len(longer)
    engine.forget("a")
    engine.forget("fresh")
    assert again == answer(engine, "alone", longer, prefix=0)[0] == fresh


def test_going_back_says_what_a_fresh_start_says_and_costs_less(engine: Engine, model: Path) -> None:
    said, _ = answer(engine, "a", [*PREFIX, *QUESTION])
    answer(engine, "a", [*PREFIX, *QUESTION, *said, 40, 41, 42])
    edited = [*PREFIX, *QUESTION[:20], 7, 8, 9]
    got, end = answer(engine, "a", edited)
    assert cached(end) >= len(PREFIX), "the fixed prefix, at least, is there to go back to"
    again, _ = answer(engine, "a", [*PREFIX, *QUESTION])
    assert again == said
    with Engine(model, context=512, threads=1, batch=64, keep_prefix=False) as other:
        assert answer(other, "b", edited, prefix=0)[0] == got


def test_the_fixed_prefix_comes_from_disk(model: Path, home: Path) -> None:
    with Engine(model, context=512, threads=1, batch=64) as engine:
        said, first = answer(engine, "a", [*PREFIX, *QUESTION])
    assert first.timing["cache_source"] == ""
    assert len(list((home / "cache/prefix").glob("*.kv"))) == 1
    with Engine(model, context=512, threads=1, batch=64) as engine:
        again, second = answer(engine, "a", [*PREFIX, *QUESTION])
        other, _ = answer(engine, "a", [*PREFIX, 5, 6, 7])
    assert (second.timing["cache_source"], cached(second)) == ("disk", len(PREFIX))
    assert again == said
    with Engine(model, context=512, threads=1, batch=64, keep_prefix=False) as engine:
        assert answer(engine, "a", [*PREFIX, 5, 6, 7], prefix=0)[0] == other


def test_what_can_be_rolled_back_is_known(engine: Engine) -> None:
    assert engine.wait().partial_rollback is False


def test_what_was_read_ahead_is_taken_over_and_says_the_same(engine: Engine, model: Path) -> None:
    alone, _ = answer(engine, "alone", [*PREFIX, *QUESTION], prefix=0)
    *_, end = engine.generate("a", PREFIX, sampling=GREEDY, max_tokens=0, prefix=len(PREFIX))
    assert isinstance(end, EndStep)
    assert end.reason == "length"
    said, end = answer(engine, "a", [*PREFIX, *QUESTION])
    assert (said, cached(end)) == (alone, len(PREFIX))
