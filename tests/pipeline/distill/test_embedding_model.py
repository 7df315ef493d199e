"""An embedding model on its way to a device: it loses a layer, learns again, is quantized, and its vectors are compared there."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.embedding.embedder import Embedder
from pipeline import distill, quantize
from pipeline.distill.options import DistillOptions
from tests.fixtures.later import needs
from tests.pipeline.prune.models import pruned, tiny

needs("torch", "transformers")

LINES = [f"the {a} {b} of the garden" for a in ("old", "green", "small") for b in ("tree", "water", "stone", "wind")]


@pytest.mark.slow
def test_the_student_gives_nearly_the_teachers_vectors_on_the_device(tmp_path: Path) -> None:
    teacher = tiny("distilbert")
    (tmp_path / "notes.txt").write_text("\n".join(LINES) * 4)
    pruned("distilbert", tmp_path / "half", depth="drop:1")
    options = DistillOptions(width=32, batch=4, tokens=2500, rate=4e-3, bf16=False)
    text = [tmp_path / "notes.txt"]
    distill(str(teacher / "hf"), str(tmp_path / "half"), tmp_path / "student", data=text, options=options, threads=1)
    for name in ("half", "student"):
        quantize(str(tmp_path / name), "Q8_0", tmp_path / f"{name}.gguf", threads=1)
    whole, half, student = (vectors(path) for path in (teacher / "model.gguf", tmp_path / "half.gguf", tmp_path / "student.gguf"))
    lost, kept = (1 - float(np.mean(np.sum(whole * v, axis=1))) for v in (half, student))
    print(f"cosine {1 - lost:.4f} after the cut, {1 - kept:.4f} after learning")
    assert kept < 0.5 * lost
    assert kept < 0.15


def vectors(gguf: Path) -> np.ndarray:
    """Of the lines, each 1 long: float32 [lines, width]."""
    with Embedder(gguf, pooling="mean", threads=1) as embedder:
        return np.asarray(embedder.embed(LINES))
