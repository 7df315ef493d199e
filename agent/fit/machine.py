"""The profile of this machine, as it was measured once: remembered, and given to other machines."""

from __future__ import annotations

import contextlib
import hashlib
import platform
import re
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from agent.device import features, kernel, processor
from agent.errors import SprigError
from agent.files import atomic_write
from agent.fit.profile import DeviceProfile, Figure, ProfileError, read_profile, user_profiles
from agent.home import home

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,40}")


def recall_machine() -> DeviceProfile | None:
    """The profile of this machine as it was measured; None when it never was, or it cannot be read."""
    try:
        return replace(read_profile(_place()), name="")
    except ProfileError:
        return None


def remember_machine(profile: DeviceProfile) -> None:
    """Keep it for the next time. SprigError when it cannot be written."""
    write_profile(profile, _place())


def save_profile(profile: DeviceProfile, name: str) -> Path:
    """Write a profile to a user's own devices, where another machine that gets the file finds it. Returns its path.

    SprigError for a name that is none, or when it cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise SprigError(f"{name!r} cannot be the name of a device: small letters, digits, dots and dashes can")
    path = user_profiles() / f"{name}.toml"
    write_profile(profile, path)
    return path


def _place() -> Path:
    """One file for these cores, these features and this llama.cpp."""
    try:
        library = version("llama-cpp-python")
    except PackageNotFoundError:
        library = ""
    numbers = [core.number for core in processor.read_cores()]
    stamp = f"1 {platform.machine()} {sorted(features.features())} {numbers} {kernel.model_name(Path('/'))} {library}"
    return home() / "cache" / "machine" / f"{hashlib.sha256(stamp.encode()).hexdigest()[:16]}.toml"


def write_profile(profile: DeviceProfile, path: Path) -> None:
    """Write it as TOML, as agent.fit.profile reads it. SprigError when it cannot be written."""
    import tomlkit

    def figure(one: Figure) -> Any:
        table = tomlkit.inline_table()
        table.update({"value": one.value, "basis": one.basis, "source": one.source})
        return table

    decode, prefill = profile.decode, profile.prefill
    document = tomlkit.document()
    document.update({
        "title": profile.title, "memory": [str(profile.memory)], "system": str(profile.system), "cores": profile.cores,
        "machine": profile.processor.machine, "features": sorted(profile.processor.features),
        "decode": {"layer": figure(decode.layer), "bandwidth": figure(decode.bandwidth)}
        | {kind: figure(one) for kind, one in decode.types.items()} | {"error": decode.error},
        "prefill": {kind: figure(one) for kind, one in prefill.types.items()}
        | {"repacked": figure(prefill.repacked), "plain": figure(prefill.plain), "attention": figure(prefill.attention)}
        | ({"elementwise": figure(prefill.elementwise)} if prefill.elementwise else {}) | {"error": prefill.error},
    })  # fmt: skip
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
    atomic_write(path, tomlkit.dumps(document))
