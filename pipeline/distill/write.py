"""The student as a checkpoint folder of Hugging Face's layout: weights in float32, configuration, tokenizer, card."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from agent.files import atomic_write, write_error
from agent.text import display
from pipeline.card import read_facts, sprig_version
from pipeline.distill.lora import merged
from pipeline.distill.pair import Learning
from pipeline.distill.work import write_tensors
from pipeline.sources.adapter import CONFIG as ADAPTER
from pipeline.sources.packed.find import SETTINGS_FILES

_OWN = {"config.json", "README.md", ADAPTER, *SETTINGS_FILES}
_LICENCE = ("license", "license_name", "license_link", "language")


def small_files(student: Learning, teacher: Learning) -> dict[str, bytes]:
    """All that belongs into the student's folder beside its weights and its card; the tokenizer may be the teacher's."""
    files = {name: raw for name, raw in student.files.items() if name not in _OWN}
    if not student.has_tokenizer:
        files = {name: raw for name, raw in teacher.files.items() if name not in _OWN} | files
    return files


def write_weights(folder: Path, network: Any) -> None:
    """Write a network's weights, complete or as they were. Low-rank changes are merged. OutputError when they do not fit."""
    write_tensors(folder / "model.safetensors", merged(network), {"format": "pt"})


def write_student(folder: Path, network: Any, student: Learning, teacher: Learning) -> None:
    """Write a checkpoint, its configuration last. OutputError when it does not fit."""
    config = {k: v for k, v in student.config.items() if k not in ("torch_dtype", "quantization_config", "auto_map")}
    config |= {"architectures": [type(network).__name__], "dtype": "float32"}
    try:
        folder.mkdir(exist_ok=True)
        for name in (files := small_files(student, teacher)):
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise write_error(e, folder) from None
    write_weights(folder, network)
    for name, raw in files.items():
        atomic_write(folder / name, raw)
    atomic_write(folder / "config.json", json.dumps(config, indent=2) + "\n")


def card(name: str, student: Learning, teacher: Learning, facts: Mapping[str, str]) -> str:
    """The README.md of a distilled student: what it was, from whom it learned, how, and what came of it.

    ``facts`` are rows of a table.
    """
    own, theirs = read_facts(student.files.get("README.md")), read_facts(teacher.files.get("README.md"))
    repos = [one.source.repo_id for one in (student, teacher) if one.source is not None and one.source.repo_id]
    bases = list(dict.fromkeys([*repos, *(b for b in _texts(own.get("base_model"))), *_texts(theirs.get("base_model"))]))
    front: dict[str, Any] = {"library_name": "transformers", "tags": ["sprig", "distilled"]}
    front |= {key: value for key in _LICENCE if (value := own.get(key) or theirs.get(key))}
    if bases:
        front["base_model"] = bases
    rows = {"Student": student.name + ("" if student.source else " (weights drawn)"), "Teacher": teacher.name, **facts}
    return "\n".join([
        "---", yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(), "---", "", f"# {display(name)}", "",
        f"{display(student.name)}, taught by {display(teacher.name)}. Made by Sprig {sprig_version()}: `sprig distill`.", "",
        "| | |", "|---|---|", *(f"| {key} | {display(value)} |" for key, value in rows.items()), "",
        "It loads in transformers, and `sprig quantize` makes a GGUF of it.", "",
    ])  # fmt: skip


def _texts(value: Any) -> list[str]:
    return [one for one in (value if isinstance(value, list) else [value]) if isinstance(one, str) and one]
