"""A model goes to a device over SSH: sent beside the old one, checked there, tried there, and only then given its name.

The old model answers under its name until the new one has passed its test; nothing needs to be taken back when it fails.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from agent.errors import SprigError
from agent.files import human_size
from agent.gguf.check import check
from agent.models.file import writes_text
from agent.progress import OnProgress
from agent.text import display
from pipeline.deploy.device import SILENCE, STALE, ConnectionLostError, Device, DeviceError
from pipeline.deploy.service import Service, serve_model
from pipeline.deploy.smoke_test import SmokeTest, read_smoke_test
from pipeline.deploy.transfer import Part, SentFile

QUESTION = "What is the capital of France?"
_HASH_RATE = 2_000_000  # bytes per second that the slowest device reads and hashes
_TEST_SECONDS = 1200


@dataclass(frozen=True, slots=True)
class Deployed:
    """A model that is in its place on a device.

    Attributes:
        host: as it was given.
        path: of the model there.
        size: bytes.
        sha256: of the file, in hexadecimal, as the device has it.
        sent: bytes that went over the line; 0 when the model was there already.
        replaced: whether an older file of this name was there.
        seconds: all of it.
        smoke_test: how it did there; None when it was not tried.
        untried: why it was not tried; empty when it was.
        sprig: the sprig command there; empty when there is none.
        service: what serves it there; None when none was asked for.
    """

    host: str
    path: str
    size: int
    sha256: str
    sent: int
    replaced: bool
    seconds: float
    smoke_test: SmokeTest | None
    untried: str
    sprig: str = ""
    service: Service | None = None

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def stored_name(model: Path) -> str:
    """The name of a model's file in a store. SprigError when it cannot have one."""
    name = model.name if model.name.endswith(".gguf") else f"{model.name}.gguf"
    if name.startswith("."):
        raise SprigError(f"{name!r} begins with a dot, so no store would list it; rename the file")
    return name


def deploy(
    model: Path,
    host: str,
    *,
    prepare: Callable[[Device], str] | None = None,
    service: bool = False,
    on_progress: OnProgress = lambda step: None,
    say: Callable[[str], None] = lambda line: None,
    stale: int = STALE,
    silence: int = SILENCE,
) -> Deployed:
    """Bring a GGUF into the store of a device, under its own name.

    Args:
        model: the file.
        host: what the ssh command takes.
        prepare: is done first on the device; gives the path of the sprig command there.
        service: whether a service of the device is to serve it afterwards.
        on_progress: takes how far the bytes are.
        say: takes one line for each stage without bytes.
        stale, silence: see Device.

    Raises:
        GGUFError: the file must not be loaded.
        DeviceError: the device could not be reached, or the model did not get there or did not pass its test. What the device
            had is as it was; what has arrived is kept for the next run unless it is wrong.
        KeyboardInterrupt: with how far it got.
    """
    began = time.monotonic()
    header = check(model, data=True)
    with Device(host, stored_name(model), stale=stale, silence=silence) as device, model.open("rb") as file, _may_be_resumed():
        sprig = prepare(device) if prepare is not None else device.sprig
        source = SentFile(file, model, on_progress)
        found = device.step("look", device.work, device.name, device.place, str(source.size), seconds=_hashing(source.size)).said
        same = _is_same(source, found)
        kept = source.size if same else _send(source, _part(found), device, say)
        smoke_test, untried = None, ""
        if not writes_text(header.keys):
            untried = "an embedding model; it writes no text"
        elif not sprig:
            untried = f"{device.shown} has no Sprig"
        else:
            say(f"Trying it on {device.shown}")
            smoke_test = _try(device, sprig, device.place if same else f"{device.work}/{device.name}", same)
        if not same:
            device.step("switch", device.work, device.name, device.place)
        served = None
        if service:
            say(f"Starting the service on {device.shown}")
            served = _serve(device, sprig)
    replaced, seconds = "old" in found and not same, time.monotonic() - began
    return Deployed(
        host, device.place, source.size, source.sha256, source.size - kept, replaced, seconds, smoke_test, untried, sprig, served
    )


@contextmanager
def _may_be_resumed() -> Iterator[None]:
    """What breaks off the work inside says that a next run goes on."""
    try:
        yield
    except ConnectionLostError as e:
        raise ConnectionLostError(f"{e}; the same command goes on from where it was") from None
    except KeyboardInterrupt:
        raise KeyboardInterrupt("what has arrived is kept, and the same command goes on from there") from None


def _hashing(size: int) -> float:
    return 60 + size / _HASH_RATE


def _part(found: dict[str, str]) -> Part:
    """What a device says of the part that it has; nothing, when it says nothing sensible."""
    size, _, digest = found.get("part", "").partition(" ")
    return Part(int(size), digest) if size.isascii() and size.isdigit() and len(size) < 20 else Part()


def _is_same(source: SentFile, found: dict[str, str]) -> bool:
    """Whether the device has this very file already."""
    return "same" in found and source.begins_with(Part(source.size, found["same"]))


def _send(source: SentFile, part: Part, device: Device, say: Callable[[str], None]) -> int:
    """Send what is missing and have all of it checked; returns the bytes that were there already."""
    good = source.begins_with(part)
    kept = source.sent
    if kept == source.size:
        say(f"All of it is on {device.shown} already")
    elif kept:
        say(f"{human_size(kept)} of {human_size(source.size)} are on {device.shown} already; going on from there")
    elif part.size:
        say(f"What {device.shown} has of it is damaged or of another file; it is sent anew")
    missing = source.size - kept
    if device.free is not None and missing > device.free + (0 if good else part.size):
        raise DeviceError(
            f"no room on {device.shown}: {human_size(missing)} are missing, {human_size(device.free)} free at "
            f"{display(device.home)}/models; make some there (sprig models remove NAME) and run it again"
        )
    device.step("append" if good else "anew", device.work, device.name, stdin=source.rest())
    source.arrived()
    say(f"Checking it on {device.shown}")
    found = device.step("hash", device.work, device.name, seconds=_hashing(source.size), done="hash").said["hash"]
    if found != f"{source.size} {source.sha256}":
        device.step("drop", device.work, device.name)
        raise DeviceError(f"what arrived on {device.shown} is not what was sent, and was removed there; is its disk sound?")
    return kept


def _try(device: Device, sprig: str, path: str, same: bool) -> SmokeTest:
    answer = device.step("try", device.work, sprig, path, QUESTION, seconds=_TEST_SECONDS, attended=True)
    try:
        return read_smoke_test(answer.other, answer.complaint)
    except SprigError as e:
        if same:
            raise DeviceError(f"{display(device.name)} does not work on {device.shown}: {e}") from None
        device.step("drop", device.work, device.name)
        raise DeviceError(
            f"{display(device.name)} did not pass its test on {device.shown} and was removed there; nothing else was changed: {e}"
        ) from None


def _serve(device: Device, sprig: str) -> Service:
    try:
        return serve_model(device, sprig, device.place)
    except ConnectionLostError:
        raise
    except DeviceError as e:
        raise DeviceError(f"the model is in its place on {device.shown}, but has no service: {e}") from None
