"""The tool that tells how the machine is."""

from __future__ import annotations

from pathlib import Path

from agent.device import machine, processor
from agent.errors import SprigError
from agent.files import free_disk, human_size


class DeviceTool:
    """Reads this machine's sensors; ``folder`` is where disk space is asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def device_status(self) -> str:
        """Get this device's memory, load, temperature, battery and disk."""
        lines = [f"cores: {processor.cores()}", f"memory free: {human_size(machine.available_memory())}"]
        load, heat, slowed, battery = machine.load(), machine.temperature(), machine.throttling(), machine.battery()
        lines.append(f"load: {load.one:.2f}, {load.five:.2f}, {load.fifteen:.2f}" if load else "load: unavailable")
        lines.append(f"temperature: {heat:.0f} °C" if heat is not None else "temperature: unavailable")
        lines.append("throttling: " + ("unavailable" if slowed is None else ", ".join(slowed) or "none"))
        lines.append(f"battery: {battery or 'none found'}")
        try:
            lines.append(f"disk free: {human_size(free_disk(self._folder))}")
        except SprigError:
            lines.append("disk free: unavailable")
        return "\n".join(lines)
