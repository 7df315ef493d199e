"""The clock, and timers that last: they are kept in a file, so that a restart does not lose them."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from agent.files import atomic_write
from agent.tools.result import ToolError, clean

MAX_TIMERS = 100
MAX_SECONDS = 366 * 86400.0


def clock() -> str:
    """Get the date and time."""
    now = datetime.now().astimezone()
    zone = now.tzname() or "local time"
    return f"{now:%Y-%m-%d %H:%M:%S}, {now:%A}, {zone} (UTC{now:%z})"


@dataclass(frozen=True, slots=True)
class Timer:
    """One timer: ``due`` is seconds since the epoch, as the clock says it then."""

    label: str
    due: float


class Timers:
    """The timers of one home folder.

    Args:
        file: where they are kept; its folder is made when the first is set.
        now: seconds since the epoch.
    """

    def __init__(self, file: Path, now: Callable[[], float] = time.time) -> None:
        self._file, self._now = file, now

    def set_timer(self, seconds: float, label: str = "") -> str:
        """Set a timer.

        Args:
            seconds: from now
        """
        if not 0 < seconds <= MAX_SECONDS:
            raise ToolError("a timer runs for more than 0 seconds and at most a year")
        with locked(self._file):
            timers = self._read()
            if len(timers) >= MAX_TIMERS:
                raise ToolError(f"there are {MAX_TIMERS} timers already")
            timer = Timer(clean(label)[:200].replace("\n", " ").strip(), self._now() + seconds)
            self._write([*timers, timer])
        return f"timer{_named(timer)} set for {_moment(timer.due)}"

    def list_timers(self) -> str:
        """List the timers that run and those that are over."""
        with locked(self._file):
            timers = sorted(self._read(), key=lambda t: t.due)
            now = self._now()
            over = [t for t in timers if t.due <= now]
            if over:  # told once, then forgotten
                self._write([t for t in timers if t.due > now])
        lines = [f"over{_named(t)}: {_moment(t.due)}" for t in over]
        lines += [f"running{_named(t)}: {_span(t.due - now)} left, until {_moment(t.due)}" for t in timers if t.due > now]
        return "\n".join(lines) or "no timers"

    def _read(self) -> list[Timer]:
        try:
            found = json.loads(self._file.read_text(encoding="utf-8"))
            return [Timer(str(t["label"]), float(t["due"])) for t in found]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError):
            # Somebody edited it. What cannot be read is put aside, not lost.
            self._file.replace(self._file.with_suffix(".broken"))
            return []

    def _write(self, timers: list[Timer]) -> None:
        atomic_write(self._file, json.dumps([asdict(t) for t in timers], ensure_ascii=False))


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold a lock beside a file, against other threads and other processes; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    fd = os.open(file.with_name(file.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _named(timer: Timer) -> str:
    return f" {timer.label!r}" if timer.label else ""


def _moment(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M:%S}"


def _span(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "min"), (rest, "s"))
    return " ".join(f"{n} {unit}" for n, unit in parts if n) or "0 s"
