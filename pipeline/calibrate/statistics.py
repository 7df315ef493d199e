"""What a text does to the inputs of a model's weights, as a folder: sums of squares and second moments, in two folds.

``statistics.json`` is written last: a folder without it is unfinished. ``hessians/NUMBER.FOLD.npz`` holds the sums of one input
over one half of the windows (``pipeline.calibrate.moments``), ``imatrix.gguf`` the squares as llama.cpp keeps them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np

from agent.errors import SprigError
from agent.files import atomic_write
from agent.gguf.reader import read_header
from agent.text import display
from pipeline.calibrate.inputs import Input
from pipeline.calibrate.moments import Moments, unpack
from pipeline.format.ggml import Floats
from pipeline.format.imatrix import ImportanceMatrix, SquareSums, other_blocks, read_imatrix

Fold = Literal["A", "B"]
FOLDS: tuple[Fold, Fold] = ("A", "B")
STATISTICS, IMATRIX, HESSIANS = "statistics.json", "imatrix.gguf", "hessians"
_FORMAT = 1


def model_identity(path: Path) -> str:
    """What stays the same when a model is quantized: a hash of its tensors' names and shapes, and of its norms and biases.

    Raises GGUFError if it is no GGUF.
    """
    header = read_header(path)
    digest = hashlib.sha256()
    content = np.memmap(path, np.uint8, mode="r")
    for name in sorted(header.tensors):
        tensor = header.tensors[name]
        digest.update(f"{name} {tensor.shape}\n".encode("utf-8", "surrogateescape"))
        if len(tensor.shape) == 1 and tensor.type.name == "F32":
            digest.update(content[tensor.offset : tensor.offset + tensor.nbytes].tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Facts:
    """What ``statistics.json`` says.

    Attributes:
        model: ``model_identity`` of the model; ``file`` is its name.
        text: SHA-256 of the windows' token ids.
        datasets: what the text is, in words, as the imatrix names it.
        windows, tokens: of text; ``chunk`` is the tokens of the longest window.
        inputs: in the order of the computation.
        products: names of the inputs whose second moments are kept.
        notes: what was left out, and why.
    """

    model: str
    file: str
    text: str
    datasets: tuple[str, ...]
    windows: int
    tokens: int
    chunk: int
    inputs: tuple[Input, ...]
    products: frozenset[str]
    notes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {
            "format": _FORMAT, "model": self.model, "file": self.file, "text": self.text, "datasets": list(self.datasets),
            "windows": self.windows, "tokens": self.tokens, "chunk": self.chunk, "inputs": [i.to_dict() for i in self.inputs],
            "products": sorted(self.products), "notes": list(self.notes),
        }  # fmt: skip

    @classmethod
    def from_dict(cls, told: Mapping[str, Any]) -> Facts:
        """Raises KeyError, TypeError or ValueError when it is something else."""
        if told["format"] != _FORMAT:
            raise ValueError(told["format"])
        return cls(
            str(told["model"]), str(told["file"]), str(told["text"]), tuple(map(str, told["datasets"])), int(told["windows"]),
            int(told["tokens"]), int(told["chunk"]), tuple(Input.from_dict(i) for i in told["inputs"]),
            frozenset(map(str, told["products"])), tuple(map(str, told["notes"])),
        )  # fmt: skip


def moments_file(folder: Path, index: int, fold: Fold) -> Path:
    """Where the sums of an input lie; ``index`` counts the inputs."""
    return folder / HESSIANS / f"{index:04}.{fold}.npz"


class Statistics:
    """A finished folder. Its matrices are read when they are asked for, and not kept."""

    def __init__(self, folder: Path, facts: Facts) -> None:
        self.folder, self.facts = folder, facts

    @classmethod
    def open(cls, folder: Path, *, model: Path | None = None) -> Self:
        """Read a folder.

        Args:
            model: a GGUF that they must be of, however it is quantized.

        Raises:
            SprigError: there is none, it is unfinished or broken, or it belongs to another model.
        """
        path = folder / STATISTICS
        try:
            facts = Facts.from_dict(json.loads(path.read_bytes()))
        except FileNotFoundError:
            what = "is unfinished; run the same command with --resume" if (folder / HESSIANS).is_dir() else "holds no statistics"
            raise SprigError(f"{folder} {what} (sprig calibrate --statistics makes them)") from None
        except OSError as e:
            raise SprigError(f"cannot read {path}: {e.strerror}") from None
        except (ValueError, KeyError, TypeError):
            raise SprigError(f"{path} is broken, or of another version of Sprig; calibrate again") from None
        if model is not None and model_identity(model) != facts.model:
            raise SprigError(f"{folder} was measured on another model ({display(facts.file)}) than {model}; calibrate that one")
        return cls(folder, facts)

    @cached_property
    def _places(self) -> dict[str, tuple[int, Input]]:
        return {weight: (i, one) for i, one in enumerate(self.facts.inputs) for weight in one.weights}

    def input_of(self, name: str) -> Input | None:
        """The input of a weight; None if it was not met."""
        found = self._places.get(name)
        return found and found[1]

    def check(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Compare with the weights of a model, rows last. Raises SprigError if they cannot be of the same."""
        if other := other_blocks(self._places, shapes):
            raise SprigError(f"{self.folder} was measured on another model ({display(self.facts.file)}): {other}; calibrate it")
        for weight, (_, one) in self._places.items():
            shape = shapes.get(weight)
            if shape is None or shape[-1] != one.columns or (len(shape) == 3 and shape[0] != one.matrices):
                found = "no such tensor" if shape is None else f"the shape {list(shape)}"
                raise SprigError(
                    f"{self.folder} was measured on another model ({display(self.facts.file)}): this one has {found} for "
                    f"{display(weight)}; calibrate it"
                )

    def hessian(self, name: str, fold: Fold | None = None, matrix: int = 0) -> tuple[Floats, int] | None:
        """The second moment of a weight's input.

        Args:
            name: GGUF name of the weight.
            fold: of the text; None for both together.
            matrix: which one, of a weight that has several (experts).

        Returns:
            The sum over tokens of x x^T, float32 [columns, columns], and how many tokens; None if it was not measured.

        Raises:
            SprigError: its file is broken.
        """
        index, one = self._places.get(name, (0, None))
        if one is None or one.name not in self.facts.products:
            return None
        tokens, total = 0, np.zeros(one.packed // one.matrices, np.float32)
        for part in (fold,) if fold else FOLDS:
            moments = self._moments(index, one, part, products=True)
            assert moments.packed is not None
            tokens += int(moments.counts[matrix])
            total += moments.packed[matrix]
        return unpack(total, one.columns), tokens

    def squares(self, name: str) -> Floats | None:
        """Mean squared activations of a weight's input, the head's too: float32 [matrices, columns]; None if it was not met.

        A matrix that saw no token has ones.
        """
        if name not in self._places:
            return None
        sums, counts = self._sums(*self._places[name])
        return np.where(counts > 0, sums / np.maximum(counts, 1), 1).astype(np.float32)

    def _sums(self, index: int, one: Input) -> tuple[Any, Any]:
        parts = [self._moments(index, one, fold, products=False) for fold in FOLDS]
        return sum(m.sums for m in parts), sum(m.counts for m in parts).reshape(-1, 1)  # type: ignore[union-attr]

    def _moments(self, index: int, one: Input, fold: Fold, *, products: bool) -> Moments:
        return Moments.load(moments_file(self.folder, index, fold), one, products=products)

    def imatrix(self) -> ImportanceMatrix:
        """What ``imatrix.gguf`` holds. Raises SprigError."""
        return read_imatrix(self.folder / IMATRIX)

    def square_sums(self, *, head: bool = False) -> SquareSums:
        """The squares as llama.cpp keeps them: of what its llama-imatrix measures, and with ``head`` of the head's input too."""
        sums: dict[str, Floats] = {}
        counts: dict[str, Floats] = {}
        for index, one in enumerate(self.facts.inputs):
            squares, tokens = self._sums(index, one)
            own = tokens if one.routed else tokens[:1]  # as llama-imatrix: one count for all matrices that no router chooses
            for name in one.weights:
                if name.startswith("blk.") or one.routed or (one.head and head):
                    sums[name], counts[name] = squares.reshape(len(own), -1), own.ravel()
        facts = self.facts
        return SquareSums(sums, counts, facts.datasets, max(1, facts.tokens // facts.chunk), facts.chunk)


def finish(folder: Path, facts: Facts) -> Statistics:
    """All sums lie in the folder: write the imatrix, and the facts last. Raises OutputError."""
    statistics = Statistics(folder, facts)
    statistics.square_sums().write(folder / IMATRIX)
    atomic_write(folder / STATISTICS, json.dumps(facts.to_dict(), indent=1))
    return statistics


def windows_hash(windows: Sequence[Sequence[int]]) -> str:
    """SHA-256 of token ids."""
    digest = hashlib.sha256()
    for ids in windows:
        digest.update(np.asarray([len(ids), *ids], "<i4").tobytes())
    return digest.hexdigest()
