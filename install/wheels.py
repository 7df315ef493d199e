"""`make wheels`: llama.cpp for another machine as one wheel, and a wheelhouse with all that `pip install sprig-llm` needs there.

python3 -m install.wheels [aarch64|x86_64]
"""

from __future__ import annotations

import shutil
import site
import sys
import time
from pathlib import Path

from agent.errors import SprigError
from agent.files import exclusive, human_size
from install import library, wheelhouse
from install.workshop import ROOT, Workshop

MACHINES = ("aarch64", "x86_64")


def make(shop: Workshop, machine: str, sprig: Path, out: Path) -> None:
    """Build, pack and gather for one machine, and tell what came of it."""
    started = time.monotonic()
    libraries = library.build(shop, machine)
    # pyelftools, packaging and cyclonedx-python-lib are tools that run on any Python, and so does what works with them.
    site.addsitedir(str(next(shop.python.parents[1].glob("lib/python*/site-packages"))))
    from install.pack import pack

    made = shop.folder / "llama" / machine
    shutil.rmtree(made, ignore_errors=True)
    packed = pack(library.source(shop), libraries, machine, made)
    built = time.monotonic() - started
    gathered = wheelhouse.gather(shop, machine, [packed.path, sprig])
    folder = out / f"wheelhouse-{machine}"
    wheelhouse.publish(gathered, folder)

    sizes = {wheel.name: wheel.stat().st_size for wheel in sorted(folder.glob("*.whl"))}
    print(f"\n{packed.path.name}: {packed.size / 1e6:.2f} MB, glibc {'.'.join(map(str, packed.glibc))}, {built:.0f} s")
    print(f"  {len(packed.variants)} kinds of processor: {', '.join(packed.variants)}")
    print(f"{folder}: {len(sizes)} wheels, {human_size(sum(sizes.values()))}, {time.monotonic() - started:.0f} s in all")
    for name, size in sizes.items():
        print(f"  {human_size(size):>8}  {name}")
    for python in wheelhouse.PYTHONS:
        print(f"  Python {python}: {gathered.missing.get(python, 'complete')}", flush=True)


def main(arguments: list[str]) -> int:
    """Exit status: 0 done, 1 it could not be done, 2 wrong usage."""
    if unknown := [name for name in arguments if name not in MACHINES]:
        print(f"make wheels knows ARCH=aarch64 and ARCH=x86_64, not {unknown[0]!r}", file=sys.stderr)
        return 2
    shop = Workshop(ROOT / "build" / "wheels")
    try:
        shop.folder.mkdir(parents=True, exist_ok=True)
        with exclusive(shop.folder / "lock"):
            sprig = wheelhouse.own_wheel(shop)
            for machine in arguments or MACHINES:
                make(shop, machine, sprig, ROOT / "dist")
    except SprigError as e:
        print(f"make wheels: {e}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("make wheels: interrupted; what is finished in build/wheels is used next time", file=sys.stderr)
        return 130
    except OSError as e:
        print(f"make wheels: {e}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
