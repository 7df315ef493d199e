"""A device that is reached over SSH: one connection by the OpenSSH client that is there, and the steps of device.sh on it.

Port, key, jump hosts and the like are for ssh's own configuration. The connection holds a lock on the device until it ends. All
that a device says is untrusted: bounded in size, and read only behind a mark that is drawn anew for each connection.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import selectors
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import IO

from agent.errors import SprigError
from agent.text import display, shortened

log = logging.getLogger(__name__)

STALE = 10  # seconds without a sign of life, after which a lock is taken over
SILENCE = 5  # seconds of silence after which ssh asks for an answer
_UNANSWERED = 4  # times that it asks until it gives up
_CONNECT_SECONDS = 20
_LOGIN_SECONDS = 300  # a person may have to type a password
_STEP_SECONDS = 60
_MOST = 1 << 20  # bytes of one answer
_FULL = ("No space left", "quota exceeded", "File too large", "File size limit")
_LOST = 255  # ssh's own exit status when the connection failed


class DeviceError(SprigError):
    """A device could not be reached, or something could not be done there."""


class ConnectionLostError(DeviceError):
    """The connection broke; what has arrived is kept, and the next run goes on from there."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a step said: the words behind each key; what stood in lines without the mark, which may be anything; and the last line
    of its complaints, fit to be shown."""

    said: dict[str, str]
    other: str
    complaint: str


def word(text: str) -> str:
    """One word of a command line, the same to sh, bash, zsh and fish: that of the login shell over there is not known."""
    return "'" + text.translate({0x27: "'\"'\"'", 0x5C: "'\\\\'"}) + "'"


class Device(AbstractContextManager["Device"]):
    """A connection to a device, and its lock on one model's name there.

    Args:
        host: what the ssh command takes: a name of its configuration, user@host, or ssh://user@host:port.
        name: of the model's file.
        stale: seconds without a sign of life after which the lock of another run is taken over.
        silence: seconds of silence after which ssh asks for an answer; four times that, and the connection is lost.

    Raises:
        DeviceError: it cannot be reached, lacks a tool, has no room, or another run is sending the same model.
    """

    def __init__(self, host: str, name: str, *, stale: int = STALE, silence: int = SILENCE) -> None:
        if not host or host.startswith("-"):
            raise DeviceError(f"{host!r} is no host; user@host is, or a name of ssh's configuration")
        self.host, self.name = host, name
        self._mark = f"sprig-{secrets.token_hex(8)}"
        self._script = files("pipeline.deploy").joinpath("device.sh").read_text("utf-8")
        self._folder = Path(tempfile.mkdtemp(prefix="sprig-", dir=_short_folder()))
        self._options = [
            "-T", "-x", "-a", "-S", str(self._folder / "ssh"),
            *(part for option in (
                f"ConnectTimeout={_CONNECT_SECONDS}", f"ServerAliveInterval={silence}", f"ServerAliveCountMax={_UNANSWERED}",
                "LogLevel=ERROR", "ClearAllForwardings=yes", "RemoteCommand=none", "PermitLocalCommand=no",
            ) for part in ("-o", option)),
        ]  # fmt: skip
        self._stop = threading.Event()
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        self._holder: subprocess.Popen[bytes] | None = None
        self._beats = threading.Thread(target=self._beat, daemon=True)
        try:
            self._holder = self._start(["-M"], "hold", name, str(stale), stdin=subprocess.PIPE, log=self._log)
            answer = self._read(self._holder, self._log, _LOGIN_SECONDS, until="ready")
            if "ready" not in answer.said:
                raise self._refused(answer)
            self._facts = answer.said
            if not self.home.startswith("/"):
                raise DeviceError(f"SPRIG_HOME on {self.shown} is {display(self.home)!r}; it must be an absolute path")
            self._beats.start()
        except BaseException:
            self._close()
            raise

    def __exit__(self, *raised: object) -> None:
        self._close()

    @property
    def shown(self) -> str:
        """The host, as a person is told of it."""
        return display(self.host)

    @property
    def home(self) -> str:
        """SPRIG_HOME there."""
        return self._facts.get("home", "")

    @property
    def work(self) -> str:
        """The folder there for what is not finished."""
        return f"{self.home}/models/.{self.name}.deploy"

    @property
    def place(self) -> str:
        """The path there of the finished model."""
        return f"{self.home}/models/{self.name}"

    @property
    def sprig(self) -> str:
        """The path of the sprig command there; empty when there is none."""
        return self._facts.get("sprig", "")

    @property
    def free(self) -> int | None:
        """Bytes free where models lie; None when that is not known."""
        told = self._facts.get("free", "")
        return int(told) * 1024 if told.isascii() and told.isdigit() and len(told) < 20 else None

    def step(
        self,
        step: str,
        *arguments: str,
        stdin: Iterable[bytes] = (),
        seconds: float = _STEP_SECONDS,
        done: str = "done",
        attended: bool = False,
    ) -> Reply:
        """Run one step of device.sh there.

        Args:
            stdin: what it reads.
            seconds: how long it may take, when all of ``stdin`` is there.
            done: the key that its answer must have.
            attended: whether what it reads ends only with its answer, or with this process.

        Raises:
            ConnectionLostError: the connection broke, or no answer came in time.
            DeviceError: it failed; says what the device said.
        """
        log.info("%s: %s %s", self.shown, step, display(" ".join(arguments)))
        with tempfile.TemporaryFile() as complaints:
            process = self._start([], step, *arguments, stdin=subprocess.PIPE, log=complaints)
            try:
                assert process.stdin is not None
                with contextlib.suppress(BrokenPipeError):  # it ended early; its last words say why
                    for piece in stdin:
                        process.stdin.write(piece)
                    if not attended:
                        process.stdin.close()
                answer = self._read(process, complaints, seconds)
            finally:
                _end(process)
        if done in answer.said:
            return answer
        complaint = answer.complaint
        if "lost" in answer.said:
            raise DeviceError(f"another run has taken over {display(self.name)} on {self.shown}; nothing was changed by this one")
        if process.returncode < 0:
            raise ConnectionLostError(f"the answer of {self.shown} was too late or too long")
        if process.returncode == _LOST:
            raise ConnectionLostError(f"the connection to {self.shown} broke{f': {complaint}' if complaint else ''}")
        if any(sign in complaint for sign in _FULL):
            raise DeviceError(
                f"no room on {self.shown}: {complaint}; make some there (sprig models remove NAME) and run it again"
            )
        raise DeviceError(f"{step} failed on {self.shown}: {complaint or f'status {process.returncode}'}")

    def _start(self, options: list[str], step: str, *arguments: str, stdin: int, log: IO[bytes]) -> subprocess.Popen[bytes]:
        command = " ".join(["exec", "sh", "-c", word(self._script), "sprig", self._mark, step, *map(word, arguments)])
        try:
            return subprocess.Popen(
                ["ssh", *self._options, *options, "--", self.host, command],
                stdin=stdin, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip
        except FileNotFoundError:
            raise DeviceError("there is no ssh command on this machine: install the OpenSSH client") from None
        except ValueError:
            raise DeviceError(f"{self.host!r} is no host: it holds a zero byte") from None

    def _read(self, process: subprocess.Popen[bytes], complaints: IO[bytes], seconds: float, until: str = "") -> Reply:
        """What a process says until it ends, or until it has said this."""
        said: dict[str, str] = {}
        other: list[str] = []
        assert process.stdout is not None
        for line in _lines(process, seconds):
            mark, _, rest = line.partition(" ")
            if mark == self._mark:
                key, _, value = rest.partition(" ")
                said.setdefault(key, value)
            else:
                other.append(line)
            if until and until in said:
                return Reply(said, "", "")
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        return Reply(said, "\n".join(other), _last_line(complaints))

    def _refused(self, answer: Reply) -> DeviceError:
        assert self._holder is not None
        complaint, status = answer.complaint, self._holder.returncode
        if "busy" in answer.said:
            return DeviceError(f"another run is sending {display(self.name)} to {self.shown} at this moment: wait for it")
        if "lacks" in answer.said:
            return DeviceError(
                f"{self.shown} has no {display(answer.said['lacks'])} command, which is needed to check what arrives"
            )
        if any(sign in complaint for sign in _FULL):
            return DeviceError(f"no room on {self.shown}: {complaint}")
        if status == _LOST or status < 0:
            why = complaint or "no answer came in time"
            return DeviceError(f"ssh does not get to {self.shown}: {why}; does `ssh {self.shown}` work?")
        return DeviceError(f"{self.shown} cannot take models: {complaint or f'its shell ended with status {status}'}")

    def _beat(self) -> None:
        """Tell the lock there, now and then, that this run is alive."""
        assert self._holder is not None
        assert self._holder.stdin is not None
        with contextlib.suppress(OSError, ValueError):
            while not self._stop.wait(1.0):
                self._holder.stdin.write(b"\n")
                self._holder.stdin.flush()

    def _close(self) -> None:
        self._stop.set()
        if self._beats.is_alive():
            self._beats.join()
        if self._holder is not None:
            if self._holder.stdin is not None:
                with contextlib.suppress(OSError):
                    self._holder.stdin.close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._holder.wait(5)  # it lets go of the lock
            _end(self._holder)
        self._log.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _short_folder() -> str | None:
    """Where a socket's path stays short enough, with what ssh adds to it."""
    return None if len(os.fsencode(tempfile.gettempdir())) < 50 else "/tmp"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()  # nothing, when it has ended
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _lines(process: subprocess.Popen[bytes], seconds: float) -> Iterator[str]:
    """The lines of a process's output as they come; it is killed when they take too long or are too many."""
    assert process.stdout is not None
    deadline, taken, rest = time.monotonic() + seconds, 0, b""
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while taken <= _MOST and selector.select(max(0.0, deadline - time.monotonic())):
            piece = os.read(process.stdout.fileno(), 1 << 16)
            if not piece:
                break
            taken += len(piece)
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                yield line.decode("utf-8", "surrogateescape")
        else:
            process.kill()
    if rest:
        yield rest.decode("utf-8", "surrogateescape")


def _last_line(complaints: IO[bytes]) -> str:
    """The last line that ssh or the device complained with, fit to be shown."""
    size = os.fstat(complaints.fileno()).st_size
    text = os.pread(complaints.fileno(), 4096, max(0, size - 4096)).decode("utf-8", "replace")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return display(shortened(lines[-1].removeprefix("ssh: ").rstrip("."), 300)) if lines else ""
