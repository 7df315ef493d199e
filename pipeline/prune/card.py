"""The card of a pruned checkpoint: what it is, what it was made of, what was cut. A GGUF made of it reads its ancestry here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from agent.text import display
from pipeline.card import read_facts, size_label, sprig_version
from pipeline.prune.outcome import CutPart
from pipeline.sources.source import Source

_CARRIED = ("license", "license_name", "license_link", "language", "pipeline_tag")


def ancestors(source: Source) -> list[str]:
    """The Hub ids that a model made of this one names as its base: its own, or of a local folder those that its card names."""
    own = [one.repo_id for one in (source.adapter, source) if one is not None and one.repo_id]
    named = read_facts(source.files.get("README.md")).get("base_model")
    return own or [one for one in (named if isinstance(named, list) else [named]) if isinstance(one, str)]


def pruned_card(name: str, source: Source, parts: Sequence[CutPart], weights: tuple[int, int]) -> bytes:
    """Markdown with the front matter that the Hub reads, UTF-8."""
    facts = read_facts(source.files.get("README.md"))
    tags = [tag for tag in facts.get("tags") or [] if isinstance(tag, str)] if isinstance(facts.get("tags"), list) else []
    front: dict[str, Any] = {key: facts[key] for key in _CARRIED if key in facts}
    front |= {"library_name": "transformers", "tags": [*tags, *(tag for tag in ("sprig", "pruned") if tag not in tags)]}
    if bases := ancestors(source):
        front |= {"base_model": bases, "base_model_relation": "finetune"}
    of = f"`{display(source.named.name)}`" + (f" at commit `{source.named.commit}`" if source.named.commit else "")
    lines = [
        "---", yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(), "---", "",
        f"# {display(name)}", "",
        f"{of}, pruned by Sprig {sprig_version()} from {size_label(weights[0])} to {size_label(weights[1])} weights.", "",
        "| cut | before | after | |", "|---|---|---|---|",
        *(f"| {part.kind} | {part.before:,} | {part.after:,} | {display(part.kept)} |" for part in parts),
        "", "Make a GGUF of it with `sprig quantize`, or let it learn again first.", "",
    ]  # fmt: skip
    return "\n".join(lines).encode("utf-8", "surrogateescape")
