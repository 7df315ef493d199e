"""The draft of a vocabulary, which each kind of tokenizer makes, and the rules that hold for all kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from gguf import Keys, TokenType
from tokenizers import AddedToken

from agent.errors import VocabError
from pipeline.format.gguf_file import Value

PADDING_SCORE = -10000.0


class VocabularyToken(NamedTuple):  # there are up to 262,144 of them, and a dataclass takes three times as long to make
    """One token: its text as llama.cpp wants it, its type, its score."""

    text: str
    type: int = TokenType.NORMAL
    score: float = 0.0


Tokens = Mapping[int, VocabularyToken]  # by id; ids may be missing


@dataclass(frozen=True, slots=True)
class VocabularyDraft:
    """What a kind of tokenizer contributes.

    Attributes:
        model: ``tokenizer.ggml.model``.
        tokens: by id; ids may be missing.
        encode: text -> ids of the original, without added BOS and EOS, special tokens parsed.
        frame: ids that the original puts before and after a text.
        between: ids that the original puts between two texts.
        lookup: text of a token as the original spells it -> id.
        keys: further keys (merges, add_space_prefix, ...), full names.
        pre: ``tokenizer.ggml.pre``.
        scored: whether scores mean something.
        name_needs: what general.name must contain for llama.cpp to do so, "" for nothing.
        unknown: id of the token for what the vocabulary cannot write.
        exact: whether llama.cpp is expected to give the original's ids for a text.
        notes: lines for the user.
    """

    model: str
    tokens: Tokens
    encode: Callable[[str], list[int]]
    frame: tuple[list[int], list[int]]
    lookup: Callable[[str], int | None]
    keys: dict[str, Value]
    between: Sequence[int] = ()
    pre: str | None = None
    scored: bool = False
    name_needs: str = ""
    unknown: int | None = None
    exact: Callable[[str], bool] = field(default=lambda text: True)
    notes: tuple[str, ...] = ()


# Tokens that some models forget to mark as special although they steer the model.
_LOOKS_SPECIAL = re.compile(r"<\|(.*\|)?>|<｜(.*｜)?>|<unused.*>|<pad>|<mask>|<2mass>|\[@BOS@\]", re.DOTALL)


def looks_special(text: str) -> bool:
    return bool(_LOOKS_SPECIAL.fullmatch(text))


def added_type(token: AddedToken) -> int:
    """llama.cpp's type of an added token."""
    return int(TokenType.CONTROL if token.special or looks_special(token.content) else TokenType.USER_DEFINED)


def lay_out_tokens(draft: VocabularyDraft, n_rows: int) -> tuple[dict[str, Value], list[str]]:
    """The token list, types and scores, one per row of the embedding, every text used once.

    llama.cpp aborts its process when two tokens have the same text (it reads them as C strings, so a NUL ends one) and
    renames empty ones itself.

    Raises:
        VocabError: an id outside the embedding.
    """
    beyond = [number for number in draft.tokens if not 0 <= number < n_rows]
    if beyond:
        raise VocabError(f"the tokenizer has id {max(beyond)}, but the embedding has only {n_rows} rows; they do not fit")
    types, scores = [int(TokenType.UNUSED)] * n_rows, [PADDING_SCORE] * n_rows
    texts: list[str] = [""] * n_rows
    used: set[str] = set()
    broken: list[int] = []
    for number in sorted(draft.tokens):
        text, kind, score = draft.tokens[number]
        if text and "\0" not in text and text not in used:
            used.add(text)
            texts[number], types[number], scores[number] = text, int(kind), score
        else:
            broken.append(number)
    for number, text in enumerate(texts):
        if not text:
            unused = f"[PAD{number}]"
            while unused in used:
                unused += "_"
            used.add(unused)
            texts[number] = unused
    keys: dict[str, Value] = {Keys.Tokenizer.LIST: texts, Keys.Tokenizer.TOKEN_TYPE: types}
    if draft.scored:
        keys[Keys.Tokenizer.SCORES] = scores
    if not broken:
        return keys, []
    why = f"(empty, doubled or with a NUL; first: id {broken[0]})"
    return keys, [f"{len(broken)} tokens have no text of their own in llama.cpp {why} and were replaced by unused ones"]
