"""A model stays reachable on a device: `sprig chat --serve` as a service of systemd, under a user of its own, in a sandbox.

It listens on the device's loopback only, and lets in who knows the token that its journal tells: a browser elsewhere comes
through an SSH tunnel. It is a system unit, since the sandbox of a user's own unit needs namespaces that many systems refuse.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import dataclass
from importlib.resources import files

from agent.text import display
from pipeline.deploy.device import Device, DeviceError

PORT = 8420
UNIT = "/etc/systemd/system/sprig.service"
_START_SECONDS = 60
_HOMES = ("/home/", "/root/", "/run/user/")  # what ProtectHome hides
_ABOUT = """
import importlib.util as i, json, os, sys
print(json.dumps({
    "python": sys.executable, "serve": i.find_spec("textual_serve") is not None,
    "folders": [sys.prefix, sys.base_prefix, os.path.dirname(i.find_spec("sprig").origin)],
}))
"""


@dataclass(frozen=True, slots=True)
class Service:
    """The service of a device.

    Attributes:
        running: whether it runs.
        unit: its text.
        commands: what a person has to run on the device before it does; none when it runs.
    """

    running: bool
    unit: str
    commands: tuple[str, ...]


def serve_model(device: Device, sprig: str, model: str) -> Service:
    """Make a service of a model that is on a device, and start it; without root's rights there, leave its unit in SPRIG_HOME.

    Args:
        sprig: the sprig command there.
        model: the path there.

    Raises:
        DeviceError: it cannot run there; says why. A service that was there before runs as it did.
    """
    text = unit_text(device, sprig, model)
    answer = device.step("service", UNIT, str(_START_SECONDS), stdin=[text.encode()], seconds=_START_SECONDS * 3).said
    if "none" in answer:
        raise DeviceError(f"{device.shown} has no systemd, so it can have no such service")
    if "unprivileged" not in answer:
        return Service(True, text, ())
    place = f"{device.home}/sprig.service"
    device.step("put", device.work, "sprig.service", place, hashlib.sha256(text.encode()).hexdigest(), stdin=[text.encode()])
    return Service(False, text, (f"sudo cp {shlex.quote(place)} {UNIT}", "sudo systemctl enable --now sprig.service"))


def unit_text(device: Device, sprig: str, model: str) -> str:
    """The unit for a device. DeviceError when the Sprig there cannot serve a chat."""
    if not sprig:
        raise DeviceError(f"a service needs Sprig on {device.shown}: --install brings it")
    try:
        found = json.loads(device.step("about", sprig, _ABOUT).said.get("about", ""))
        python, folders = str(found["python"]), [str(folder) for folder in found["folders"]]
        serves = bool(found["serve"])
    except (ValueError, TypeError, KeyError, RecursionError):
        raise DeviceError(f"the Python of {display(sprig)} on {device.shown} does not say what it is") from None
    if not serves:
        raise DeviceError(
            f"a service needs textual-serve on {device.shown}: {display(python)} -m pip install textual-serve there"
        )
    folders.append(model.rpartition("/")[0])
    hidden = sorted({folder for folder in folders if f"{folder}/".startswith(_HOMES)})
    command = [python, "-P", "-m", "sprig", "chat", "--serve", "--host", "127.0.0.1", "--port", str(PORT), "--model", model]
    binds = "BindReadOnlyPaths=" + " ".join(map(_quoted, hidden))
    template = files("pipeline.deploy").joinpath("sprig.service").read_text("utf-8")
    return template.replace("{command}", " ".join(map(_quoted, command))).replace("{binds}", binds)


def _quoted(text: str) -> str:
    """One word of a unit. DeviceError for what systemd reads as something else, in one place or the other."""
    if not text.isprintable() or any(c in text for c in "\"'\\%$:"):
        raise DeviceError(
            f"a service cannot have {display(text)!r} in its unit: quotes, backslashes, %, $ and : mean something there"
        )
    return f'"{text}"' if not text.isascii() or " " in text else text
