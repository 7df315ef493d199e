"""Where wheels are made: a folder, the tools in a virtual environment of its own, and programs that fail in one line."""

from __future__ import annotations

import os
import re
import subprocess
import venv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

from agent.errors import SprigError
from agent.files import atomic_write, free_disk, human_size

ROOT = Path(__file__).resolve().parent.parent
TOOLS = Path(__file__).with_name("tools.txt")
ROOM = 1_500_000_000  # bytes: the tools 620 MB, the sources 220 MB, two builds, two wheelhouses of 90 MB


@dataclass(frozen=True)
class Workshop:
    """The folder of all that is fetched and built; what is finished there is used again."""

    folder: Path

    @cached_property
    def python(self) -> Path:
        """The Python of the tools' environment, which is set up when `tools.txt` is not what it holds.

        Raises:
            SprigError: there is no room, or a tool cannot be had.
        """
        home, stamp = self.folder / "tools", self.folder / "tools" / "tools.txt"
        python = home / "bin" / "python"
        if not stamp.exists() or stamp.read_bytes() != TOOLS.read_bytes():
            if (free := free_disk(self.folder)) < ROOM:
                raise SprigError(
                    f"wheels need {human_size(ROOM)} of room to be made, {human_size(free)} are free in {self.folder}: make room"
                )
            print(f"Setting up zig, CMake and Ninja in {home}", flush=True)
            try:
                venv.create(home, with_pip=True, clear=True)
            except (OSError, subprocess.CalledProcessError) as e:
                raise SprigError(f"no virtual environment can be made in {home} ({e}): apt-get install python3-venv") from None
            self.run([python, "-m", "pip", "install", "-q", "-r", TOOLS], "tools")
            atomic_write(stamp, TOOLS.read_bytes())
        return python

    def pip(self, arguments: Sequence[str | Path], log: str, environment: Mapping[str, str] | None = None) -> None:
        """Run the tools' pip. SprigError in one line when it fails."""
        quiet = ["--disable-pip-version-check", "--no-input", "--retries", "2"]
        self.run([self.python, "-m", "pip", *quiet, *arguments], log, environment)

    def run(self, command: Sequence[str | Path], log: str, environment: Mapping[str, str] | None = None) -> None:
        """Run a program. What it says goes into ``logs/<log>.log`` of the workshop.

        Raises:
            SprigError: it failed; one line with the cause, as far as it can be told, and the log's name.
        """
        path = self.folder / "logs" / f"{log}.log"
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as f:
                ended = subprocess.run(
                    [str(part) for part in command],
                    stdin=subprocess.DEVNULL, stdout=f, stderr=subprocess.STDOUT, env={**os.environ, **(environment or {})},
                )  # fmt: skip
        except OSError as e:
            raise SprigError(f"{Path(command[0]).name} cannot be run: {e.strerror or e}") from None
        if ended.returncode:
            raise SprigError(f"{log}: {cause(path.read_text(errors='replace'))} (all of it: {path})")


def cause(log: str) -> str:
    """The line of a program's output that says best why it failed."""
    if re.search(r"No space left on device|Errno 28", log):
        return "the disk is full: make room and run it again"
    if re.search(r"NewConnectionError|NameResolutionError|ConnectTimeout|ReadTimeout|ProxyError|Connection refused", log):
        return "the package registry cannot be reached: check the network, or pip's own settings"
    lines = [" ".join(line.split()) for line in log.splitlines() if line.strip()]
    for mark in (r"^ERROR: (?!.*requires).*", r".*\berror: .*", r"^CMake Error.*"):
        if found := [line for line in lines if re.match(mark, line)]:
            return found[-1].removeprefix("ERROR: ")[:300]
    return lines[-1][:300] if lines else "it failed and said nothing"


def digest(*parts: bytes) -> str:
    """One name for all that something was made from."""
    return sha256(b"\0".join(sha256(part).digest() for part in parts)).hexdigest()
