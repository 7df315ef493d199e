"""All that the status line knows, at full length."""

from __future__ import annotations

from collections.abc import Iterator

from agent.text import display
from tui.status.status import Status
from tui.status.words import percent, size

_STATES = {
    "ahead": "ready; system prompt and tools are read before you ask",
    "reading": "reading the prompt",
    "tool": "a tool runs",
    "waiting": "waiting for your answer",
    "no model": "no model is loaded",
}
_VOICES = {"missing": "no engine is installed", "starting": "getting ready"}


def details(status: Status) -> list[tuple[str, str]]:
    """(what, value) of everything that is known, ready to be shown; nothing about what is not known."""
    return [(name, display(value)) for name, value in _details(status) if value]


def _details(status: Status) -> Iterator[tuple[str, str]]:
    yield "Model", status.model
    yield "Quantization", status.quantization
    yield "State", _state(status)
    if status.state == "reading" and status.read_total > 0:
        yield "Prompt", _prompt(status)
    elif status.cached is not None and status.new is not None:
        yield "Last prompt", f"{status.cached:,} tokens from the cache, {status.new:,} computed"
    if status.speed is not None:
        yield "Speed", f"{status.speed:.1f} tokens/s"
    if status.context and status.used is not None:
        part = status.used / status.context
        yield "Context", f"{status.used:,} of {status.context:,} tokens, {percent(part)}"
    if status.queued:
        yield "Queued", "1 message" if status.queued == 1 else f"{status.queued} messages"
    yield from _device(status)
    if status.voice.kind != "off":
        yield "Voice", _VOICES.get(status.voice.kind, status.voice.kind)


def _state(status: Status) -> str:
    if status.state == "tool" and status.tool:
        return f"the tool {status.tool} runs"
    if status.state == "loading" and status.loaded is not None:
        return f"loading, {percent(status.loaded)}"
    return _STATES.get(status.state, status.state)


def _prompt(status: Status) -> str:
    text = f"{status.read:,} of {status.read_total:,} tokens read, {status.read_cached:,} of them from the cache"
    return text if status.left is None else f"{text}; {status.left:.0f} s left"


def _device(status: Status) -> Iterator[tuple[str, str]]:
    device = status.device
    if status.memory:
        yield "Memory of the model", size(status.memory)
    if device.available is not None:
        yield "Memory free", size(device.available)
    if device.temperature is not None:
        yield "Temperature", f"{device.temperature:.0f} °C"
    if device.throttled is not None:
        yield "Throttling", ", ".join(device.throttled) or "none"
    if device.battery is not None:
        yield "Battery", str(device.battery)
    if device.load is not None:
        yield "Load", f"{device.load:.2f} over a minute"
