"""A vocabulary that was cut, applied to a checkpoint: rows of embedding and head, tokenizer files, numbers in the configs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import CheckpointError
from pipeline.evaluate.windows import read_texts
from pipeline.prune.edits import Edits
from pipeline.prune.outcome import CutPart
from pipeline.prune.structure import Structure
from pipeline.prune.vocab.cut import VocabularyCut, cut_files
from pipeline.text.held_out import domains

_ROWS = ("token_embd.weight", "output.weight", "output.bias")
_WITH_IDS = ("vocab.json", "vocab.txt", "merges.txt", "tokenizer.model", "added_tokens.json", "sentencepiece.bpe.model")


@dataclass(frozen=True, slots=True)
class AppliedCut:
    """What a vocabulary changes beside the tensors. ``growth``: text -> its tokens before and after."""

    part: CutPart
    growth: dict[str, tuple[int, int]]
    files: dict[str, bytes]
    config: dict[str, Any]


def apply_vocabulary(cut: VocabularyCut, structure: Structure, edits: Edits, files: Mapping[str, bytes]) -> AppliedCut:
    """Note the edits of the tensors that have a row for each token, and say which files and settings change.

    Raises:
        CheckpointError: a token is kept for which the embedding has no row.
    """
    rows = np.array(cut.kept, np.int64)
    total = structure.architecture.vocab_rows
    if not len(rows) or rows.min() < 0 or rows.max() >= total:
        raise CheckpointError(
            f"the vocabulary keeps a token that the embedding of {total} rows does not have; report this as a bug"
        )
    names = {own for ours in _ROWS if (own := structure.find(ours)) is not None}
    for name in names:
        edits.keep_rows(name, rows)
    taken = {piece.source for tensor in structure.tensors.values() for piece in tensor.sources}
    for name, info in structure.infos.items():
        if name not in taken and info.shape and info.shape[0] == total:
            edits.leave_out(name)  # a head of the pre-training, for words that are gone
    new = {name: raw for name, raw in files.items() if name not in _WITH_IDS} | dict(cut.files)
    config = dict(cut.config)
    generation = config.pop("generation_config", {})
    if generation and "generation_config.json" in new:
        new["generation_config.json"] = json.dumps(json.loads(new["generation_config.json"]) | generation, indent=2).encode()
    growth = {one.name: (one.before, one.after) for one in (*cut.text, *cut.held_out)}
    part = CutPart("vocab", total, len(rows), "the tokens that the text needs stay")
    return AppliedCut(part, growth, new, {"vocab_size": len(rows), **config})


def cut_of(structure: Structure, texts: Sequence[Path], size: int | None) -> VocabularyCut:
    """The tokens that these texts need. Raises SprigError."""
    source, rows = structure.source, structure.architecture.vocab_rows
    read = read_texts(texts) if texts else None
    return cut_files(source.files, structure.config, rows, read, size, held_out=domains())
