"""How a command speaks: its result on standard output, all else on standard error, a failure in one line.

Exit status: 0 done, 1 it could not be done, 2 wrong usage (said by the command line's parser), 130 interrupted.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.cli import logs
from agent.errors import SprigError
from agent.text import display, json_text, verbatim
from agent.text.secrets import mask

FAILED, INTERRUPTED = 1, 130


class Console:
    """The two streams of one command. ``json``: the result is one object. ``verbose``: log lines and tracebacks are shown."""

    def __init__(self, *, json: bool = False, verbose: bool = False) -> None:
        self.json, self.verbose = json, verbose

    def say(self, text: str) -> None:
        """A message for the person, not part of the result. What is untrusted in it cannot act on a terminal."""
        with suppress(OSError):  # nobody reads it: the terminal is gone
            print(display(text, lines=True), file=sys.stderr, flush=True)

    def result(self, data: Mapping[str, Any], text: str) -> None:
        """What the command is for: ``data`` for a script that asked with --json, ``text`` for a person.

        A screen gets what is safe there, a file or another program what the text is.
        """
        try:
            shown = display(text, lines=True) if sys.stdout.isatty() else verbatim(text)
            print(json_text(data) if self.json else shown, flush=True)
        except BrokenPipeError:
            raise
        except OSError as e:
            raise SprigError(f"the result could not be written to standard output: {e.strerror or e}") from None


def _one_line(error: BaseException) -> str:
    return display(" ".join(str(error).split()) or type(error).__name__)


def _fail(console: Console, kind: str, message: str) -> None:
    if console.verbose:
        console.say(display(mask(traceback.format_exc()).rstrip(), lines=True))
    if console.json:
        with suppress(OSError, SprigError):  # standard output itself may be what failed
            console.result({"error": {"kind": kind, "message": message}}, "")
    console.say(f"sprig: {message}")


@contextmanager
def command(*, json: bool, verbose: bool) -> Iterator[Console]:
    """The frame of every command: what happens inside ends in an exit status and at most one line of complaint."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller; the next file to be opened must not get its number
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115
    console = Console(json=json, verbose=verbose)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a name that the terminal cannot show must not end the command
    logs.to_terminal(verbose)
    try:
        yield console
    except KeyboardInterrupt as e:
        console.say(f"sprig: interrupted{f'; {e}' if str(e) else ''}")
        raise SystemExit(INTERRUPTED) from None
    except BrokenPipeError:
        # The reader has left (`sprig inspect x | head`); the interpreter's last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(FAILED) from None
    except Exception as e:
        kind, message = type(e).__name__, _one_line(e)
        if isinstance(e, MemoryError):
            kind, message = "MemoryError", "out of memory; close other programs or take a smaller model"
        elif not isinstance(e, SprigError | OSError):
            hint = "" if verbose else " (a fault in Sprig: -v shows where; please report it)"
            message = f"{kind}: {message}{hint}"
        _fail(console, kind, message)
        raise SystemExit(FAILED) from None
