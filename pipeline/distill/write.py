"""The student as a checkpoint folder of Hugging Face's layout: weights in float32, configuration, tokenizer, card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from agent.files import atomic_write, write_error
from pipeline.checkpoint.card import checkpoint_card, mentioned
from pipeline.checkpoint.carried import carried_files
from pipeline.checkpoint.write import write_small_files
from pipeline.distill.lora import merged
from pipeline.distill.pair import Learning
from pipeline.distill.work import write_tensors


def write_weights(folder: Path, network: Any) -> None:
    """Write a network's weights, complete or as they were. Low-rank changes are merged. OutputError when they do not fit."""
    write_tensors(folder / "model.safetensors", merged(network), {"format": "pt"})


def write_student(folder: Path, network: Any, student: Learning, teacher: Learning) -> None:
    """Write a checkpoint, its configuration last; the tokenizer may be the teacher's. OutputError when it does not fit."""
    config = {k: v for k, v in student.config.items() if k not in ("torch_dtype", "quantization_config", "auto_map")}
    config |= {"architectures": [type(network).__name__], "dtype": "float32"}
    files = carried_files(student.files)
    if not student.has_tokenizer:
        files = carried_files(teacher.files) | files
    try:
        folder.mkdir(exist_ok=True)
    except OSError as e:
        raise write_error(e, folder) from None
    write_weights(folder, network)
    write_small_files(folder, files)
    atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")


def distilled_card(name: str, student: Learning, teacher: Learning, facts: Mapping[str, str]) -> bytes:
    """The README.md of a distilled student: what it was, from whom it learned, how, and what came of it.

    ``facts`` are rows of a table.
    """
    own, theirs = (f"`{one.name}`" if one.source is None else mentioned(one.source) for one in (student, teacher))
    drawn = "" if student.source is not None else " (a configuration, whose weights were drawn)"
    return checkpoint_card(
        name, [one.source for one in (student, teacher) if one.source is not None], tag="distilled",
        what=f"{own}{drawn}, taught by {theirs}.", table=[("", ""), *facts.items()],
        then="It loads in transformers, and `sprig quantize` makes a GGUF of it.",
    )  # fmt: skip
