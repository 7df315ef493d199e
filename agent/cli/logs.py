"""Where log lines go, and what never stands in them.

A module logs with ``logging.getLogger(__name__)`` and knows nothing of this; a command shows the lines with ``-v``, the chat
keeps them in a file. What is logged: names, sizes, seconds, exit statuses. What is not: prompts, answers, arguments, results.
"""

from __future__ import annotations

import contextlib
import logging
import sys

from agent.home import home
from agent.text import display
from agent.text.secrets import mask

_OURS = ("agent", "pipeline", "tui")
_TERMINAL, _FILE = "sprig terminal", "sprig file"
_NOTHING = logging.CRITICAL + 1
_LONGEST = 2000  # characters of a line


class _Lines(logging.Formatter):
    """One safe line for each record, and below it the traceback if there is one and it may be shown."""

    def __init__(self, form: str, tracebacks: bool) -> None:
        super().__init__(form)
        self._tracebacks = tracebacks

    def format(self, record: logging.LogRecord) -> str:
        record.message = display(mask(record.getMessage())[:_LONGEST])
        if self.usesTime():
            record.asctime = self.formatTime(record, self.datefmt)
        line = self.formatMessage(record)
        if record.exc_info and self._tracebacks:
            line += "\n" + display(mask(self.formatException(record.exc_info)), lines=True)
        return line


class _Terminal(logging.Handler):
    """Writes to what standard error is at that moment."""

    def emit(self, record: logging.LogRecord) -> None:
        with contextlib.suppress(OSError, ValueError):
            print(self.format(record), file=sys.stderr, flush=True)


def to_terminal(verbose: bool) -> None:
    """Show log lines on standard error, ours and the warnings of libraries; none without ``verbose``."""
    _remove(_TERMINAL, _FILE)
    form = _Lines("%(name)s: %(message)s", tracebacks=True)
    _add(_TERMINAL, _Terminal(), form, logging.INFO if verbose else _NOTHING)


def to_file(name: str, *, screen: bool = False) -> None:
    """Keep log lines in ``logs/NAME.log`` under SPRIG_HOME; with ``screen`` the terminal is an application's and gets none."""
    from agent.cli.log_file import PrivateFile

    _remove(_FILE, _TERMINAL if screen else "")
    path = home() / "logs" / f"{name}.log"
    # A library's traceback may quote what a server or a tool said, and that is not kept.
    form = _Lines("%(asctime)s %(levelname)s %(name)s: %(message)s", tracebacks=False)
    _add(_FILE, PrivateFile(path), form, logging.INFO)


def _remove(*names: str) -> None:
    root = logging.getLogger()
    for old in [handler for handler in root.handlers if handler.name in names]:
        root.removeHandler(old)
        old.close()


def _add(name: str, handler: logging.Handler, form: logging.Formatter, level: int) -> None:
    root = logging.getLogger()
    handler.name = name
    handler.setFormatter(form)
    handler.setLevel(level)
    root.addHandler(handler)
    logging.raiseExceptions = False  # a fault in a log line must not write to the terminal
    least = min(other.level for other in root.handlers if other.name in (_TERMINAL, _FILE))
    for ours in _OURS:
        logging.getLogger(ours).setLevel(least)
