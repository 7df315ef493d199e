"""Tokens that must stay whatever the texts use: special ones, those that files name by id, and the marks of chats and calls."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import astuple
from typing import Any

import jinja2

from agent.dialects.families import DIALECTS, THOUGHTS
from pipeline.prune.vocab.ids import named_ids
from pipeline.prune.vocab.lexicon import Lexicon
from pipeline.vocab.files import parse_json
from pipeline.vocab.trial import walk

# Places that were kept free in training; their rows learned nothing.
_RESERVED = re.compile(
    r"<\|?(?:reserved_special_token|reserved|unused|dummy|placeholder|special|extra_token|extra_id)_?\d+\|?>|\[unused\d+\]",
    re.IGNORECASE,
)
_MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
_ROLES = ("system", "user", "assistant", "tool", "developer", "model", "\n", "\n\n")


def find_needed(
    lexicon: Lexicon,
    files: Mapping[str, bytes],
    config: Mapping[str, Any],
    templates: Mapping[str, str],
    encode: Callable[[str], list[int]],
) -> set[int]:
    """Ids of the tokens that must stay, without what they are merged of.

    Added tokens stay, but not those whose name says that they are in reserve (<|reserved_special_token_7|>), unless something
    names them. What a chat template writes by itself is no longer in tokens after the cut than before it.
    """
    named = {*named_ids(config), *named_ids(parse_json(files, "generation_config.json")), *_framing(lexicon.spec or {})}
    ids = {text: number for number, text in lexicon.texts.items()}
    written = [*_ROLES, *(text for template in templates.values() for text in literals(template))]
    styles = [*map(astuple, DIALECTS.values()), *map(astuple, THOUGHTS)]
    marks = {mark for fields in styles for mark in _marks(fields)}
    needed = lexicon.fixed | (named & lexicon.texts.keys())
    needed |= {number for number in lexicon.added if not _RESERVED.fullmatch(lexicon.texts[number])}
    needed |= {ids[text] for text in (*marks, *_roles(files)) if text in ids}
    return set(needed).union(*(encode(text) for text in written)) & lexicon.texts.keys()


def literals(template: str) -> list[str]:
    """The texts that stand in a chat template: what it may write by itself. Its code is read and not run."""
    try:
        lexed = list(jinja2.Environment(trim_blocks=True, lstrip_blocks=True).lex(template))
    except (jinja2.TemplateError, RecursionError):
        return _MARK.findall(template)
    found = [value for _, kind, value in lexed if kind == "data"]
    for _, kind, value in lexed:
        if kind == "string":
            try:
                found.append(value[1:-1].encode("ascii", "backslashreplace").decode("unicode-escape"))
            except UnicodeDecodeError:
                continue
    return [text for text in dict.fromkeys(found) if _writable(text)]


def _writable(text: str) -> bool:
    return bool(text) and not any("\ud800" <= c <= "\udfff" for c in text)


def _marks(fields: tuple[Any, ...]) -> Iterator[str]:
    for value in fields:
        for text in value if isinstance(value, tuple) else (value,):
            if isinstance(text, str):
                yield from _MARK.findall(text)


def _roles(files: Mapping[str, bytes]) -> Iterator[str]:
    """The tokens that the JSON files give a part: ``bos_token`` and its like."""
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        for key, value in parse_json(files, name).items():
            text = value.get("content") if isinstance(value, dict) else value
            if key.endswith("_token") and isinstance(text, str):
                yield text


def _framing(spec: Mapping[str, Any]) -> Iterator[int]:
    """Ids in tokenizer.json outside its vocabulary: what is put around a text, and what fills it up."""
    for step in walk(spec.get("post_processor")):
        special = step.get("special_tokens")
        for entry in special.values() if isinstance(special, dict) else ():
            yield from (number for number in entry.get("ids", ()) if isinstance(number, int))
        for name in ("sep", "cls"):
            pair = step.get(name)
            if isinstance(pair, list) and len(pair) == 2 and isinstance(pair[1], int):
                yield pair[1]
    padding = spec.get("padding")
    if isinstance(padding, dict) and isinstance(padding.get("pad_id"), int):
        yield padding["pad_id"]
