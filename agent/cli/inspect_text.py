"""Lays an inspection out for a person, at most 80 columns wide. All text from the file passes through ``display``."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from agent.files import human_size
from agent.gguf.inspection import Inspection
from agent.text import display

WIDTH = 80
_TEMPLATE_LINES = 6


def fit(text: str, width: int) -> str:
    """The text made safe to print and cut to the width."""
    shown = display(text[: width + 1])  # a sign is never shorter than what it stands for
    return shown if len(shown) <= width else shown[: width - 1] + "…"


def report(found: Inspection, *, tensors: bool = False) -> str:
    """The whole report; with ``tensors`` a line for each tensor too."""
    parts = [_head, _model, _types, _vocabulary, _template, _origin, _arm, _keys, *([_tensors] if tensors else [])]
    sections = [part(found) for part in parts]
    sections.append([line for note in found.notes for line in _wrap(f"note: {note}", indent="")])
    return "\n\n".join("\n".join(section) for section in sections if section)


def count(n: int) -> str:
    """A number of weights: 135 M, 1.24 B."""
    for unit, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:.3g} {letter}" if n < 100 * unit else f"{n / unit:.0f} {letter}"
    return str(n)


def _row(label: str, value: str) -> str:
    return f"  {label:<14}{fit(value, WIDTH - 16)}"


def _rows(title: str, rows: Sequence[tuple[str, Any]]) -> list[str]:
    lines = [_row(label, _number(value)) for label, value in rows if value is not None]
    return [title, *lines] if lines else []


def _head(found: Inspection) -> list[str]:
    form = f"GGUF {found.version}" if found.kind == "gguf" else "checkpoint; keys and vocabulary as its GGUF would have them"
    facts = f"{human_size(found.size)}, {count(found.n_weights)} weights, {found.bits_per_weight:.2f} bits per weight"
    return [fit(found.name, 10 * WIDTH), f"{facts}, {form}" if found.kind == "gguf" else f"{facts}\n{form}"]


def _number(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _model(found: Inspection) -> list[str]:
    heads, kv = found.hyper("attention.head_count"), found.hyper("attention.head_count_kv")
    rows = [
        ("name", found.keys.get("general.name")),
        ("architecture", found.architecture),
        ("context", f"{_number(c)} tokens" if (c := found.hyper("context_length")) else None),
        ("layers", found.hyper("block_count")),
        ("width", found.hyper("embedding_length")),
        ("heads", f"{_number(heads)}, key and value heads {_number(kv)}" if heads and kv else heads),
        ("experts", f"{n}, {found.hyper('expert_used_count')} used" if (n := found.hyper("expert_count")) else None),
        ("licence", found.keys.get("general.license")),
    ]
    return _rows("model", rows)


def _types(found: Inspection) -> list[str]:
    lines = [f"{'types':<12}{'tensors':>10}{'weights':>12}{'size':>12}{'of all':>8}"]
    total = sum(nbytes for _, _, nbytes in found.types.values()) or 1
    for kind, (n, weights, nbytes) in found.types.items():
        lines.append(f"  {fit(kind, 10):<10}{n:>10}{count(weights):>12}{human_size(nbytes):>12}{nbytes / total:>8.1%}")
    return lines


def _vocabulary(found: Inspection) -> list[str]:
    v = found.vocabulary
    if v is None:
        return []
    kind = f"{v.model} ({v.pre})" if v.pre else v.model
    lines = ["vocabulary", _row("kind", kind), _row("tokens", f"{v.size:,}" + (f", merges {v.merges:,}" if v.merges else ""))]
    return lines + [_row(role, f"{number:<8}{text}") for role, (number, text) in v.special.items()]


def _template(found: Inspection) -> list[str]:
    if not found.templates:
        return ["template", "  none: a base model, or one that is prompted in some other way"] if found.vocabulary else []
    lines = []
    for name, source in found.templates.items():
        lines.append(f"template {fit(name, 40)}, {len(source):,} characters")
        shown = source.splitlines()
        lines += [f"  {fit(line, WIDTH - 2)}" for line in shown[:_TEMPLATE_LINES]]
        if len(shown) > _TEMPLATE_LINES or any(len(line) > WIDTH - 2 for line in shown):
            lines.append("  … (all of it: --template)")
    return lines


def _origin(found: Inspection) -> list[str]:
    keys = found.keys
    made = f"Sprig {keys['sprig.version']}, recipe {keys.get('sprig.recipe', 'unknown')}" if "sprig.version" in keys else None
    matrix = keys.get("quantize.imatrix.file")
    rows = [
        ("by", made or keys.get("general.quantized_by")),
        ("from", keys.get("sprig.source.name") or keys.get("general.base_model.0.repo_url") or keys.get("general.source.url")),
        ("commit", keys.get("sprig.source.commit")),
        ("imatrix", f"{matrix}, {keys.get('quantize.imatrix.chunks_count', '?')} chunks" if matrix else None),
    ]
    return _rows("made", rows)


def _arm(found: Inspection) -> list[str]:
    if found.kind != "gguf" or not found.tensors:
        return []
    slow = found.slow_on_arm
    if sum(slow.values()) < 0.005:
        return ["on ARM", "  every large matrix has a type with fast kernels"]
    named = ", ".join(f"{share:.0%} {kind}" for kind, share in slow.items() if share >= 0.005)
    return ["on ARM", *_wrap(f"{sum(slow.values()):.0%} of the multiplied weights have types without fast kernels: {named}")]


def _wrap(text: str, indent: str = "  ") -> list[str]:
    return textwrap.wrap(display(text), WIDTH, initial_indent=indent, subsequent_indent="  ")


def _value(value: Any) -> str:
    if isinstance(value, dict) and "length" in value:
        return f"{value['length']:,}: {', '.join(map(repr, value['first'][:4]))}, …"
    if isinstance(value, float):
        return f"{value:.7g}"
    return repr(value) if isinstance(value, list) else str(value)


def _keys(found: Inspection) -> list[str]:
    width = min(46, max((len(display(key)) for key in found.keys), default=0))
    lines = [f"keys ({len(found.keys)})"]
    return lines + [f"  {fit(key, width):<{width}}  {fit(_value(value), WIDTH - width - 4)}" for key, value in found.keys.items()]


def _tensors(found: Inspection) -> list[str]:
    width = min(44, max((len(display(t.name)) for t in found.tensors), default=0))
    lines = [f"tensors ({len(found.tensors)})"]
    for t in found.tensors:
        shape = " x ".join(map(str, t.shape)) or "scalar"
        lines.append(f"  {fit(t.name, width):<{width}}  {shape:>16}  {fit(t.type, 7):<7} {human_size(t.nbytes):>8}")
    return lines
