"""The process of one step: `sprig` itself, which ends when whoever started it dies."""

from __future__ import annotations

import signal
import sys
from importlib import import_module

from agent.children.orphan import end_with_parent


def main() -> None:
    """Arguments: the process id of the parent, then those of `sprig`."""
    end_with_parent(signal.SIGKILL, int(sys.argv[1]))
    sys.argv = ["sprig", *sys.argv[2:]]
    import_module("sprig").main()  # by name: the command stands above this package


if __name__ == "__main__":
    main()
