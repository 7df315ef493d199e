"""Whether a wheelhouse is one for this Python and this machine; if not, what is wrong, in one line.

`make setup WHEELHOUSE=FOLDER` asks, before there is anything but a Python: ``python -m install.check_wheelhouse FOLDER``.
"""

from __future__ import annotations

import platform
import re
import sys
from pathlib import Path

from agent.errors import SprigError
from pipeline.deploy.wheelhouse import DevicePython, chosen_wheels


def here() -> DevicePython:
    """The Python that runs this."""
    name, version = platform.libc_ver()
    found = re.match(r"(\d+)\.(\d+)", version) if name == "glibc" else None
    return DevicePython(sys.version_info.minor, platform.machine(), (int(found[1]), int(found[2])) if found else (0, 0))


if __name__ == "__main__":
    try:
        chosen_wheels(Path(sys.argv[1]), here())
    except SprigError as e:
        raise SystemExit(f"WHEELHOUSE: {e}") from None
