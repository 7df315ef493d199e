"""Provenance: the keys inside a file and the model card beside it say where the file came from."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from math import prod
from typing import Any

import yaml
from gguf import GGML_QUANT_VERSION, Keys

from agent.models.store import CARD_MARK
from agent.text import display
from pipeline.format.gguf_file import Value
from pipeline.format.imatrix import ImportanceMatrix
from pipeline.recipes.names import Recipe
from pipeline.sources.source import Source

_HUB = "https://huggingface.co/"
_LICENCE = {  # in a card's front matter -> in a GGUF
    "license": Keys.General.LICENSE, "license_name": Keys.General.LICENSE_NAME, "license_link": Keys.General.LICENSE_LINK,
}  # fmt: skip
_REPO = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)


@cache  # Python looks through all that is installed
def sprig_version() -> str:
    try:
        return version("sprig-llm")
    except PackageNotFoundError:
        return "0+unknown"


def read_facts(readme: bytes | None) -> dict[str, Any]:
    """Read the YAML front matter of a README.md; empty if it is missing or broken. It is untrusted: copied, never obeyed."""
    text = (readme or b"").decode("utf-8", "replace")[:200_000]
    match = re.match(r"---\r?\n(.*?)\r?\n---", text, re.DOTALL)
    try:
        front = yaml.safe_load(match[1]) if match else None
    except (yaml.YAMLError, RecursionError, ValueError):
        front = None
    return front if isinstance(front, dict) else {}


def _text(value: Any) -> str | None:
    return value.strip()[:500] or None if isinstance(value, str) else None


def _texts(value: Any) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [t for t in map(_text, items[:100]) if t]


def size_label(n_weights: int) -> str:
    """Weights as people write them: 135M, 1.1B."""
    for unit, name in ((10**12, "T"), (10**9, "B"), (10**6, "M"), (10**3, "K")):
        if n_weights >= unit:
            number = f"{n_weights / unit:.1f}" if n_weights < 10 * unit else f"{n_weights / unit:.0f}"
            return number.removesuffix(".0") + name
    return str(n_weights)


def general_keys(source: Source, architecture: str, n_weights: int, recipe: Recipe) -> dict[str, Value]:
    """The ``general.*`` keys of a file made from a checkpoint, in GGUF's standard names."""
    return {
        Keys.General.ARCHITECTURE: architecture,
        Keys.General.TYPE: "model",
        Keys.General.SIZE_LABEL: size_label(n_weights),
        **origin_keys(source),
        **quantization_keys(recipe),
    }


def source_facts(source: Source) -> dict[str, Any]:
    """What the card of a source says; of an adapter its own, with the base's licence where it names none."""
    facts = read_facts(source.files.get("README.md"))
    if source.adapter is None:
        return facts
    licence = {name: facts[name] for name in _LICENCE if name in facts}
    return licence | _without_places(read_facts(source.adapter.files.get("README.md")))


def base_models(source: Source) -> list[tuple[str, str | None]]:
    """What a model made of this one descends from, each with its commit where that is known.

    Its own repository and that of its adapter; of a local folder, what its own card names.
    """
    repos = [one for one in (source.adapter, source) if one is not None and one.repo_id]
    named = _texts(source_facts(source).get("base_model"))
    return [(one.name, one.commit) for one in repos] or [(base, None) for base in named]


def origin_keys(source: Source) -> dict[str, Value]:
    """The ``general.*`` keys that say where a checkpoint comes from: name, licence, base models.

    The base model of a conversion is the repository that was converted, of a merged adapter its own too; of a local folder, what
    its own card names.
    """
    facts, bases = source_facts(source), base_models(source)
    source = source.named
    organization, _, short = source.name.rpartition("/")
    optional: dict[str, Value | None] = {
        Keys.General.NAME: short,
        Keys.General.ORGANIZATION: organization or None,
        **{key: _text(facts.get(name)) for name, key in _LICENCE.items()},
        Keys.General.TAGS: _texts(facts.get("tags")) or None,
        Keys.General.LANGUAGES: _texts(facts.get("language")) or None,
    }
    if source.repo_id:
        optional |= {Keys.General.SOURCE_URL: _HUB + source.repo_id, Keys.General.SOURCE_REPO_URL: _HUB + source.repo_id}
    optional[Keys.General.BASE_MODEL_COUNT] = len(bases) or None
    for i, (base, commit) in enumerate(bases):
        organization, _, short = base.rpartition("/")
        optional |= {
            Keys.General.BASE_MODEL_NAME.format(id=i): short,
            Keys.General.BASE_MODEL_ORGANIZATION.format(id=i): organization or None,
            Keys.General.BASE_MODEL_VERSION.format(id=i): commit,
            Keys.General.BASE_MODEL_REPO_URL.format(id=i): _HUB + base if _REPO.fullmatch(base) else None,
        }
    return {k: v for k, v in optional.items() if v is not None}


def _without_places(facts: dict[str, Any]) -> dict[str, Any]:
    """The facts of an adapter's card without the base model's folder on the machine of the training, which PEFT writes there."""
    bases = [base for base in _texts(facts.get("base_model")) if _REPO.fullmatch(base)]
    return facts | {"base_model": bases, "tags": [t for t in _texts(facts.get("tags")) if not t.startswith("base_model:")]}


def quantization_keys(recipe: Recipe) -> dict[str, Value]:
    return {Keys.General.QUANTIZATION_VERSION: GGML_QUANT_VERSION, Keys.General.FILE_TYPE: recipe.ftype}


def provenance_keys(
    source: Source, recipe: Recipe, overrides: Sequence[str], imatrix: ImportanceMatrix | None
) -> dict[str, Value]:
    """Who made the file, from what, and how. The same inputs give the same keys, so they hold no date and no path."""
    keys: dict[str, Value] = {"sprig.version": sprig_version(), "sprig.recipe": recipe.name}
    for role, one in (("source", source.named), ("base", source if source.adapter else None)):
        if one is not None:
            keys[f"sprig.{role}.name"] = one.name
            if one.commit:
                keys[f"sprig.{role}.commit"] = one.commit
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


def _base_models(keys: Mapping[str, Any]) -> list[str]:
    """The Hub ids among a file's base models."""
    urls = [_text(keys.get(Keys.General.BASE_MODEL_REPO_URL.format(id=i))) or "" for i in range(100)]
    return [name for url in urls if _REPO.fullmatch(name := url.removeprefix(_HUB))]


def _mentioned(source: Source) -> str:
    """The name of a source in a card, with its page and commit."""
    name = f"[{source.repo_id}](https://huggingface.co/{source.repo_id})" if source.repo_id else f"`{source.name}`"
    return name + (f" at commit `{source.commit}`" if source.commit else "")


def model_card(
    *,
    file: str,
    size: int,
    keys: Mapping[str, Any],
    source: Source,
    recipe: Recipe,
    types: Mapping[str, int],
    shapes: Sequence[tuple[int, ...]],
    notes: Sequence[str],
    imatrix: ImportanceMatrix | None,
    fidelity: str | None = None,
) -> str:
    """Markdown with the front matter that the Hub reads.

    Args:
        keys: of the finished file. Untrusted: they may be those of a GGUF that a stranger made.
        types: ggml type name -> number of tensors.
        shapes: of all tensors.
        fidelity: how far the file is from its original, where that was measured.
    """
    n_weights = sum(prod(s) for s in shapes)
    front: dict[str, Any] = {"library_name": "gguf", "tags": ["gguf", "sprig", recipe.name.lower()]}
    if source.adapter is not None and (repos := [one.repo_id for one in (source.adapter, source) if one.repo_id]):
        front |= {"base_model": repos, "base_model_relation": "merge"}
    elif source.repo_id and source.adapter is None:
        front |= {"base_model": source.repo_id, "base_model_relation": "quantized"}
    elif bases := _base_models(keys):
        front["base_model"] = bases
    front |= {name: display(value) for name, key in _LICENCE.items() if (value := _text(keys.get(key)))}
    if languages := _texts(keys.get(Keys.General.LANGUAGES)):
        front["language"] = [display(language) for language in languages]
    origin = _mentioned(source) if source.adapter is None else f"{_mentioned(source.adapter)} merged into {_mentioned(source)}"
    weights = "that file" if source.kind == "gguf" else "the original weights"
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=True, allow_unicode=True).strip(),
        "---",
        "",
        f"# {file}",
        "",
        f"{origin}, as {recipe.name} for llama.cpp. {CARD_MARK} {sprig_version()} in one pass from {weights}.",
        "",
        "| | |",
        "|---|---|",
        f"| Architecture | {display(str(keys.get(Keys.General.ARCHITECTURE)))} |",
        f"| Weights | {size_label(n_weights)} |",
        f"| Size | {size:,} bytes, {8 * size / n_weights:.2f} bits per weight |",
        f"| Tensors | {', '.join(f'{n} {t}' for t, n in types.items())} |",
        f"| Imatrix | {f'{imatrix.file}, SHA-256 `{imatrix.sha256}`' if imatrix else 'none'} |",
        *([f"| Fidelity | {fidelity} |"] if fidelity else []),
        f"| Licence | {front.get('license', 'see the original model')} |",
    ]
    if notes:
        lines += ["", *(f"- {note}" for note in notes)]
    lines += ["", f"Run it with llama.cpp or llama-cpp-python, or look inside with `sprig inspect {shlex.quote(file)}`.", ""]
    return "\n".join(lines)
