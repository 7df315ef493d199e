"""A program in a terminal of 100x30 cells: what it writes and when, what its process costs, how soon a key is echoed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import statistics
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

COLUMNS, ROWS = 100, 30
ROOT = Path(__file__).resolve().parent.parent
_TICK = os.sysconf("SC_CLK_TCK")
_LETTERS = [chr(c) for c in (*range(0x100, 0x130), *range(0x410, 0x450))]  # none of them is on any screen before it is typed
_SYNC = b"\x1b[?2026$p"


class Terminal:
    """See the module. Times are of ``time.perf_counter``, in seconds; ``started`` is when the process was asked for."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str]) -> None:
        self._master, slave = os.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        whole = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor", "PYTHONPATH": str(ROOT), **env}
        self.written: list[tuple[float, bytes]] = []
        self.spent: list[float] = []  # seconds of a core until each of them
        self.started = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=whole, cwd=ROOT, stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._letter = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        os.close(self._master)
        if error is not None:
            print(f"the screen when it failed:\n{self.screen()}", file=sys.stderr)

    # What it writes.

    def until(self, check: Callable[[bytes], bool], seconds: float = 60.0) -> float:
        """Read until what came since this call satisfies ``check``; when that was."""
        end, seen = time.perf_counter() + seconds, b""
        while (left := end - time.perf_counter()) > 0:
            seen += self._read(left)
            if check(seen):
                return self.written[-1][0]
        raise TimeoutError(f"{' '.join(self.process.args)}: it did not come within {seconds:.0f} s")  # type: ignore[arg-type]

    def shows(self, text: str, seconds: float = 60.0) -> tuple[float, float]:
        """Read until the screen shows ``text``: seconds from the start until it did, and seconds of a core until then."""
        self.rest(0.3)
        end = time.perf_counter() + seconds
        while text not in self.screen():
            if time.perf_counter() > end:
                raise TimeoutError(f"{text!r} did not come within {seconds:.0f} s")
            self.rest(0.3)
        low, high = 0, len(self.written)  # as a screen may change again, this finds one of the times; here it never does
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if text in self.screen(middle + 1) else (middle + 1, high)
        return self.written[low][0] - self.started, self.spent[low]

    def rest(self, seconds: float) -> None:
        """Read for so long."""
        end = time.perf_counter() + seconds
        while (left := end - time.perf_counter()) > 0:
            self._read(left)

    def comes(self, seconds: float) -> bool:
        """Read once, and wait no longer than so long for it; whether anything came."""
        return bool(self._read(seconds))

    def quiet(self, silence: float = 1.0, seconds: float = 60.0) -> None:
        """Read until nothing has come for so long."""
        end = time.perf_counter() + seconds
        while self._read(silence) and time.perf_counter() < end:
            pass

    def screen(self, chunks: int | None = None) -> str:
        """What stands on it after so many reads; now, when None."""
        screen = pyte.Screen(COLUMNS, ROWS)
        stream = pyte.ByteStream(screen)
        data = b"".join(data for _, data in self.written[:chunks])
        stream.feed(data.replace(b"\x1b[>4;1m", b"").replace(b"\x1b[<u", b"").replace(b"\x1b[>1u", b""))  # unknown to pyte
        return "\n".join(screen.display)

    def _read(self, seconds: float) -> bytes:
        if not select.select([self._master], [], [], seconds)[0]:
            return b""
        try:
            data = os.read(self._master, 1 << 16)
        except OSError:
            raise EOFError(f"{' '.join(self.process.args)} has ended") from None  # type: ignore[arg-type]
        self.written.append((time.perf_counter(), data))
        self.spent.append(self.cpu())
        if _SYNC in data:
            self.type("\x1b[?2026;2$y")  # like any terminal of today: what belongs together is painted together
        return data

    # What a person does.

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def press(self) -> float:
        """Type a letter that is not on the screen; seconds until its echo was written."""
        letter = _LETTERS[self._letter % len(_LETTERS)]
        self._letter += 1
        mark = letter.encode()
        start = time.perf_counter()
        self.type(letter)
        return self.until(lambda seen: mark in seen) - start

    def presses(self, count: int, pause: float = 0.13) -> list[float]:
        """Seconds from key to echo, of letters typed as a person types; the prompt is empty again afterwards."""
        self.press()  # takes the placeholder away, which is more than an echo
        found = []
        for number in range(count):
            self.rest(pause + 0.017 * (number % 5))  # not in step with anything that happens at regular times
            found.append(self.press())
        self.type("\x7f" * (count + 1))
        self.rest(0.5)
        return found

    # What it costs.

    def cpu(self) -> float:
        """Seconds of a core that the process has taken, all its threads, without its children."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICK

    def load(self, seconds: float) -> float:
        """The part of one core that it takes over so many seconds."""
        before, start = self.cpu(), time.perf_counter()
        self.rest(seconds)
        return (self.cpu() - before) / (time.perf_counter() - start)


def p95(values: Sequence[float]) -> float:
    return statistics.quantiles(values, n=20)[-1]
