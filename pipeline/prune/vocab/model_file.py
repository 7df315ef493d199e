"""tokenizer.model with fewer pieces.

Format: sentencepiece_model.proto in https://github.com/google/sentencepiece (ModelProto).
"""

from __future__ import annotations

from collections.abc import Mapping

from gguf import TokenType

from agent.errors import UnsupportedError
from pipeline.vocab.sentencepiece import parse_model, wire_fields

_PIECE, _TRAINER, _SELF_TEST = 1, 2, 4
_VOCAB_SIZE = 4  # of trainer_spec
_ROLES = {40: 0, 41: 1, 42: 2, 43: -1}  # unk_id, bos_id, eos_id, pad_id of trainer_spec, and what holds where they are not said


def cut_model(raw: bytes, texts: Mapping[int, str], new: Mapping[int, int]) -> bytes:
    """The model with only the pieces that are kept, in the same order.

    Args:
        raw: the model.
        texts: of the tokenizer, by id; another file may put tokens in the place of some pieces, and behind the last.
        new: old id -> new id of the tokens that are kept.

    Raises:
        VocabError: the model is broken.
        UnsupportedError: another file gives its ordinary pieces other ids.
    """
    pieces = parse_model(raw).pieces
    other = [n for n, piece in enumerate(pieces) if piece.type == TokenType.NORMAL and texts.get(n) != piece.text]
    if any(n in texts for n in other):
        raise UnsupportedError(
            f"tokenizer.model calls token {other[0]} {pieces[other[0]].text[:40]!r} and another file does not, so they cannot be "
            "cut as one; remove tokenizer.model if tokenizer.json is the one that counts"
        )
    out, number, count = [], 0, sum(n in new for n in range(len(pieces)))
    for kind, value in wire_fields(raw):
        if kind == _SELF_TEST:  # it names ids
            continue
        if kind == _PIECE:
            number += 1
            if number - 1 not in new:
                continue
        elif kind == _TRAINER:
            value = bytes(value) + _moved(dict(wire_fields(value)), new, count)
        out.append(_delimited(kind, bytes(value)))
    return b"".join(out)


def _moved(trainer: Mapping[int, int], new: Mapping[int, int], count: int) -> bytes:
    """Fields that take the place of those before them: of a field that is there twice the last counts."""
    fields = _number(_VOCAB_SIZE, count)
    for field, default in _ROLES.items():
        old = trainer.get(field, default)
        if old in new:
            fields += _number(field, new[old])
    return fields


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _delimited(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content
