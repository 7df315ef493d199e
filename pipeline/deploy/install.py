"""Sprig itself goes to a device, from a wheelhouse: no network and no compiler is needed there, only Python with its venv."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from agent.errors import SprigError
from agent.progress import OnProgress, Progress
from agent.text import display
from pipeline.deploy.device import Device, DeviceError
from pipeline.deploy.wheelhouse import DevicePython, chosen_wheels

_ROOT = Path(__file__).resolve().parents[2]
_INSTALL_SECONDS = 1800
_ABOUT = """
import importlib.util, json, platform, sys
print(json.dumps({
    "version": list(sys.version_info[:2]), "wide": sys.maxsize > 2**32, "platform": sys.platform, "machine": platform.machine(),
    "libc": platform.libc_ver(), "venv": importlib.util.find_spec("ensurepip") is not None,
}))
"""


def install(
    device: Device,
    wheelhouse: Path | None,
    *,
    on_progress: OnProgress = lambda step: None,
    say: Callable[[str], None] = lambda line: None,
) -> str:
    """Install Sprig into SPRIG_HOME/venv of a device, or bring it up to date; only wheels that it lacks are sent.

    Args:
        wheelhouse: a folder of wheels; by default ``dist/wheelhouse-MACHINE`` of this checkout, where `make wheels` makes it.
        on_progress: takes how many of the bytes are sent.
        say: takes one line for each stage.

    Returns:
        The path of the sprig command there.

    Raises:
        DeviceError: the device cannot have it; says why, and what to do. A venv that was there stays.
    """
    try:
        target = _target(device)
        wheels = chosen_wheels(wheelhouse or _ROOT / "dist" / f"wheelhouse-{target.machine}", target)
    except DeviceError:
        raise
    except SprigError as e:
        raise DeviceError(f"Sprig cannot be installed on {device.shown}: {e}") from None
    folder = f"{device.home}/wheels"
    sums = {hashlib.sha256(wheel.read_bytes()).hexdigest(): wheel for wheel in wheels}
    known = device.step("wheels", folder).said
    missing = {digest: wheel for digest, wheel in sums.items() if known.get(digest) != wheel.name}
    total, done = sum(wheel.stat().st_size for wheel in missing.values()), 0
    if missing:
        on_progress(Progress("wheels", 0, total, "bytes"))
    for digest, wheel in missing.items():
        data = wheel.read_bytes()
        device.step("put", device.work, wheel.name, f"{folder}/{wheel.name}", digest, stdin=[data])
        done += len(data)
        on_progress(Progress("wheels", done, total, "bytes"))
    say(f"Installing Sprig on {device.shown}")
    again = "again" if any(wheel.name.startswith("sprig_llm-") for wheel in missing.values()) else ""
    wanted = "sprig-llm[serve]" if any(wheel.name.startswith("textual_serve-") for wheel in wheels) else "sprig-llm"
    answer = device.step("install", device.home, again, wanted, seconds=_INSTALL_SECONDS)
    say(f"{display(answer.said.get('version', 'sprig'))} is installed there")
    return f"{device.home}/venv/bin/sprig"


def _target(device: Device) -> DevicePython:
    """What the device's Python is. DeviceError when no wheelhouse can help it."""
    told = device.step("python", _ABOUT).said.get("python", "")
    here = f"Sprig cannot be installed on {device.shown}:"
    if not told:
        raise DeviceError(f"{here} it has no python3; on Debian and its kin: apt install python3-venv")
    try:
        found = json.loads(told)
        (major, minor), libc = found["version"], found["libc"]
        machine, platform = str(found["machine"]), str(found["platform"])
        glibc = tuple(int(n) for n in libc[1].split(".")[:2]) if libc[0] == "glibc" else (0, 0)
        if re.fullmatch(r"[a-z0-9_]{1,40}", machine) is None or max(int(minor), *glibc) > 999:
            raise ValueError(machine)  # it becomes part of a folder's name, and the numbers are counted up to
        target = DevicePython(int(minor), machine, (glibc[0], glibc[1]))
    except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
        raise DeviceError(f"{here} its python3 says {display(told[:200])!r}") from None
    if platform == "android":
        raise DeviceError(
            f"{here} Termux takes no wheels of Linux; install/termux.sh installs Sprig on a phone (docs/devices.md)"
        )
    if major != 3 or platform != "linux":
        raise DeviceError(f"{here} it has Python {major}.{minor} on {display(platform)}, and needs 3.11 or newer on Linux")
    if not found["wide"]:
        raise DeviceError(f"{here} its system is a 32-bit one; Sprig needs a 64-bit system ({display(machine)})")
    if not found["venv"]:
        raise DeviceError(f"{here} its Python has no venv; on Debian and its kin: apt install python3-venv")
    return target
