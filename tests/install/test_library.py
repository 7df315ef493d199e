"""The source of llama.cpp on its way to a library: unpacked with care, its list of variants changed, zig's switches spelled."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from agent.errors import SprigError
from install.library import ZIG, change_variants, requirement, unpack

LIST = """\
        ggml_add_cpu_backend_variant(zen4           SSE42 AVX)
            ggml_add_cpu_backend_variant(sapphirerapids SSE42 AMX_TILE AMX_INT8)
            ggml_add_cpu_backend_variant(armv8.2_3    DOTPROD FP16_VECTOR_ARITHMETIC SVE)
            ggml_add_cpu_backend_variant(armv8.6_1    DOTPROD FP16_VECTOR_ARITHMETIC SVE MATMUL_INT8)
            ggml_add_cpu_backend_variant(android_armv8.6_1    DOTPROD FP16_VECTOR_ARITHMETIC MATMUL_INT8)
"""


def test_the_list_of_variants_gets_one_more_for_arm_and_loses_amx(tmp_path: Path) -> None:
    cmake = tmp_path / "CMakeLists.txt"
    cmake.write_text(LIST)
    change_variants(cmake)
    lines = [" ".join(line.split()) for line in cmake.read_text().splitlines()]
    assert lines == [
        "ggml_add_cpu_backend_variant(zen4 SSE42 AVX)",
        "ggml_add_cpu_backend_variant(armv8.2_3 DOTPROD FP16_VECTOR_ARITHMETIC SVE)",
        "ggml_add_cpu_backend_variant(armv8.6_0 DOTPROD FP16_VECTOR_ARITHMETIC MATMUL_INT8)",
        "ggml_add_cpu_backend_variant(armv8.6_1 DOTPROD FP16_VECTOR_ARITHMETIC SVE MATMUL_INT8)",
        "ggml_add_cpu_backend_variant(android_armv8.6_1 DOTPROD FP16_VECTOR_ARITHMETIC MATMUL_INT8)",
    ]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (LIST.replace("(armv8.6_1 ", "(armv8_6_1 "), "armv8.6_1 0 times"),
        (LIST.replace("sapphirerapids", "graniterapids"), "sapphirerapids 0 times"),
        (LIST * 2, "armv8.6_1 2 times"),
    ],
)
def test_a_list_that_llama_cpp_has_changed_is_not_edited_blindly(changed: str, said: str, tmp_path: Path) -> None:
    cmake = tmp_path / "CMakeLists.txt"
    cmake.write_text(changed)
    with pytest.raises(SprigError, match="has changed its list") as refused:
        change_variants(cmake)
    assert said in str(refused.value)
    assert cmake.read_text() == changed


def test_only_files_inside_the_archive_are_unpacked(tmp_path: Path) -> None:
    archive = tmp_path / "sdist.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in ("llama/good.py", "llama/../../escaped", str(tmp_path / "absolute")):
            entry = tarfile.TarInfo(name)
            entry.size = 2
            tar.addfile(entry, io.BytesIO(b"x\n"))
        link = tarfile.TarInfo("llama/link")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    folder = unpack(archive, tmp_path / "out")
    assert [f.name for f in folder.iterdir()] == ["good.py"]
    assert not (tmp_path / "escaped").exists()
    assert not (tmp_path / "absolute").exists()


def test_a_broken_archive_ends_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "sdist.tar.gz").write_bytes(b"not gzip")
    with pytest.raises(SprigError, match="cannot be unpacked"):
        unpack(tmp_path / "sdist.tar.gz", tmp_path / "out")


@pytest.mark.parametrize(
    ("given", "zig"),
    [
        ("-c -march=armv8-a a.c", "-c -mcpu=generic+v8a a.c"),
        ("-march=armv8.2-a+dotprod+fp16 -c a.c", "-mcpu=generic+v8_2a+dotprod+fullfp16 -c a.c"),
        ("-c -march=armv8.6-a+sve+i8mm+nosme -O3", "-c -mcpu=generic+v8_6a+sve+i8mm-sme -O3"),
        ("-c -mavx2 -mfma a.c", "-c -mavx2 -mfma a.c"),
        ("-march=armv8.2-a+dotprod a.o -o a", "a.o -o a"),
    ],
)
def test_zig_gets_its_own_spelling_of_processors(given: str, zig: str) -> None:
    """The real wrapper; `echo` stands in for zig, and shows what it would get."""
    done = subprocess.run(
        [ZIG / "zig", "c++", *given.split(), "name with blank"],
        env={"SPRIG_ZIG": "echo", "SPRIG_ZIG_TARGET": "aarch64-linux-gnu.2.28", "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout == f"c++ -target aarch64-linux-gnu.2.28 {zig} name with blank\n"


def test_the_phone_builds_the_version_that_is_locked() -> None:
    assert f"'{requirement()}'" in (ZIG.parent / "termux.sh").read_text()
