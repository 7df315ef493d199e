"""Texts become windows of tokens: what a model reads at once, and which of its tokens count.

A token counts only where enough of the text stands before it in its window; the first half of a window is context. In Sprig's
windows each scored token has at least half a window before it, and the next window begins half a window later, so that no token
is scored twice and none between is left out. llama-perplexity's windows (tools/perplexity/perplexity.cpp) stand end to end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.text import display
from pipeline.evaluate.figures import Style
from pipeline.text.user_text import read_user_text

MIN_SCORED = 32  # tokens that a text shorter than a window must score


@dataclass(frozen=True, slots=True)
class Window:
    """One window.

    Attributes:
        domain: of the text.
        ids: its tokens.
        first: the rows of logits that count are those behind tokens ``first`` .. len(ids) - 2; they predict tokens
            ``first`` + 1 .. len(ids) - 1.
    """

    domain: str
    ids: tuple[int, ...]
    first: int

    @property
    def targets(self) -> tuple[int, ...]:
        """The tokens that are predicted, one for each row that counts."""
        return self.ids[self.first + 1 :]


def cut_windows(
    texts: Mapping[str, str],
    tokenize: Callable[[str], list[int]],
    *,
    bos: int | None,
    n_ctx: int = 512,
    windows: int | None = None,
    style: Style = "sprig",
) -> tuple[Window, ...]:
    """Cut texts into windows.

    Args:
        texts: domain -> text.
        tokenize: text -> token ids, without BOS.
        bos: the token that the model wants before a text; None where it wants none.
        n_ctx: tokens of a window.
        windows: how many at most, shared evenly among the domains, the first of each; by default all that there are.
        style: "llama-perplexity" gives exactly those of llama-perplexity for each text.

    Raises:
        SprigError: a text is too short for a window.
    """
    cut = _llama_windows if style == "llama-perplexity" else _sprig_windows
    of = {domain: cut(domain, tokenize(text), bos, n_ctx) for domain, text in texts.items()}
    if not of:
        raise SprigError("there is no text to evaluate on; name one with --text")
    takes = _shares([len(found) for found in of.values()], windows)
    return tuple(window for found, n in zip(of.values(), takes, strict=True) for window in found[:n])


def _sprig_windows(domain: str, ids: list[int], bos: int | None, n_ctx: int) -> list[Window]:
    front = [] if bos is None else [bos]
    body = n_ctx - len(front)
    if len(ids) < body:
        least = min(n_ctx, 2 * MIN_SCORED)
        if len(front) + len(ids) < least:
            raise _too_short(domain, len(ids), least - len(front), n_ctx)
        return [_second_half(domain, [*front, *ids])]
    step = n_ctx - n_ctx // 2
    return [_second_half(domain, [*front, *ids[at : at + body]]) for at in range(0, len(ids) - body + 1, step)]


def _second_half(domain: str, ids: list[int]) -> Window:
    return Window(domain, tuple(ids), len(ids) // 2 - 1)


def _llama_windows(domain: str, ids: list[int], bos: int | None, n_ctx: int) -> list[Window]:
    """The text is tokenized with BOS, cut end to end, and BOS then takes the place of the first token of each window."""
    if bos is not None:
        ids = [bos, *ids]
    if len(ids) < 2 * n_ctx:
        raise _too_short(domain, len(ids), 2 * n_ctx, n_ctx)
    found = []
    for at in range(0, len(ids) - n_ctx + 1, n_ctx):
        window = ids[at : at + n_ctx]
        if bos is not None:
            window[0] = bos
        found.append(Window(domain, tuple(window), n_ctx // 2))
    return found


def _too_short(domain: str, has: int, needs: int, n_ctx: int) -> SprigError:
    return SprigError(
        f"the text {display(domain)} is too short: it has {has} tokens, and windows of {n_ctx} need at least {needs}; "
        "give a longer one with --text"
    )


def _shares(there: Sequence[int], most: int | None) -> list[int]:
    """How many windows of each domain are taken: one after the other in turn until there are ``most``."""
    takes = [0] * len(there)
    left = sum(there) if most is None else min(most, sum(there))
    while left:
        for i, n in enumerate(there):
            if left and takes[i] < n:
                takes[i] += 1
                left -= 1
    return takes


def read_texts(files: Sequence[Path], style: Style = "sprig") -> dict[str, str]:
    """The texts of files, each a domain by its name; for llama-perplexity's windows without the newline at the end, as it reads.

    Raises:
        SprigError: a file cannot be read, is no UTF-8 text, or two have one name.
    """
    texts: dict[str, str] = {}
    for path in files:
        text = read_user_text(path, "--text")
        if path.name in texts:
            raise SprigError(f"two texts are called {path.name}; rename one, for each is a domain by its name")
        texts[path.name] = text.removesuffix("\n") if style == "llama-perplexity" else text
    return texts
