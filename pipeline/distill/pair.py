"""Teacher and student as they are named: opened, and judged whether one can learn from the other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import CheckpointError, SourceError, UnsupportedError
from agent.models.find import expanded
from agent.text import brief, one_line
from pipeline.sources.base_model import open_model
from pipeline.sources.source import Source, fetch, open_checkpoint, read_config

_SAMPLE = 1 << 20  # bytes of each end of a weight file that tell it from another
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


@dataclass(frozen=True, slots=True)
class Learning:
    """A checkpoint, or a configuration alone.

    Attributes:
        name: as a person knows it.
        config: config.json, parsed.
        files: the small files by name.
        source: where its weights are; None when they are to be drawn.
    """

    name: str
    config: Mapping[str, Any]
    files: Mapping[str, bytes]
    source: Source | None

    @property
    def has_tokenizer(self) -> bool:
        return any(name in self.files for name in _TOKENIZERS)

    def folder(self) -> Path:
        """Where its files lie. What the Hub has is fetched."""
        assert self.source is not None
        return self.source.path or next(iter(fetch(self.source).values())).parent

    def identity(self) -> str:
        """Tells it from another of the same name: a digest of its configuration and of the ends of its weight files."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True).encode())
        sources = [one for one in (self.source, self.source and self.source.adapter) if one is not None]
        for name, path in (pair for one in sources for pair in sorted(fetch(one).items())):
            with path.open("rb") as file:
                size = path.stat().st_size
                digest.update(f"{name} {size}".encode() + file.read(_SAMPLE))
                file.seek(max(0, size - _SAMPLE))
                digest.update(file.read())
        return digest.hexdigest()


def open_teacher(name: str, **hub: Any) -> Learning:
    """Raises SprigError when there is no such model, or it is a GGUF."""
    return _opened(open_model(name, **hub))


def open_student(name: str, teacher: Learning, **hub: Any) -> Learning:
    """A checkpoint, or a folder with a config.json alone, which then has the teacher's tokenizer. Raises SprigError."""
    folder = expanded(name)
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {folder.name} if folder.is_file() else set()
    if "config.json" in names and not any(n.endswith((".safetensors", ".bin", ".gguf")) for n in names):
        path = folder / "config.json" if folder.is_dir() else folder
        try:
            config = json.loads(path.read_bytes())
        except (ValueError, OSError, RecursionError) as e:
            raise CheckpointError(f"{path} cannot be read as JSON ({one_line(e)})") from None
        if not isinstance(config, dict):
            raise CheckpointError(f"{path} is not a JSON object; it must be a config.json of transformers")
        own = (
            {n: (folder / n).read_bytes() for n in names if n in _TOKENIZERS or n.startswith("tokenizer")}
            if folder.is_dir()
            else {}
        )
        files = own if any(n in own for n in _TOKENIZERS) else {n: raw for n, raw in teacher.files.items() if n != "config.json"}
        return Learning(path.parent.resolve().name, config, files, None)
    return _opened(open_model(name, **hub))


def _opened(source: Source) -> Learning:
    if source.kind == "gguf":
        raise UnsupportedError(f"{source.name} is a GGUF; a checkpoint is needed, a folder or a model of the Hub")
    return Learning(source.name, read_config(source), source.files, source)


def vocabulary_size(config: Mapping[str, Any]) -> int:
    """Tokens that the model knows. Raises CheckpointError when the configuration does not say."""
    text = config.get("text_config")
    size = config.get("vocab_size", text.get("vocab_size") if isinstance(text, dict) else None)
    if type(size) is not int or size < 1:
        raise CheckpointError(f"config.json says no number of tokens (vocab_size is {brief(size)})")
    return size


def need_same_tokens(teacher: Learning, student: Learning) -> int:
    """How many tokens both know. Raises UnsupportedError when a token is not the same one for both."""
    sizes = vocabulary_size(teacher.config), vocabulary_size(student.config)
    if not teacher.has_tokenizer:
        raise SourceError(f"{teacher.name} has no tokenizer ({', '.join(_TOKENIZERS)}); take a complete checkpoint")
    ours, theirs = _tokens(teacher), _tokens(student) if student.has_tokenizer else _tokens(teacher)
    if ours != theirs:
        raise UnsupportedError(
            f"{teacher.name} and {student.name} have different vocabularies ({sizes[0]} and {sizes[1]} tokens), and a student "
            "learns from a teacher of the same tokens: name another teacher, or prune the teacher's vocabulary in the same way"
        )
    last = max(ours.values(), default=0) if isinstance(ours, dict) else 0
    if min(sizes) <= last:
        raise UnsupportedError(
            f"the tokenizer has tokens up to {last}, {teacher.name} knows {sizes[0]} and {student.name} {sizes[1]}: "
            "set vocab_size in the student's config.json to the teacher's"
        )
    return min(sizes)


def _tokens(model: Learning) -> Any:
    """What tells two vocabularies apart: token -> id, or a file's bytes where it is in no JSON."""
    if (raw := model.files.get("tokenizer.json")) is not None:
        try:
            held = json.loads(raw)
            vocab = held["model"]["vocab"]
            pairs = vocab.items() if isinstance(vocab, dict) else ((one[0], i) for i, one in enumerate(vocab))
            added = {one["content"]: one["id"] for one in held.get("added_tokens") or ()}
            return {str(token): int(i) for token, i in pairs} | added
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise CheckpointError(f"tokenizer.json of {model.name} is broken; download it again") from None
    return next(model.files[name] for name in _TOKENIZERS if name in model.files)


def checkpoint_of(model: Learning) -> Any:
    """The weights, to be read in a ``with``."""
    assert model.source is not None
    return open_checkpoint(model.source)
