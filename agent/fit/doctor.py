"""What `sprig doctor` finds: how this machine is, what Sprig makes of it, what that costs, and what would mend it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent import home
from agent.children import process
from agent.device import features, kernel, machine, processor
from agent.errors import SprigError
from agent.files import free_disk, human_size
from agent.fit import measure
from agent.fit.build import Build, read_build
from agent.models.memory import MemoryBudget

_SMALL_MEMORY = 500_000_000  # bytes; a model of 360 million weights and its context want more
_SLOW_DISK = 40_000_000  # bytes a second: an SD card; a model of 1 GB takes half a minute
_HOT = 80.0  # degrees Celsius; a Raspberry Pi slows down from there
_REINSTALL = "pip install --force-reinstall --no-cache-dir llama-cpp-python"
_REBUILD = f'CMAKE_ARGS="-DGGML_NATIVE=ON" {_REINSTALL} --no-binary llama-cpp-python'
_CLOCKS = "sys/devices/system/cpu/cpu*/cpufreq"
# A feature that a build should use when the processor has it, and what is lost without.
_WANTED = {
    "dotprod": "prompts are read at about half the speed",
    "i8mm": "prompts are read slower",
    "avx2": "everything takes several times as long",
    "avx512f": "prompts are read slower",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: what it is, in a word or two.
        found: how it is, in one line.
        costs: what is lost by it; empty when all is well.
        mend: the command or the step that mends it.
    """

    about: str
    found: str
    costs: str = ""
    mend: str = ""


def examine(root: Path = Path("/")) -> Iterator[Finding]:
    """Look at everything, the quick things first. Each is found out when it is asked for; measuring takes about two seconds.

    Args:
        root: where ``proc`` and ``sys`` are mounted.
    """
    yield from _processor(root)
    yield _llama(root)
    yield _memory(root)
    yield _bandwidth(root)
    yield _storage()
    yield from _heat(root)
    yield _sandbox()


def _processor(root: Path) -> Iterator[Finding]:
    here = features.features(root)
    cores = processor.read_cores(root)
    name = kernel.model_name(root) or platform.machine()
    system = f"{platform.system()}, Python {platform.python_version()}"
    yield Finding("processor", f"{name}, {len(cores)} cores, {', '.join(sorted(here)) or 'no features that ggml uses'}; {system}")
    if sys.maxsize < 1 << 32:
        yield Finding("system", "32 bits", "no ready packages, and half the speed", "install the 64-bit system")
    threads = processor.choose_threads(root)
    yield Finding("threads", f"{threads.decode} to write, {threads.prefill} to read: {threads.why}")
    if any(kernel.text(place / "scaling_governor") == "powersave" for place in root.glob(_CLOCKS) if not _steers_itself(place)):
        yield Finding(
            "clock", "held low by the governor powersave", "half the speed or less",
            "echo ondemand | sudo tee /sys/devices/system/cpu/cpu*/cpufreq/scaling_governor",
        )  # fmt: skip


def _steers_itself(place: Path) -> bool:
    """Whether "powersave" is only the name of what raises the clock when there is work, as with the drivers of new PCs."""
    return kernel.text(place / "scaling_driver") in ("intel_pstate", "amd-pstate-epp")


def _llama(root: Path) -> Finding:
    try:
        build = read_build()
    except SprigError as e:
        return Finding("llama.cpp", str(e), "no model can be loaded", _REINSTALL)
    return judge_build(build, features.features(root), features.repacked_types(root))


def judge_build(build: Build, here: frozenset[str], repacked: frozenset[str]) -> Finding:
    """Whether a build uses what the processor has."""
    found = f"llama-cpp-python {build.version}, built for {', '.join(sorted(build.features)) or 'any processor of this kind'}"
    for feature, costs in _WANTED.items():
        if feature in here and feature not in build.features:
            return Finding("llama.cpp", f"{found}; {feature} is not used", costs, _REBUILD)
    return Finding("llama.cpp", f"{found}; quick here: {', '.join(sorted(repacked)) or 'no type more than others'}")


def _memory(root: Path) -> Finding:
    budget, free = MemoryBudget.of(None), machine.available_memory(root)
    found = f"{human_size(free)} free, {human_size(budget.size)} of it for a model"
    if budget.size >= _SMALL_MEMORY:
        return Finding("memory", found)
    return Finding(
        "memory", found, "only the smallest models fit, with a short context", "close other programs: ps aux --sort=-rss | head"
    )


def _bandwidth(root: Path) -> Finding:
    threads = processor.choose_threads(root).decode
    rate = measure.memory_bandwidth(threads)
    most = f"at most {rate / 1e9:.0f} tokens/s" if rate >= 1e10 else f"at most {rate / 1e9:.1f} tokens/s"
    return Finding("bandwidth", f"memory is read at {human_size(rate)}/s: {most} for a model of 1 GB")


def _storage() -> Finding:
    place = home.models()
    rate = measure.storage_speed(place)
    found = f"{place}: {human_size(free_disk(place))} free"
    if rate is None:
        return Finding(
            "storage", found, "no model can be kept there", "make it writable, or name another place: export SPRIG_HOME=..."
        )
    found += f", read at {human_size(rate)}/s"
    if rate >= _SLOW_DISK:
        return Finding("storage", found)
    return Finding(
        "storage", found, f"a model of 1 GB takes {1e9 / rate:.0f} s to load", "put SPRIG_HOME on an SSD: export SPRIG_HOME=..."
    )


def _heat(root: Path) -> Iterator[Finding]:
    degrees, slowed, battery = machine.temperature(root), machine.throttling(root), machine.battery(root)
    found = "not told" if degrees is None else f"{degrees:.0f} °C"
    if slowed:
        mend = "a stronger power supply" if "under-voltage" in slowed else "a heat sink, and a fan"
        yield Finding("heat", f"{found}; {', '.join(slowed)}", "the processor runs below its speed now", mend)
    elif degrees is not None and degrees >= _HOT:
        yield Finding("heat", found, "the processor is about to slow down", "a heat sink, and a fan")
    else:
        yield Finding("heat", f"{found}, {'nothing slows the processor' if slowed is not None else 'slowing down is not told'}")
    if battery is not None:
        yield Finding("battery", str(battery))


def _sandbox() -> Finding:
    held = process.report()
    if process.confines_files():
        return Finding("sandbox", f"commands are kept to their folder by {held}")
    costs = "commands of the model can read and write outside their folder, so each is asked for"
    mend = "proot-distro, where Android refuses" if processor.is_android() else "allow user namespaces, see docs/approval.md"
    return Finding("sandbox", f"commands are held by {held} alone" if held != "none" else "nothing holds commands", costs, mend)
