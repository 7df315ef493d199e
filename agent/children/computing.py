"""What holds a process that computes with a model: it is C++ that reads a file from anywhere.

It keeps the right to read programs, the model and its adapters, and to write the folder of kept prefixes; it opens no socket,
runs no program, gains no privilege, and leaves the modes and owners of files, other processes and the machine alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

from agent.children import sandbox
from agent.children.launch import PACKAGES
from agent.children.rules import FREE, Rules


def confine_to(files: Iterable[str], folders: Iterable[str] = ()) -> str:
    """Confine this process, for good, as far as the kernel can; for a process of one thread, before it loads a model.

    Args:
        files: what it reads: the model, adapters.
        folders: what it writes below.

    Returns:
        What holds it, as ``sandbox.confine`` says it.
    """
    python = [path for path in sys.path if os.path.isdir(path)]  # noqa: PTH112  (pathlib would take longer)
    read = (*sandbox.system_paths(), PACKAGES, *python, os.path.realpath("/proc/self"), *files)
    rules = Rules(read, tuple(folders), limits=FREE)  # a model takes what it takes
    return sandbox.confine_itself(rules, reads_all=True)
