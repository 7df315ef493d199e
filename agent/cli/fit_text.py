"""What `sprig fit` found, for a person, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from agent.files import human_size
from agent.fit.fit import MEMORY_ERROR, Estimate, Fit, basis
from agent.fit.profile import DeviceProfile, ProfileError, sized
from agent.text import display

_WIDTH = 80


def report(found: Fit, model: str, verify: str) -> str:
    """The whole report.

    Args:
        model: as a person named it.
        verify: the commands that measure what is only predicted here.
    """
    device, chosen = found.device, found.chosen
    lines = [
        *_fold(f"{display(model)} on {display(device.title)}: {display(found.budget.words)}", "", ""),
        "", *_recipes(found), "",
    ]  # fmt: skip
    if chosen:
        said = f"Take {chosen.recipe}: {found.why}." if len(found.estimates) > 1 else "It fits."
        lines += [*_fold(said, "", ""), "", *_contexts(chosen, found), ""]
    else:
        lines += [*_fold(f"It does not fit: {found.why}.", "", ""), ""]
    lines += _basis(found)
    return "\n".join([*lines, *_fold(verify, "measure it     ", " " * 15)])


def _recipes(found: Fit) -> list[str]:
    yes = "with a context of"
    lines = [f"  {'recipe':<9}{'file':>8}{'memory':>9}{'reads':>9}{'writes':>9}   {yes}"]
    for one in found.estimates:
        speeds = f"{_rate(one.speed.reads):>7}/s{_rate(one.speed.writes):>7}/s"
        memory = human_size(one.plan.need.total if one.plan else one.least)
        line = f"{'>' if one is found.chosen else ' '} {display(one.recipe):<9}{human_size(one.file.size):>8}{memory:>9}{speeds}"
        lines.append(f"{line}   {_room(one)}")
    return lines


def _room(one: Estimate) -> str:
    if not one.plan:
        return "does not fit"
    room = f"{one.plan.context:,}" + (f" in {one.plan.cache}" if one.plan.cache != "f16" else "")
    return f"{room}; {_short(one)}" if one.hazard else room


def _short(one: Estimate) -> str:
    return f"{one.slow:.0%} {'/'.join(one.slow_types[:2])}, slow"


def _contexts(one: Estimate, found: Fit) -> list[str]:
    """Memory of one recipe, context by context."""
    what = "repacked" if one.plan and one.plan.repack else "as in the file"
    head = f"{'K/V f16':>10}{'q8_0':>9}{'computing':>11}{'in all f16':>12}{'q8_0':>9}"
    need = one.contexts[0].f16
    lines = [
        f"Memory of {one.recipe}: weights {human_size(need.weights)} ({what}), the program {human_size(need.process)}, and",
        f"{'context':>9}{head}",
    ]
    for row in one.contexts:
        f16, q8_0 = (human_size(n.total) + " !" * (n.total > found.budget.size) for n in (row.f16, row.q8_0))
        parts = f"{human_size(row.f16.cache):>10}{human_size(row.q8_0.cache):>9}{human_size(row.f16.compute):>11}"
        lines.append(f"{row.context:>9,}{parts}{f16:>12}{q8_0:>9}")
    if any(n.total > found.budget.size for row in one.contexts for n in (row.f16, row.q8_0)):
        lines.append("  ! more than a model may take")
    return lines


def _basis(found: Fit) -> list[str]:
    """Where the estimates are from, and how far they may be off."""
    device = found.device
    shown = found.chosen or min(found.estimates, key=lambda e: e.least)
    lines = [
        f"These are estimates: memory within {MEMORY_ERROR} %, writes (the first 128 tokens) within {device.decode.error} %,",
        f"reads (512 tokens) within {device.prefill.error} %. They are made of",
    ]
    for what, unit, figure in basis(device, shown):
        lines += _fold(f"{figure.value:g} {unit}, {figure.basis}: {display(figure.source)}", f"  {what:<21}", " " * 23)
    return [*lines, ""]


def devices_table(found: Iterable[DeviceProfile | ProfileError]) -> str:
    """A line a device."""
    lines = [f"{'name':<22}{'memory':<20}{'writes 1 GB at':>15}  device"]
    for one in found:
        if isinstance(one, ProfileError):
            lines += _fold(f"! {display(str(one))}", "", "  ")
            continue
        sizes = ", ".join(sized("", size)[1:].upper().replace("GB", "") for size in one.sizes)
        memory = f"{sizes} GB" if "MB" not in sizes else sizes
        rate = f"{one.decode.bandwidth.value:.1f} t/s"
        lines.append(f"{display(one.name):<22}{memory:<20}{rate:>15}  {display(one.title)}")
    return "\n".join(lines)


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _fold(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False) or [first]
