"""The tool that tells how the machine is."""

from __future__ import annotations

from pathlib import Path

from agent.device import machine
from agent.errors import SprigError
from agent.files import free_disk, human_size


class DeviceTool:
    """Reads this machine's sensors; ``folder`` is where disk space is asked for, ``system`` where proc and sys are mounted."""

    def __init__(self, folder: Path, system: Path = Path("/")) -> None:
        self._folder, self._system = folder, system

    def device_status(self) -> str:
        """Get this device's memory, load, temperature, battery and disk."""
        lines = [f"cores: {machine.cores()}", f"memory free: {human_size(machine.available_memory(self._system))}"]
        load = machine.load(self._system)
        lines.append(f"load: {load.one:.2f}, {load.five:.2f}, {load.fifteen:.2f}" if load else "load: unavailable")
        heat = machine.temperature(self._system)
        lines.append(f"temperature: {heat:.0f} °C" if heat is not None else "temperature: unavailable")
        slowed = machine.throttling(self._system)
        lines.append("throttling: " + ("unavailable" if slowed is None else ", ".join(slowed) or "none"))
        battery = machine.battery(self._system)
        lines.append(f"battery: {battery}" if battery else "battery: none found")
        try:
            lines.append(f"disk free: {human_size(free_disk(self._folder))}")
        except SprigError:
            lines.append("disk free: unavailable")
        return "\n".join(lines)
