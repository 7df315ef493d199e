"""How one model answers: likelihoods that are those of the logits, the same with and without what was computed before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.errors import SprigError
from pipeline import quantize
from pipeline.evaluate.tasks.answering import answered, open_choices, open_speaker, pick
from pipeline.evaluate.tasks.questions import Choice, ChoiceQuestion, ShortQuestion
from pipeline.forward.process import ForwardProcess
from tests.fixtures.chat_ggufs import chat_model
from tests.fixtures.checkpoints import save
from tests.fixtures.shared import shared
from tests.fixtures.tiny import llama
from tests.fixtures.tokenizers import make_tokenizer

N_CTX = 128


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return llama(tmp_path_factory.mktemp("answering") / "tiny.gguf", llama__context_length=N_CTX)


@pytest.fixture(scope="module")
def hybrid() -> Path:
    def make(folder: Path) -> None:
        pytest.importorskip("transformers")
        save("lfm2", folder / "checkpoint")
        make_tokenizer("smollm2", folder / "checkpoint", 512)
        quantize(str(folder / "checkpoint"), "F32", folder / "out.gguf", threads=1)

    return shared("hybrid-lfm2", make) / "out.gguf"


def by_hand(process: ForwardProcess, ids: list[int], first: int) -> float:
    """The log-likelihood of the tokens from ``first`` on, from all logits of the window."""
    logits = process.logits(ids).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    scores = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return float(sum(scores[i - 1, ids[i]] for i in range(first, len(ids))))


def check(model: Path, windows: list[tuple[list[int], int]]) -> None:
    with ForwardProcess(model, n_ctx=N_CTX, n_outputs=N_CTX, threads=1) as reference, open_choices(model, N_CTX, 1) as process:
        for ids, first in windows:
            found = process.ask("likelihood", ids=ids, first=first)["value"]
            assert found == pytest.approx(by_hand(reference, ids, first), abs=0.02), (ids, first)


def windows() -> list[tuple[list[int], int]]:
    """Windows that share nothing, all, or a part of what the one before had; one has more scored tokens than one batch."""
    draw = np.random.default_rng(3)
    context, other, long = ([int(t) for t in draw.integers(3, 250, n)] for n in (20, 9, 100))
    return [
        ([*context, 40, 41], 20), ([*context, 40, 41], 20), ([*context, 50], 20), ([*context[:12], 60, 61, 62], 12),
        ([*other, 7], 9), (long, 10), ([*long[:40], 9], 1), ([5, 6], 1),
    ]  # fmt: skip


def test_a_likelihood_is_that_of_the_logits_whatever_was_computed_before(model: Path) -> None:
    check(model, windows())


@pytest.mark.slow
def test_a_model_that_cannot_go_back_gives_the_same(hybrid: Path) -> None:
    check(hybrid, windows())


def test_the_likeliest_choice_is_taken_and_the_likeliest_per_byte(model: Path) -> None:
    with open_choices(model, N_CTX, 1) as process:
        choices = tuple(Choice("a bee", f" {text}", text) for text in ("a", "ab cd ef gh", "zz"))
        found = pick(process, ChoiceQuestion(1, choices, 0))
        values = []
        for one in choices:
            context = [process.bos, *process.tokenize(one.context)]
            ids = [process.bos, *process.tokenize(one.context + one.continuation)]
            assert ids[: len(context)] == context
            values.append(process.ask("likelihood", ids=ids, first=len(context))["value"])
        assert found.likeliest == int(np.argmax(values)) == 0, "the shortest: every token costs"
        assert found.per_byte == int(np.argmax([v / len(one.answer) for v, one in zip(values, choices, strict=True)]))
        with pytest.raises(SprigError, match=r"question of line 7 has \d+ tokens, and the context 128"):
            pick(process, ChoiceQuestion(7, (Choice("a" * 200, " b", "b"), Choice("a", " b", "b")), 0))


@pytest.mark.slow
def test_a_model_without_a_template_goes_on_with_the_text(model: Path) -> None:
    with open_speaker(model, N_CTX, 1) as ask:
        said = ask("a bee")
        assert said == ask("a bee")
    with open_choices(model, N_CTX, 1) as process:
        ids = [process.bos, *process.tokenize("Question: a bee\nAnswer:")]
        most = 2 * len("י".encode())  # a token is a byte here
        assert process.ask("complete", ids=ids, most=most, stops=["no stop"])["text"] == said[:2]
        assert process.ask("complete", ids=ids, most=64, stops=[said[:1]])["text"] == ""


@pytest.mark.usefixtures("home", "kept_templates")
def test_a_model_with_a_template_is_asked_through_it(tmp_path: Path) -> None:
    with open_speaker(chat_model(tmp_path / "chat.gguf", "chatml"), 2048, 1) as ask:
        said = ask("a bee")
        ask("another")
        assert said == ask("a bee")


@pytest.mark.parametrize(
    ("answer", "said", "right"),
    [
        ("42", "6 * 7 = 42.", True), ("42", "42 is not 43", False), ("1,005", "It is $1005.00", True), ("$5", "5 dollars", True),
        ("-3", "x = -3", True), ("0.5", "It is .5", True), ("42", "no number", False), ("7", "", False),
        ("Paris", "Paris.", True), ("Paris", "  the paris ", True), ("Paris", "It is Paris", False),
        ("The Beatles", "beatles", True), ("北京", "北京。", True), ("the", "", False),
    ],
)  # fmt: skip
def test_numbers_are_compared_as_numbers_and_texts_without_case_and_points(answer: str, said: str, right: bool) -> None:
    assert answered(ShortQuestion(1, "?", (answer,)), said) is right
