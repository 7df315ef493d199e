"""Where a file came from: the provenance keys inside it and the model card beside it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any

import yaml

from pipeline.calibration import ImportanceMatrix
from pipeline.gguf_file import Value
from pipeline.recipe import Recipe
from pipeline.source import Source
from pipeline.store import CARD_MARK


def sprig_version() -> str:
    try:
        return version("sprig-llm")
    except PackageNotFoundError:
        return "0+unknown"


@dataclass(frozen=True, slots=True)
class Facts:
    """What the source's own model card says, as far as it is plain text. Untrusted: shown and copied, never obeyed."""

    licence: str | None = None
    licence_name: str | None = None
    licence_link: str | None = None
    tags: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    base_models: tuple[str, ...] = ()


def read_facts(readme: bytes | None) -> Facts:
    """The YAML front matter of a README.md; empty facts when there is none or it is broken."""
    text = (readme or b"").decode("utf-8", "replace")[:200_000]
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, RecursionError, ValueError):
        front = None
    if not isinstance(front, dict):
        return Facts()
    return Facts(
        _text(front.get("license")), _text(front.get("license_name")), _text(front.get("license_link")),
        _texts(front.get("tags")), _texts(front.get("language")), _texts(front.get("base_model")),
    )  # fmt: skip


def _text(value: Any) -> str | None:
    return value.strip()[:500] or None if isinstance(value, str) else None


def _texts(value: Any) -> tuple[str, ...]:
    items = value if isinstance(value, list) else [value]
    return tuple(t for t in (_text(v) for v in items[:100]) if t)


def size_label(n_weights: int) -> str:
    """Weights as people write them: 135M, 1.1B."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n_weights >= unit:
            number = f"{n_weights / unit:.1f}" if n_weights < 10 * unit else f"{n_weights / unit:.0f}"
            return number.removesuffix(".0") + name
    return str(n_weights)


def general_keys(source: Source, architecture: str, n_weights: int, recipe: Recipe) -> dict[str, Value]:
    """The ``general.*`` keys of a file made from a checkpoint, in GGUF's standard names."""
    facts = read_facts(source.files.get("README.md"))
    organization, _, short = source.name.rpartition("/")
    keys: dict[str, Value] = {
        "general.architecture": architecture,
        "general.type": "model",
        "general.name": short,
        "general.size_label": size_label(n_weights),
    }
    optional: dict[str, Value | None] = {
        "general.organization": organization or None,
        "general.license": facts.licence,
        "general.license.name": facts.licence_name,
        "general.license.link": facts.licence_link,
        "general.tags": list(facts.tags) or None,
        "general.languages": list(facts.languages) or None,
    }
    if source.repo_id:
        url = f"https://huggingface.co/{source.repo_id}"
        optional |= {
            "general.source.url": url,
            "general.source.repo_url": url,
            "general.base_model.count": 1,
            "general.base_model.0.name": short,
            "general.base_model.0.organization": organization or None,
            "general.base_model.0.repo_url": url,
            "general.base_model.0.version": source.commit,
        }
    keys |= {k: v for k, v in optional.items() if v is not None}
    return keys | quantization_keys(recipe)


def quantization_keys(recipe: Recipe) -> dict[str, Value]:
    return {"general.quantization_version": 2, "general.file_type": recipe.ftype}


def provenance_keys(
    source: Source, recipe: Recipe, overrides: Sequence[str], imatrix: ImportanceMatrix | None
) -> dict[str, Value]:
    """Who made the file, of what, how; the same for the same inputs, so no date and no path."""
    keys: dict[str, Value] = {"sprig.version": sprig_version(), "sprig.recipe": recipe.name}
    keys["sprig.source.name"] = source.name
    if source.commit:
        keys["sprig.source.commit"] = source.commit
    if overrides:
        keys["sprig.overrides"] = list(overrides)
    if imatrix:
        keys |= {
            "quantize.imatrix.file": imatrix.file,
            "quantize.imatrix.entries_count": len(imatrix.entries),
            "quantize.imatrix.chunks_count": imatrix.chunks,
            "sprig.imatrix.sha256": imatrix.sha256,
        }
        if imatrix.datasets:
            keys["quantize.imatrix.dataset"] = imatrix.datasets[0]
            keys["sprig.imatrix.datasets"] = list(imatrix.datasets)
    return keys


def model_card(
    *,
    file: str,
    size: int,
    keys: Mapping[str, Value],
    source: Source,
    recipe: Recipe,
    types: Mapping[str, int],
    shapes: Sequence[tuple[int, ...]],
    notes: Sequence[str],
    imatrix: ImportanceMatrix | None,
) -> str:
    """Markdown with the front matter that the Hub reads.

    Args:
        types: ggml type name -> number of tensors.
        shapes: of all tensors.
    """
    facts = read_facts(source.files.get("README.md"))
    n_weights = sum(prod(s) for s in shapes)
    front: dict[str, Any] = {"library_name": "gguf", "tags": ["gguf", "sprig", recipe.name.lower()]}
    if source.repo_id:
        front |= {"base_model": source.repo_id, "base_model_relation": "quantized"}
    for key, value in (("license", facts.licence), ("license_name", facts.licence_name), ("license_link", facts.licence_link)):
        if value:
            front[key] = value
    if facts.languages:
        front["language"] = list(facts.languages)
    origin = f"[{source.repo_id}](https://huggingface.co/{source.repo_id})" if source.repo_id else f"`{source.name}`"
    at = f" at commit `{source.commit}`" if source.commit else ""
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {file}",
        "",
        f"{origin}{at}, as {recipe.name} for llama.cpp. {CARD_MARK} {sprig_version()} in one pass from the original weights.",
        "",
        "| | |",
        "|---|---|",
        f"| Architecture | {keys.get('general.architecture')} |",
        f"| Weights | {size_label(n_weights)} |",
        f"| Size | {size:,} bytes, {8 * size / n_weights:.2f} bits per weight |",
        f"| Tensors | {', '.join(f'{n} {t}' for t, n in types.items())} |",
        f"| Imatrix | {f'{imatrix.file}, SHA-256 `{imatrix.sha256}`' if imatrix else 'none'} |",
        f"| Licence | {facts.licence or 'see the original model'} |",
    ]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    lines += ["", f"Run it with llama.cpp or llama-cpp-python, or look inside with `sprig inspect {file}`.", ""]
    return "\n".join(lines)
