"""The card of a checkpoint that Sprig made: what it is, of what, and how. A GGUF made of it reads its ancestry here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from agent.text import display
from pipeline.card import base_models, source_facts, sprig_version
from pipeline.sources.source import Source

_CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")


def checkpoint_card(
    name: str, made_of: Sequence[Source], *, tag: str, what: str, table: Sequence[Sequence[str]], then: str
) -> bytes:  # fmt: skip
    """Markdown with the front matter that the Hub reads, UTF-8.

    Args:
        name: of the new checkpoint.
        made_of: its ancestors, the nearest first: its facts and tags are carried over, and the others' where it has none.
        tag: what was done, in a word.
        what: the same in a sentence.
        table: rows, the head first.
        then: what can be done with it.
    """
    facts = [source_facts(source) for source in made_of]
    front: dict[str, Any] = {key: value for key in _CARRIED if (value := next((f[key] for f in facts if f.get(key)), None))}
    tags = facts[0].get("tags") if facts else None
    own = [one for one in tags if isinstance(one, str)] if isinstance(tags, list) else []
    front |= {"library_name": "transformers", "tags": list(dict.fromkeys([*own, "sprig", tag]))}
    if bases := list(dict.fromkeys(base for source in made_of for base, _ in base_models(source))):
        front |= {"base_model": bases, "base_model_relation": "finetune"}
    head, *rows = table
    lines = [
        "---", yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(), "---", "",
        f"# {display(name)}", "", f"{display(what)} Made by Sprig {sprig_version()}.", "",
        _row(head), "|" + "---|" * len(head), *map(_row, rows), "", then, "",
    ]  # fmt: skip
    return "\n".join(lines).encode("utf-8", "surrogateescape")


def mentioned(source: Source) -> str:
    """What a card calls a source: its name, and its commit where it has one."""
    return f"`{source.named.name}`" + (f" at commit `{source.named.commit}`" if source.named.commit else "")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(display, cells)) + " |"
