"""The list of stored models for a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.files import human_size
from agent.home import models
from agent.models.choices import look_at
from pipeline.cli.inspect_text import fit


def memory(path: Path, available: int) -> dict[str, Any]:
    """Bytes of memory that a model would take, and whether so many are available; None for what is no model to chat with."""
    try:
        choice = look_at(path.absolute(), available)
    except OSError:  # not finished, or removed meanwhile
        return {"needs": None, "fits": None}
    return {"needs": choice.need, "fits": choice.fits} if choice.need else {"needs": None, "fits": None}


def listing(summaries: Sequence[Mapping[str, Any]]) -> str:
    """A line a model; what cannot be read or is not finished says so."""
    if not summaries:
        return f"no models in {models()}; `sprig quantize MODEL` makes one"
    names = max(4, min(40, max(len(str(s["name"])) for s in summaries)))
    lines = [f"{'name':<{names}}  {'size':>8}  {'recipe':<7} {'arch':<10} {'context':>8}  {'fits':<4}  source"]
    for s in summaries:
        head = f"{fit(str(s['name']), names):<{names}}  {human_size(s['size']):>8}"
        if s.get("problem"):
            lines.append(f"{head}  {fit(str(s['problem']), 60)}")
            continue
        context = f"{s['context']:,}" if isinstance(s["context"], int) else "-"
        facts = f"{fit(str(s['recipe'] or '-'), 7):<7} {fit(str(s['architecture'] or '-'), 10):<10} {context:>8}"
        fits = {True: "yes", False: "no"}.get(s["fits"], "-")
        lines.append(f"{head}  {facts}  {fits:<4}  {fit(str(s['source'] or '-'), 60)}")
    return "\n".join(lines)
