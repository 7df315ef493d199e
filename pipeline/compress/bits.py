"""Bits per byte of models with different vocabularies, on the very same bytes of text, so that they can be compared in pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.gguf.reader import read_header
from agent.text import display
from pipeline.evaluate.side_by_side import side_by_side
from pipeline.evaluate.windows import Window, read_texts
from pipeline.forward.process import ForwardProcess
from pipeline.text.held_out import domains

_BYTES = 3  # of a piece for each token of a window: even letter by letter it fits into three windows
_LEAST = 64  # bytes of a piece


@dataclass(frozen=True, slots=True)
class ScoredPiece:
    """A stretch of text: the first half is context, the second is predicted. Neither depends on a vocabulary."""

    domain: str
    context: str
    scored: str


def cut_pieces(texts: Mapping[str, str], nbytes: int, pieces: int) -> tuple[ScoredPiece, ...]:
    """Cut texts into pieces of so many bytes of UTF-8, each half a piece behind the one before it.

    Args:
        texts: domain -> text.
        pieces: how many at most, shared evenly among the domains, the first of each; one of each domain at least.

    Raises:
        SprigError: a text is too short for a piece.
    """
    each = max(1, pieces // max(1, len(texts)))
    found: list[ScoredPiece] = []
    for domain, text in texts.items():
        raw = text.encode()
        size = min(nbytes, len(raw))
        if size < _LEAST:
            raise SprigError(f"the text {display(domain)} is too short to judge by: it has {len(raw)} bytes; give a longer one")
        starts = range(0, len(raw) - size + 1, size // 2)
        found += [ScoredPiece(domain, *_halves(raw[at : at + size].decode("utf-8", "ignore"))) for at in starts[:each]]
    return tuple(found)


def _halves(text: str) -> tuple[str, str]:
    """Divided before a space near the middle, where every tokenizer divides too."""
    half = len(text) // 2
    space = text.find(" ", half, half + half // 2)
    at = space if space > 0 else half
    return text[:at], text[at:]


def bits_per_byte(model: Path, pieces: Sequence[ScoredPiece], *, threads: int | None = None) -> list[dict[str, Any]]:
    """What a model needs for each piece: its domain, the bytes that were predicted, and bits for each of them.

    Raises:
        GGUFError: the model cannot be run, or computes NaN.
        SprigError: a piece is longer than what the model was trained for.
    """
    trained = read_header(model).context_length
    with ForwardProcess(model, n_ctx=64, threads=1, repack=False) as process:
        front = [process.bos] if process.add_bos else []
        windows = [_window(piece, process.tokenize, front) for piece in pieces]
    longest, rows = max(len(one.ids) for one in windows), max(len(one.targets) for one in windows) + 1
    if trained and longest > trained:
        raise SprigError(
            f"{model} was trained for {trained} tokens, and {longest} are to be read: name a shorter [evaluate] context"
        )
    with ForwardProcess(model, n_ctx=longest, n_outputs=rows, threads=threads) as process:
        (scores,) = side_by_side([process], windows, with_reference=False)
    sizes = [len(piece.scored.encode()) for piece in pieces]
    return [
        {"domain": piece.domain, "bytes": size, "bits": float(one.nll.sum()) / math.log(2) / size}
        for piece, size, one in zip(pieces, sizes, scores, strict=True)
    ]


def _window(piece: ScoredPiece, tokenize: Callable[[str], list[int]], front: list[int]) -> Window:
    before = [*front, *tokenize(piece.context)]
    return Window(piece.domain, (*before, *tokenize(piece.scored)), len(before) - 1)


def bits_command(arguments: Sequence[str]) -> dict[str, Any]:
    """The stage: a file, and --text, --windows, --context and --threads. What it answers."""
    options = [one.partition("=") for one in arguments[1:]]
    numbers = {name: int(value) for name, _, value in options if name != "--text"}
    files = [Path(value) for name, _, value in options if name == "--text"]
    pieces = cut_pieces(read_texts(files) if files else domains(), _BYTES * numbers["--context"], numbers["--windows"])
    return {"per_piece": bits_per_byte(Path(arguments[0]), pieces, threads=numbers["--threads"])}
