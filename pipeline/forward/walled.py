"""How every child begins that computes with a GGUF: it goes behind its walls, then becomes the module that does the work.

llama.cpp is C++ that reads a file from anywhere. What holds a process holds the thread that asked for it, so it is asked for
before anything is imported: NumPy starts threads of its own at its import.
"""

from __future__ import annotations

import json
import runpy
import sys

from agent.children.computing import confine_to


def main() -> None:
    """The arguments are a module, and as JSON the files that it reads and the files and folders that it writes."""
    module, reach = sys.argv[1:]
    files, folders = json.loads(reach)
    confine_to(files, folders)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
