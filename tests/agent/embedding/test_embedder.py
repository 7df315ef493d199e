"""Embedder: vectors in the order of the texts, the same one by one and together; what cannot be embedded is said in one line."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent import Embedder, Engine, EngineError, SprigError
from agent.embedding.plan import plan_embedding
from agent.embedding.prompts import prompts_of
from agent.models.file import read_model
from agent.models.memory import MemoryBudget
from tests.fixtures.tiny import llama

pytestmark = pytest.mark.usefixtures("home")

TEXTS = ["abc", "hello world", "", "zz", "a longer one about nothing", "abc"]


@pytest.fixture(scope="module")
def mean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("m") / "mean.gguf", llama__pooling_type=1)


@pytest.fixture(scope="module")
def last(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("m") / "last.gguf", llama__pooling_type=3, llama__context_length=400)


@pytest.fixture
def embedder(mean: Path) -> Iterator[Embedder]:
    with Embedder(mean, threads=1) as made:
        yield made


def test_many_texts_give_what_each_gives_alone_in_their_order(embedder: Embedder) -> None:
    together = embedder.embed(TEXTS * 60)  # more than one batch, and more than one message
    assert (together.shape, together.dtype) == ((360, embedder.width), np.float32)
    alone = np.stack([embedder.embed(text)[0] for text in TEXTS])
    assert np.abs(together - np.tile(alone, (60, 1))).max() < 1e-5
    assert np.allclose(np.linalg.norm(together, axis=1), 1)
    assert np.array_equal(alone[0], alone[5])
    assert embedder.embed([]).shape == (0, embedder.width)


def test_vectors_may_be_left_as_they_are_and_a_prompt_is_part_of_the_text(embedder: Embedder) -> None:
    raw = embedder.embed(["abc"], normalise=False)
    assert not np.isclose(np.linalg.norm(raw), 1)
    assert np.allclose(raw / np.linalg.norm(raw), embedder.embed(["abc"]))
    assert np.allclose(embedder.embed(["abc"], prompt="query: "), embedder.embed(["query: abc"]))


def test_similarity_is_the_cosine() -> None:
    a = np.array([[1, 0], [3, 4], [0, 0]], np.float32)
    assert np.allclose(Embedder.similarity(a, a[:2] * 7), [[1, 0.6], [0.6, 1], [0, 0]])


def test_a_text_that_is_too_long_is_named_or_cut(embedder: Embedder) -> None:
    long = "ab " * 100
    with pytest.raises(SprigError, match=r"^texts\[301\] has \d+ tokens, and tiny takes 64 .*truncate=True$"):
        embedder.embed([*["a"] * 301, long])
    cut = embedder.embed([long], truncate=True)
    assert np.allclose(cut, embedder.embed([long + "and more"], truncate=True))


@pytest.mark.parametrize("context", [1, 65, 100, 399])
def test_a_context_of_any_length(last: Path, context: int) -> None:
    with Embedder(last, pooling="mean", threads=1, context=context) as embedder:
        assert embedder.embed(["a b c d e " * 80], truncate=True).shape == (1, 32)


@pytest.mark.slow
def test_a_long_text_of_a_causal_model_is_computed_in_pieces(last: Path) -> None:
    """Where the last token says all, pieces of a batch give what the whole gives."""
    text = "abc def " * 30
    with Embedder(last, threads=1) as pieces:
        assert pieces._load_message["batch"] == 448
        whole = pieces.embed([text])
        pieces._load_message |= {"batch": 64, "pack": 64}
        os.kill(pieces._connection.child.pid, signal.SIGKILL)
        _gone(pieces)
        assert np.allclose(pieces.embed([text, "b"])[0], whole[0], atol=1e-2)  # K and V are kept in 16 bits


def _gone(embedder: Embedder) -> None:
    end = time.monotonic() + 10
    while embedder._connection.ended is None and time.monotonic() < end:
        time.sleep(0.01)


@pytest.mark.slow
def test_a_death_is_one_error_and_the_next_call_starts_again(embedder: Embedder) -> None:
    before = embedder.embed(TEXTS)
    os.kill(embedder._connection.child.pid, signal.SIGSTOP)
    threading.Timer(0.2, os.kill, (embedder._connection.child.pid, signal.SIGKILL)).start()
    with pytest.raises(EngineError, match=r"the model's process ended .*; it starts again when it is needed"):
        embedder.embed(TEXTS)
    assert np.array_equal(embedder.embed(TEXTS), before)


@pytest.mark.slow
def test_a_limit_in_time_and_a_cancellation_hold_while_the_worker_says_nothing(embedder: Embedder) -> None:
    for seconds, told in ((0.2, r"^the texts were not embedded within 0.2 s; "), (None, "cancelled")):
        assert len(embedder.embed(TEXTS)) == len(TEXTS)
        os.kill(embedder._connection.child.pid, signal.SIGSTOP)
        later = threading.Event()
        threading.Timer(0.2, later.set).start()
        start = time.monotonic()
        with pytest.raises(SprigError, match=told):
            embedder.embed(TEXTS, seconds=seconds, cancelled=None if seconds else later)
        assert time.monotonic() - start < 2
    assert len(embedder.embed(TEXTS)) == len(TEXTS)


@pytest.mark.slow
def test_several_threads_share_one_embedder(mean: Path) -> None:
    with Embedder(mean, threads=1) as fresh:
        found: dict[int, np.ndarray] = {}
        threads = [threading.Thread(target=lambda i=i: found.update({i: fresh.embed([TEXTS[i]])})) for i in (0, 1, 4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        assert all(np.allclose(found[i], fresh.embed(TEXTS)[i], atol=1e-6) for i in (0, 1, 4))


@pytest.mark.slow
def test_what_gives_no_vectors_is_refused_with_what_to_do(tmp_path: Path, mean: Path) -> None:
    chat = llama(tmp_path / "chat.gguf")
    with pytest.raises(SprigError, match=r"^tiny is a chat model; take an embedding model, or say pooling='mean'"):
        Embedder(chat)
    with Embedder(chat, pooling="mean", threads=1) as asked, Embedder(mean, threads=1) as own:
        assert np.array_equal(asked.embed(TEXTS), own.embed(TEXTS))
    with pytest.raises(SprigError, match=r"^tiny is a reranker"):
        Embedder(llama(tmp_path / "rank.gguf", llama__pooling_type=4))
    with pytest.raises(SprigError, match=r"^pooling is 'max' and can be mean, cls or last$"):
        Embedder(mean, pooling="max")
    with pytest.raises(SprigError, match=r"`sprig embed` and Embedder"):
        Engine(mean)
    with pytest.raises(SprigError, match="texts\\[1\\] is int and must be a text"), Embedder(mean, threads=1) as own:
        own.embed(["a", 1])  # type: ignore[list-item]


def test_an_empty_text_of_which_no_token_comes_is_refused(tmp_path: Path) -> None:
    path = llama(tmp_path / "bare.gguf", llama__pooling_type=1, tokenizer__ggml__add_bos_token=False)
    with Embedder(path, threads=1) as bare, pytest.raises(SprigError, match=r"^texts\[1\] is empty, and tiny makes no token"):
        bare.embed(["a", ""])


def test_a_file_that_llama_cpp_cannot_take_kills_only_the_child(tmp_path: Path) -> None:
    merges = {"tokenizer__ggml__model": "gpt2", "tokenizer__ggml__merges": ["a b"], "tokenizer__ggml__pre": "no such thing"}
    path = llama(tmp_path / "bad.gguf", llama__pooling_type=1, **merges)
    with Embedder(path, threads=1) as bad:
        for _ in range(2):
            with pytest.raises(EngineError, match=r"bad\.gguf was not loaded: "):
                bad.embed(["a"])


def test_memory_is_planned_before_the_load(mean: Path) -> None:
    file = read_model(mean)
    with pytest.raises(SprigError, match=r"^tiny needs \d+ MB of memory for texts of 64 tokens, and 1 MB may be taken; "):
        Embedder(mean, memory=1_000_000)
    plan = plan_embedding(file, MemoryBudget.of(10**9), pooling="mean")
    assert (plan.context, plan.batch, plan.pack) == (64, 64, 64)
    with pytest.raises(SprigError, match="takes texts of 1 to 64 tokens, and 65 were asked for"):
        plan_embedding(file, MemoryBudget.of(10**9), pooling="mean", context=65)


def test_a_closed_embedder_says_so(mean: Path) -> None:
    with Embedder(mean, threads=1) as made:
        pass
    with pytest.raises(EngineError, match="this embedder is closed"):
        made.embed(["a"])


@pytest.mark.parametrize(
    ("name", "query", "document"),
    [
        ("Nomic Embed Text v1.5", "search_query: ", "search_document: "),
        ("multilingual-e5-small", "query: ", "passage: "),
        ("Multilingual E5 Large Instruct", "Instruct: Given", ""),
        ("bge-small-en-v1.5", "Represent this", ""),
        ("snowflake-arctic-embed-m-v2.0", "query: ", ""),
        ("all-MiniLM-L6-v2", "", ""),
    ],
)
def test_prompts_of_known_models_come_by_their_names(tmp_path: Path, name: str, query: str, document: str) -> None:
    found = prompts_of(read_model(llama(tmp_path / "x.gguf", llama__pooling_type=1, general__name=name)))
    assert found["query"].startswith(query)
    assert bool(found["query"]) == bool(query)
    assert found["document"] == document


def test_prompts_of_the_file_come_first(tmp_path: Path) -> None:
    path = llama(tmp_path / "x.gguf", llama__pooling_type=1, general__name="nomic-embed-text", sprig__prompt__query="ask: ")
    assert prompts_of(read_model(path)) == {"query": "ask: ", "document": ""}
