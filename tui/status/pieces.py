"""What the status line says, and how much of it fits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rich.cells import cell_len

from agent.text import display
from tui.status.status import Status
from tui.status.words import bar, percent, seconds_left, short, size, tokens

PieceRole = Literal["quiet", "name", "busy", "good", "warn", "bad"]

SEPARATOR = " · "
FULL, VERY_FULL = 0.8, 0.95  # parts of the context from which a person is told that it runs out
HOT, TOO_HOT = 70.0, 80.0  # degrees Celsius; boards slow down at 80 to 85
LOW_BATTERY = 15  # percent
LITTLE_MEMORY = 150_000_000  # bytes; below that Android and Linux begin to end programs
_WIDE = 100
_ROLES: dict[str, PieceRole] = {"ready": "good", "no model": "warn"}  # of states; "busy" of the others
_LIVE = ("ahead", "reading", "thinking", "writing", "tool", "stopping")  # numbers change many times a second, and must not move


@dataclass(frozen=True, slots=True)
class StatusPiece:
    """A part of the line. ``right``: it stands at the right end, with what seldom changes."""

    text: str
    role: PieceRole = "quiet"
    right: bool = False


# What a place of the line asks for: (rank, piece), longer pieces with higher ranks. The smaller the rank, the sooner it is
# given room: under 10 what the model does, 10 to 39 what a person must know, 40 to 59 what changes, from 60 the rest.
# Of several pieces for one place the last that fits is shown.
_Wishes = Iterator[tuple[int, StatusPiece]]


def pieces(status: Status, width: int) -> list[StatusPiece]:
    """What fits into ``width`` cells with separators between, the most important first chosen, in the order of the line.

    Args:
        status: what there is to say.
        width: cells of the line.
    """
    wishes = [(rank, place, piece) for place, source in enumerate(_PLACES) for rank, piece in source(status, width >= _WIDE)]
    chosen: dict[int, StatusPiece] = {}
    for _, place, piece in sorted(wishes, key=lambda wish: wish[0]):
        trial = {**chosen, place: piece}
        if sum(cell_len(p.text) + len(SEPARATOR) for p in trial.values()) - len(SEPARATOR) <= width:
            chosen = trial
    return [chosen[place] for place in sorted(chosen)]


def _state(status: Status, wide: bool) -> _Wishes:
    match status.state:
        case "loading":
            yield from _loading(status, wide)
        case "ahead":
            yield 0, StatusPiece("ready", "good")
            yield 40, StatusPiece(f"ready, reads ahead {percent(status.read / max(1, status.read_total)).rjust(4)}", "good")
        case "reading":
            yield from _reading(status, wide)
        case "tool":
            yield 0, StatusPiece("tool", "busy")
            if status.tool:
                yield 44, StatusPiece(f"tool {short(display(status.tool))}", "busy")
        case "waiting":
            yield 0, StatusPiece("waiting for you", "warn")
        case state:
            yield 0, StatusPiece(state, _ROLES.get(state, "busy"))


def _loading(status: Status, wide: bool) -> _Wishes:
    yield 0, StatusPiece("loading", "busy")
    if status.loaded is not None:
        share = percent(status.loaded).rjust(4)
        yield 1, StatusPiece(f"loading {share}", "busy")
        yield 40, StatusPiece(f"loading {bar(status.loaded, 10 if wide else 5)} {share}", "busy")


def _reading(status: Status, wide: bool) -> _Wishes:
    yield 0, StatusPiece("reading", "busy")
    if status.read_total <= 0:
        return
    part = status.read / status.read_total
    left = seconds_left(status.left)
    share = percent(part).rjust(4)
    meter = f"{bar(part, 10 if wide else 5)} {left or share}"
    total = f"{status.read_total:,}"
    yield 1, StatusPiece(f"reading {share}", "busy")
    yield 40, StatusPiece(f"reading {meter}", "busy")
    yield 46, StatusPiece(f"reading {status.read:{len(total)},}/{total} {meter}", "busy")


def _voice(status: Status, wide: bool) -> _Wishes:
    voice = status.voice
    if voice.kind == "listening":
        yield 10, StatusPiece("listening", "warn")
        if voice.level is not None:
            yield 41, StatusPiece(f"listening {bar(voice.level, 5)}", "warn")
    elif voice.kind == "starting":
        yield 42, StatusPiece("voice starting")


def _queued(status: Status, wide: bool) -> _Wishes:
    if status.queued > 0:
        yield 30, StatusPiece(f"{status.queued} queued", "name")


def _speed(status: Status, wide: bool) -> _Wishes:
    if status.state in ("loading", "reading", "no model"):
        return
    if status.speed is not None and 0 <= status.speed < math.inf:
        number = f"{status.speed:.1f}" if status.speed < 99.95 else f"{status.speed:.0f}"
        yield 45, StatusPiece(f"{_still(status, number, 4)} t/s")
    elif status.state in ("thinking", "writing"):
        yield 45, StatusPiece("   – t/s")  # its place, so that nothing moves when the number is there


def _context(status: Status, wide: bool) -> _Wishes:
    if not status.context or status.context < 0 or status.used is None:
        return
    part = status.used / status.context
    unit = 1024 if status.context % 1024 == 0 else 1000
    share = percent(part).rjust(4 if status.state in _LIVE else 0)
    counts = f"{_still(status, tokens(status.used, unit), 4)}/{tokens(status.context, unit)} {share}"
    if part < FULL:
        yield 49, StatusPiece(f"{share} full")
        yield 50, StatusPiece(counts)
    else:
        role: PieceRole = "bad" if part >= VERY_FULL else "warn"
        yield 24, StatusPiece(f"{share} full", role)
        yield 50, StatusPiece(f"{counts} nearly full" if part < 1 else f"{counts} full", role)


def _prompt(status: Status, wide: bool) -> _Wishes:
    if status.state == "reading":
        if status.read_cached > 0:
            yield 74, StatusPiece(f"{tokens(status.read_cached)} cached")
    elif status.cached is not None and status.new is not None:
        yield 74, StatusPiece(f"{tokens(status.cached)} cached + {tokens(status.new)} new")


def _model(status: Status, wide: bool) -> _Wishes:
    name, kind = display(status.model), display(status.quantization)
    both = f"{short(name)} {kind}".strip() if kind.lower() not in name.lower() else short(name)
    if both:
        yield 64, StatusPiece(both, "name", True)


def _memory(status: Status, wide: bool) -> _Wishes:
    free = status.device.available
    if free is not None and free < LITTLE_MEMORY:
        yield 23, StatusPiece(f"only {size(free)} free", "bad", True)
        return
    known = [f"memory {size(status.memory)}"] if status.memory else []
    if known:
        yield 80, StatusPiece(known[0], "quiet", True)
    if free is not None:
        yield 90, StatusPiece(", ".join([*known, f"{size(free)} free"]), "quiet", True)


def _heat(status: Status, wide: bool) -> _Wishes:
    degrees, why = status.device.temperature, status.device.throttled
    shown = f"{degrees:.0f} °C" if degrees is not None and math.isfinite(degrees) else ""
    hot = bool(shown) and degrees is not None and degrees >= HOT
    warm = f"{shown} hot" if hot else shown
    if why:
        yield 21, StatusPiece("throttled!", "bad", True)
        if warm:
            yield 43, StatusPiece(f"{warm} throttled!", "bad", True)
        yield 62, StatusPiece(f"{warm} throttled: {display(', '.join(why))}".strip(), "bad", True)
    elif hot and degrees is not None:
        yield 22, StatusPiece(warm, "bad" if degrees >= TOO_HOT else "warn", True)
    elif shown:
        yield 60, StatusPiece(shown, "quiet", True)


def _battery(status: Status, wide: bool) -> _Wishes:
    battery, charging = status.device.battery, status.device.charging
    if battery is None:
        return
    if battery.percent <= LOW_BATTERY and not charging:
        yield 20, StatusPiece(f"battery {battery.percent} % low", "bad", True)
    else:
        yield 70, StatusPiece(f"battery {battery.percent} %", "quiet", True)
        if charging:
            yield 76, StatusPiece(f"battery {battery.percent} % charging", "quiet", True)


def _load(status: Status, wide: bool) -> _Wishes:
    load = status.device.load
    if load is not None and math.isfinite(load):
        yield 85, StatusPiece(f"load {load:.1f}", "quiet", True)


def _still(status: Status, number: str, cells: int) -> str:
    """While numbers change, a shorter one takes as much room as a longer one."""
    return number.rjust(cells) if status.state in _LIVE else number


_PLACES = (_state, _voice, _queued, _speed, _context, _prompt, _model, _memory, _heat, _battery, _load)
