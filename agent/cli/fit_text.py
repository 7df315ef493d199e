"""What `sprig fit` found, for a person, in 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

from agent.files import human_size
from agent.fit.fit import MEMORY_ERROR, Fit, FormEstimate, basis
from agent.fit.profile import DeviceProfile, ProfileError, sized
from agent.text import display

_WIDTH = 80


def report(found: Fit, verify: str) -> str:
    """The whole report.

    Args:
        verify: the commands that measure what is only predicted here.
    """
    device, chosen = found.device, found.chosen
    name = found.estimates[0].file.name
    title = device.words if device.name else f"this machine ({device.title})"
    lines = [
        *_fold(f"{display(name)} on {display(title)}: {display(found.budget.words)}.", "", ""),
        "", *_recipes(found), "",
    ]  # fmt: skip
    if chosen:
        said = (
            f"Take {chosen.recipe}: {found.why}." if len(found.estimates) > 1 else f"It fits, with a context of {_room(chosen)}."
        )
        lines += [*_fold(said, "", ""), "", *_contexts(chosen, found), ""]
    else:
        lines += [*_fold(f"It does not fit: {found.why}.", "", ""), ""]
    lines += _basis(found)
    return "\n".join([*lines, *_fold(verify, "On the device, this measures it: ", "  ")])


def _recipes(found: Fit) -> list[str]:
    lines = [f"  {'recipe':<9}{'file':>8}{'memory':>9}{'reads':>9}{'writes':>9}   with a context of"]
    for one in found.estimates:
        speeds = f"{_rate(one.speed.reads):>7}/s{_rate(one.speed.writes):>7}/s"
        memory = human_size(one.plan.need.total if one.plan else one.least)
        line = f"{'>' if one is found.chosen else ' '} {display(one.recipe):<9}{human_size(one.file.size):>8}{memory:>9}{speeds}"
        lines.append(f"{line}   {_room(one)}")
    return lines


def _room(one: FormEstimate) -> str:
    if not one.plan:
        return "does not fit"
    room = f"{one.plan.context:,}" + (f" in {one.plan.cache}" if one.plan.cache != "f16" else "")
    return f"{room}; {_short(one)}" if one.hazard else room


def _short(one: FormEstimate) -> str:
    return f"{one.slow:.0%} {'/'.join(one.slow_types[:2])}, slow"


def _contexts(one: FormEstimate, found: Fit) -> list[str]:
    """Memory of one recipe, context by context."""
    what = "repacked" if one.plan and one.plan.repack else "as in the file"
    need = one.contexts[0].f16
    lines = [
        f"Memory of {one.recipe}: weights {human_size(need.weights)} ({what}), the program {human_size(need.process)}, and",
        f"{'context':>9}{'K/V in f16':>13}{'computing':>11}{'in all':>10}{'K/V in q8_0':>14}{'computing':>11}{'in all':>10}",
    ]
    for row in one.contexts:
        line = f"{row.context:>9,}"
        for n, width in ((row.f16, 13), (row.q8_0, 14)):
            total = human_size(n.total) + " !" * (n.total > found.budget.size)
            line += f"{human_size(n.cache):>{width}}{human_size(n.compute):>11}{total:>10}"
        lines.append(line)
    if any(n.total > found.budget.size for row in one.contexts for n in (row.f16, row.q8_0)):
        lines.append("  ! more than a model may take")
    return lines


def _basis(found: Fit) -> list[str]:
    """Where the estimates are from, and how far they may be off."""
    device = found.device
    shown = found.chosen or min(found.estimates, key=lambda e: e.least)
    lines = _fold(
        f"Estimates: memory within {MEMORY_ERROR} %, writes (the first 128 tokens) within {device.decode.error} %, reads (a "
        f"prompt of 512) within {device.prefill.error} %. The speeds of {shown.recipe} are made of", "", "",
    )  # fmt: skip
    behind: dict[tuple[str, str], list[str]] = {}
    for what, unit, figure in basis(device, shown):
        behind.setdefault((figure.basis, figure.source), []).append(f"{figure.value:g} {unit} {what}")
    for (kind, source), figures in behind.items():
        lines += _fold(f"{', '.join(figures)}; {kind}: {display(source)}", "  ", "    ")
    return [*lines, ""]


def devices_table(found: Iterable[DeviceProfile | ProfileError]) -> str:
    """A line a device."""
    lines = [f"{'name':<22}{'memory':<20}{'1 GB writes':>13}  device"]
    for one in found:
        if isinstance(one, ProfileError):
            lines += _fold(f"! {display(str(one))}", "", "  ")
            continue
        sizes = [sized("", size)[1:-2] for size in one.sizes]
        memory = f"{', '.join(sizes)} {human_size(one.sizes[-1])[-2:]}"
        rate = f"{one.decode.bandwidth.value:.1f}/s"
        lines.append(f"{display(one.name):<22}{memory:<20}{rate:>13}  {display(one.title)}")
    return "\n".join(lines)


def _rate(value: float) -> str:
    return f"{value:.0f}" if value >= 99.5 else f"{value:.1f}" if value >= 0.95 else f"{value:.2f}"


def _fold(text: str, first: str, rest: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=first, subsequent_indent=rest, break_long_words=False) or [first]
