"""A wheel of llama-cpp-python: the Python files of its sdist, and libraries that were built for another machine."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import zipfile
from dataclasses import dataclass
from pathlib import Path

from agent.errors import SprigError
from agent.files import atomic_write, human_size
from install.elf import Needs, needs

TAG = "sprig"  # a local version (PEP 440): what is packed is the release of that number with the edits below
LARGEST = {"aarch64": 6_000_000, "x86_64": 12_000_000}  # bytes of a wheel
GLIBC = (2, 28)
_SYSTEM = re.compile(r"(lib(c|m|dl|rt|pthread)\.so\.\d+|ld-linux[-\w]*\.so\.\d+)")  # what every glibc system has

_PLATFORMS = 'sys.platform.startswith("linux") or sys.platform.startswith("freebsd")'
_LOADED = "_lib = load_shared_library(_lib_base_name, _base_path)\n"
# File, text that must be in it once, what comes in its place.
EDITS = (
    ("_ctypes_extensions.py", _PLATFORMS, 'sys.platform.startswith(("linux", "android", "freebsd"))'),
    (
        "llama_cpp.py",
        _LOADED,
        f"""{_LOADED}
# Added by Sprig: there is one CPU backend for each generation of processors, and ggml takes the best one when it is told to.
if any(_base_path.glob("libggml-cpu-*")):
    _ggml = load_shared_library("ggml", _base_path)
    _no_log = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
    _ggml.ggml_log_set(_no_log, None)
    _ggml.ggml_backend_load_all_from_path(os.fsencode(_base_path))
    _ggml.ggml_log_set(None, None)
""",
    ),
)


@dataclass(frozen=True, slots=True)
class Packed:
    """A finished wheel, and what its libraries ask for."""

    path: Path
    size: int
    variants: tuple[str, ...]
    glibc: tuple[int, ...]


def pack(source: Path, libraries: Path, machine: str, out: Path) -> Packed:
    """Write ``llama_cpp_python-<version>+sprig-py3-none-manylinux_2_28_<machine>.whl`` into a folder.

    The same input gives the same bytes: entries are sorted and carry no time. Layout: PyPA, "Binary distribution format".

    Args:
        source: the unpacked sdist.
        libraries: the folder with the .so files.
        machine: "aarch64" or "x86_64".
        out: the folder for the wheel.

    Raises:
        SprigError: a library is for another machine, needs a newer glibc or a library that is not there, the sdist's Python
            files are not those that were known, or the wheel is larger than it may be.
    """
    info = (source / "PKG-INFO").read_text(encoding="utf-8")
    version = f"{_field(info, 'Version')}+{TAG}"
    built = {f.name: f for f in sorted(libraries.glob("*.so"))}
    asked = check(built, machine)
    tag = f"py3-none-manylinux_{GLIBC[0]}_{GLIBC[1]}_{machine}"
    dist = f"llama_cpp_python-{version}.dist-info"
    entries = _python_files(source / "llama_cpp")
    entries |= {f"llama_cpp/lib/{name}": f.read_bytes() for name, f in built.items()}
    entries |= {
        f"{dist}/METADATA": re.sub(r"(?m)^Version: .*$", f"Version: {version}", info, count=1).encode(),
        f"{dist}/WHEEL": f"Wheel-Version: 1.0\nGenerator: sprig\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        f"{dist}/licenses/LICENSE.md": (source / "LICENSE.md").read_bytes(),
        f"{dist}/licenses/llama.cpp/LICENSE": (source / "vendor/llama.cpp/LICENSE").read_bytes(),
    }
    data = archive(entries, f"{dist}/RECORD")
    path = out / f"llama_cpp_python-{version}-{tag}.whl"
    if len(data) > LARGEST[machine]:
        raise SprigError(
            f"{path.name} would have {human_size(len(data))}, {human_size(LARGEST[machine])} are allowed: "
            "are the libraries stripped, and no more than they were?"
        )
    out.mkdir(parents=True, exist_ok=True)
    atomic_write(path, data)
    variants = tuple(name.removeprefix("libggml-cpu-").removesuffix(".so") for name in built if name.startswith("libggml-cpu-"))
    return Packed(path, len(data), variants, max(n.glibc for n in asked.values()))


def check(libraries: dict[str, Path], machine: str) -> dict[str, Needs]:
    """What each library needs. SprigError when a machine of this kind with the oldest glibc could not load one."""
    if not {"libllama.so", "libggml.so", "libggml-base.so"} <= libraries.keys():
        raise SprigError(f"the libraries of llama.cpp for {machine} are not all there: {', '.join(libraries) or 'there is none'}")
    asked = {name: needs(path) for name, path in libraries.items()}
    for name, need in asked.items():
        if need.machine != machine:
            raise SprigError(f"{name} is made for {need.machine}, not for {machine}")
        if need.glibc > GLIBC:
            raise SprigError(
                f"{name} needs glibc {'.'.join(map(str, need.glibc))}, the wheel promises {'.'.join(map(str, GLIBC))}: "
                "compile it for the older one"
            )
        if strange := {other for other in need.libraries if other not in libraries and not _SYSTEM.fullmatch(other)}:
            raise SprigError(f"{name} needs {', '.join(sorted(strange))}, which a device may not have")
        if need.libraries & libraries.keys() and need.runpath != "$ORIGIN":
            raise SprigError(f"{name} looks for its libraries in {need.runpath or 'the system'}, not beside itself")
    return asked


def _python_files(package: Path) -> dict[str, bytes]:
    files = {
        f"llama_cpp/{f.relative_to(package).as_posix()}": f.read_bytes()
        for f in package.rglob("*")
        if f.is_file() and f.suffix in (".py", ".typed")
    }
    for name, old, new in EDITS:
        text = files.get(f"llama_cpp/{name}", b"").decode()
        if text.count(old) != 1:
            raise SprigError(f"{package / name} has changed, {old.strip()!r} is not in it once: change install/pack.py with it")
        files[f"llama_cpp/{name}"] = text.replace(old, new).encode()
    return files


def archive(entries: dict[str, bytes], record: str) -> bytes:
    """A zip file of these entries and of RECORD, which lists their SHA-256 and sizes."""
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in sorted(entries.items())]
    lines.append(f"{record},,")
    # The metadata comes last, as the specification recommends.
    ordered = [*sorted(entries.items(), key=lambda e: (".dist-info/" in e[0], e[0])), (record, "\n".join([*lines, ""]).encode())]
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in ordered:
            entry = zipfile.ZipInfo(name)  # of 1 January 1980
            entry.external_attr = (0o100755 if name.endswith(".so") else 0o100644) << 16
            entry.create_system = 3
            z.writestr(entry, data, zipfile.ZIP_DEFLATED, 9)
    return out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


def _field(info: str, name: str) -> str:
    if (found := re.search(rf"(?m)^{name}: (\S+)$", info)) is None:
        raise SprigError(f"PKG-INFO of llama-cpp-python has no {name}")
    return found[1]
