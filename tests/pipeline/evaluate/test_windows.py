"""Texts become windows: each token is scored once, with half a window before it; or exactly as llama-perplexity cuts."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.errors import SprigError
from pipeline.evaluate.windows import MIN_SCORED, Window, cut_windows, read_texts

BOS = 9999


def numbers(text: str) -> list[int]:
    """A tokenizer for texts that say how many tokens they have."""
    return list(range(int(text)))


@given(n_ctx=st.integers(64, 200), extra=st.integers(0, 700), bos=st.sampled_from([None, BOS]))
def test_every_token_behind_the_first_half_is_scored_once_with_half_a_window_before_it(
    n_ctx: int, extra: int, bos: int | None
) -> None:
    n = n_ctx + extra
    windows = cut_windows({"a": str(n)}, numbers, bos=bos, n_ctx=n_ctx)
    scored = [token for window in windows for token in window.targets]
    assert scored == list(range(scored[0], scored[0] + len(scored)))
    assert n - scored[-1] <= n_ctx - n_ctx // 2, "the tail that is left out is shorter than a step"
    for window in windows:
        assert len(window.ids) == n_ctx
        assert window.first + 1 >= n_ctx // 2
        assert (window.ids[0] == BOS) == (bos is not None)
        body = window.ids[1:] if bos is not None else window.ids
        assert all(b == a + 1 for a, b in pairwise(body))


def test_a_text_shorter_than_a_window_is_a_shorter_window() -> None:
    (window,) = cut_windows({"a": "100"}, numbers, bos=BOS, n_ctx=512)
    assert window.ids == (BOS, *range(100))
    assert len(window.targets) == 51


def test_a_text_that_scores_too_little_is_told_with_what_it_lacks() -> None:
    with pytest.raises(SprigError, match=r"the text little is too short: it has 20 tokens, and windows of 512 need at least 64"):
        cut_windows({"little": "20"}, numbers, bos=None)
    assert len(cut_windows({"little": str(2 * MIN_SCORED)}, numbers, bos=None)[0].targets) == MIN_SCORED


def test_llama_perplexity_cuts_end_to_end_and_puts_bos_over_the_first_token() -> None:
    with_bos = cut_windows({"a": "39"}, numbers, bos=BOS, n_ctx=10, style="llama-perplexity")
    assert [w.ids for w in with_bos] == [
        (BOS, *range(9)), (BOS, *range(10, 19)), (BOS, *range(20, 29)), (BOS, *range(30, 39)),
    ]  # fmt: skip
    assert with_bos[1] == Window("a", (BOS, *range(10, 19)), 5)
    assert with_bos[1].targets == (15, 16, 17, 18)
    without = cut_windows({"a": "29"}, numbers, bos=None, n_ctx=10, style="llama-perplexity")
    assert [w.ids for w in without] == [tuple(range(10)), tuple(range(10, 20))]


def test_llama_perplexity_wants_two_windows() -> None:
    with pytest.raises(SprigError, match="it has 19 tokens, and windows of 10 need at least 20"):
        cut_windows({"a": "19"}, numbers, bos=None, n_ctx=10, style="llama-perplexity")


def test_a_number_of_windows_is_shared_evenly_among_the_domains() -> None:
    texts = {"long": "1000", "short": "70", "middle": "200"}

    def taken(n: int | None) -> list[str]:
        return [w.domain for w in cut_windows(texts, numbers, bos=None, n_ctx=64, windows=n)]

    assert taken(2) == ["long", "short"]
    assert taken(5) == ["long", "long", "short", "middle", "middle"]
    assert taken(1000) == taken(None)
    assert taken(6)[:3] == ["long"] * 3


def test_texts_are_domains_by_their_names(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\r\ntwo\n")
    (tmp_path / "b.txt").write_text("zwei")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    assert read_texts(files) == {"a.txt": "one\r\ntwo\n", "b.txt": "zwei"}
    assert read_texts(files, "llama-perplexity")["a.txt"] == "one\r\ntwo"


def test_a_text_that_cannot_be_read_is_told_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(SprigError, match=r"--text: .*gone\.txt is no file"):
        read_texts([tmp_path / "gone.txt"])
    (tmp_path / "b").write_bytes(b"abc\xff")
    with pytest.raises(SprigError, match=r"is no text in UTF-8 \(byte 3\)"):
        read_texts([tmp_path / "b"])
    with pytest.raises(SprigError, match="two texts are called"):
        read_texts([Path(__file__), Path(__file__)])


def test_no_text_is_an_error() -> None:
    with pytest.raises(SprigError, match="no text"):
        cut_windows({}, numbers, bos=None)
