"""Whether Sprig finds the walls that this machine has, by other witnesses; other tests leave out what it does not find."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from pathlib import Path

from agent.children import process

HELD = process.report()


def test_what_the_kernel_has_is_used() -> None:
    if Path("/proc/sys/kernel/seccomp/actions_avail").exists() and platform.machine() in ("x86_64", "aarch64"):
        assert "seccomp" in HELD
    modules = Path("/sys/kernel/security/lsm")
    if modules.exists() and "landlock" in modules.read_text().split(","):
        assert "landlock" in HELD
    release = tuple(int(part) for part in re.findall(r"\d+", platform.release())[:2])
    unshare = [
        "unshare",
        *["--user", "--map-root-user", "--pid", "--fork", "--mount", "--ipc", "--uts", "--cgroup", "--net", "true"],
    ]
    if (
        release >= (5, 12)
        and shutil.which("unshare")
        and not subprocess.run(unshare, capture_output=True, check=False).returncode
    ):
        assert "namespaces" in HELD
