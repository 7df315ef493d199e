"""llama.cpp's libraries for one kind of machine, cross-compiled with zig: one CPU backend for each generation of processors."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from pathlib import Path, PurePosixPath

from agent.errors import SprigError
from agent.files import atomic_write
from install.workshop import ROOT, TOOLS, Workshop, digest

ZIG = Path(__file__).with_name("zig")
LOCK = ROOT / "install" / "llama.lock"
GLIBC = "2.28"  # of Debian 10, RHEL 8 and later; the wheel's tag says the same

OPTIONS = {
    "CMAKE_BUILD_TYPE": "Release",
    "CMAKE_SHARED_LINKER_FLAGS": "-s",
    "CMAKE_MODULE_LINKER_FLAGS": "-s",
    "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
    "CMAKE_INSTALL_RPATH": "$ORIGIN",
    # libggml.so, not libggml.so.0.25.3 and two links to it: a wheel has no links, and would hold each library three times.
    "CMAKE_PLATFORM_NO_VERSIONED_SONAME": "ON",
    "BUILD_SHARED_LIBS": "ON",
    "GGML_NATIVE": "OFF",
    "GGML_BACKEND_DL": "ON",
    "GGML_CPU_ALL_VARIANTS": "ON",
    "GGML_OPENMP": "OFF",  # zig brings no omp.h; ggml has threads of its own
    # Git would name the commit of the checkout around it, which is Sprig's.
    "GIT_EXE": "GIT_EXE-NOTFOUND",
    "GIT_EXECUTABLE": "GIT_EXECUTABLE-NOTFOUND",
    **{f"LLAMA_BUILD_{part}": "OFF" for part in ("COMMON", "TESTS", "TOOLS", "EXAMPLES", "SERVER", "APP")},
    "LLAMA_OPENSSL": "OFF",
}

# A line of llama.cpp's list of CPU variants, and what comes in its place.
VARIANTS = (
    # Snapdragon processors have i8mm and show no SVE, which the list for Linux leaves out.
    ("armv8.6_1", "    ggml_add_cpu_backend_variant(armv8.6_0 DOTPROD FP16_VECTOR_ARITHMETIC MATMUL_INT8)\n{}"),
    # AMX kernels have crashed (llama.cpp #20824), and there was no AMX to try them on. The variant of Zen 4 serves instead.
    ("sapphirerapids", ""),
)


def requirement() -> str:
    """The version of llama-cpp-python that is locked."""
    return LOCK.read_text().split()[0]


def source(shop: Workshop) -> Path:
    """The unpacked sdist of llama-cpp-python, fetched and verified by pip, its list of CPU variants changed.

    Raises:
        SprigError: it cannot be fetched, or is not laid out as it was.
    """
    wanted = requirement()
    mark = digest(LOCK.read_bytes(), *(line.encode() for edit in VARIANTS for line in edit))
    folder, stamp = shop.folder / "source", shop.folder / "source.stamp"
    if folder.is_dir() and stamp.exists() and stamp.read_text() == mark:
        return folder
    fetched = shop.folder / "sdist"
    shutil.rmtree(fetched, ignore_errors=True)
    print(f"Fetching the source of {wanted}", flush=True)
    exactly: list[str | Path] = ["--no-deps", "--no-binary", "llama-cpp-python", "--require-hashes", "-r", LOCK]
    shop.pip(["download", "-q", "-d", fetched, *exactly], "sdist")
    archive = next(fetched.glob("*.tar.gz"), None)
    if archive is None:
        raise SprigError(f"the registry has no source of {wanted}: what pip fetched into {fetched} is no .tar.gz")
    part = shop.folder / "source.part"
    shutil.rmtree(part, ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)
    change_variants(unpack(archive, part) / "vendor/llama.cpp/ggml/src/CMakeLists.txt")
    next(part.iterdir()).rename(folder)
    part.rmdir()
    atomic_write(stamp, mark)
    return folder


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a sdist's files; links, devices and paths that lead out are left out. Returns its one folder."""

    def inside(member: tarfile.TarInfo) -> bool:
        path = PurePosixPath(member.name)
        return member.isfile() and not path.is_absolute() and ".." not in path.parts

    try:
        with tarfile.open(archive) as tar:
            tar.extraction_filter = getattr(tarfile, "data_filter", None)
            tar.extractall(folder, members=[m for m in tar if inside(m)])
        return next(folder.iterdir())
    except (OSError, tarfile.TarError, StopIteration) as e:
        raise SprigError(f"{archive} cannot be unpacked: {e}") from None


def change_variants(cmake: Path) -> None:
    """Replace lines of the list of CPU variants. SprigError when one is not there once: then the list is not the known one."""
    text = cmake.read_text()
    for variant, replacement in VARIANTS:
        lines = re.findall(rf"(?m)^ *ggml_add_cpu_backend_variant\({re.escape(variant)} .*\n", text)
        if len(lines) != 1:
            raise SprigError(
                f"{cmake} names the CPU variant {variant} {len(lines)} times, not once: "
                "llama.cpp has changed its list; change install/library.py with it"
            )
        text = text.replace(lines[0], replacement.format(lines[0]))
    cmake.write_text(text)


def build(shop: Workshop, machine: str) -> Path:
    """The folder with the .so files for a machine ("aarch64", "x86_64"); built unless it was built from the same before.

    Raises:
        SprigError: CMake or the compiler failed.
    """
    tree = source(shop)
    work = shop.folder / machine
    stamp = work / "stamp"
    inputs = [TOOLS.read_bytes(), *(f.read_bytes() for f in sorted(ZIG.iterdir())), (shop.folder / "source.stamp").read_bytes()]
    target = f"{machine}-linux-gnu.{GLIBC}"
    mark = digest(*inputs, target.encode(), *(f"{name}={value}".encode() for name, value in OPTIONS.items()))
    if stamp.exists() and stamp.read_text() == mark:
        return work / "bin"
    tools = shop.python.parent
    environment = {
        "PATH": f"{tools}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
        "SPRIG_ZIG": str(next(tools.parent.glob("lib/python*/site-packages/ziglang/zig"))),
        "SPRIG_ZIG_TARGET": target,
        "ZIG_GLOBAL_CACHE_DIR": str(shop.folder / "zig"),
        "ZIG_LOCAL_CACHE_DIR": str(shop.folder / "zig"),
    }
    print(f"Compiling llama.cpp for {machine}", flush=True)
    shutil.rmtree(work, ignore_errors=True)
    # The names of source files are in the messages of failed assertions; they begin at llama.cpp, wherever it was built.
    flags = f'-g0 "-ffile-prefix-map={tree / "vendor/llama.cpp"}=."'
    toolchain = {"CMAKE_TOOLCHAIN_FILE": str(ZIG / "toolchain.cmake"), "SPRIG_PROCESSOR": machine}
    options = {**OPTIONS, **toolchain, "CMAKE_C_FLAGS": flags, "CMAKE_CXX_FLAGS": flags}
    switches = [f"-D{name}={value}" for name, value in options.items()]
    configure = ["cmake", "-S", str(tree / "vendor/llama.cpp"), "-B", str(work), "-G", "Ninja", *switches]
    shop.run(configure, f"configure-{machine}", environment)
    shop.run(["cmake", "--build", work, "--target", "llama"], f"compile-{machine}", environment)
    atomic_write(stamp, mark)
    return work / "bin"
