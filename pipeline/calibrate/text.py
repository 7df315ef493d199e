"""The text of a calibration, as windows of token ids: the user's files, or what the model wrote itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, Self

from agent.errors import SprigError
from agent.files import atomic_write
from pipeline.calibrate.statistics import windows_hash
from pipeline.forward.process import ForwardProcess
from pipeline.text.user_text import read_user_text

WINDOW = 512  # tokens, as llama-imatrix has it
_MOST = 64 << 20  # bytes of a file


@dataclass(frozen=True, slots=True)
class CalibrationText:
    """Windows, and what they are.

    Attributes:
        windows: token ids; each begins with BOS where the model wants it.
        datasets: in words, for the imatrix file.
        left: tokens that were there and are not read.
    """

    windows: tuple[tuple[int, ...], ...]
    datasets: tuple[str, ...]
    left: int = 0

    @property
    def tokens(self) -> int:
        return sum(map(len, self.windows))

    def save(self, path: Path) -> None:
        """Keep the text, to read the same again. Raises OutputError."""
        atomic_write(path, json.dumps(asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """What ``save`` wrote; None if that is not there or broken."""
        try:
            told: dict[str, Any] = json.loads(path.read_bytes())
            windows = tuple(tuple(map(int, ids)) for ids in told["windows"])
            return cls(windows, tuple(map(str, told["datasets"])), int(told["left"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None


def cut(ids: Sequence[int], size: int, bos: int | None) -> list[tuple[int, ...]]:
    """Whole windows of a text, as llama-imatrix cuts them: BOS takes the place of the first token of each."""
    windows = [tuple(ids[i : i + size]) for i in range(0, len(ids) - size + 1, size)]
    return windows if bos is None else [(bos, *window[1:]) for window in windows]


def read_files(process: ForwardProcess, files: Sequence[Path], size: int, tokens: int) -> CalibrationText:
    """Windows of the user's files, in turns from each, up to so many tokens.

    Raises SprigError: a file cannot be read or is no text, or all together are too short.
    """
    bos = process.bos if process.add_bos else None
    cuts, names, length = [], [], 0
    for path in files:
        text = read_user_text(path, "--text", most=_MOST)
        ids = process.tokenize(text)
        if bos is not None and ids[:1] != [bos]:
            ids = [bos, *ids]
        length += len(ids)
        cuts.append(cut(ids, size, bos))
        names.append(f"{path.name[:40]} sha256:{hashlib.sha256(text.encode()).hexdigest()}")
    windows = [window for window in chain.from_iterable(zip_longest(*cuts)) if window is not None]
    return _limited(windows, size, tokens, length, tuple(names), "--text")


def from_pieces(pieces: Sequence[Sequence[int]], size: int, tokens: int, bos: int | None, what: str) -> CalibrationText:
    """Windows over pieces of text that follow each other. Raises SprigError if these are too short."""
    ids = [token for piece in pieces for token in piece]
    text = _limited(cut(ids, size, bos), size, tokens, len(ids), (), "the text that the model wrote")
    return CalibrationText(text.windows, (what, f"sha256:{windows_hash(text.windows)}"))


def _limited(
    windows: Sequence[tuple[int, ...]], size: int, tokens: int, length: int, datasets: tuple[str, ...], what: str
) -> CalibrationText:
    if len(windows) < 2:
        raise SprigError(f"{what}: {length} tokens are too few for two windows of {size}; take a longer text")
    taken = windows[: max(2, tokens // size)]
    return CalibrationText(tuple(taken), datasets, max(0, length - len(taken) * size))
