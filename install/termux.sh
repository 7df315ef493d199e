#!/bin/sh
# Install Sprig on a phone, in Termux: sh termux.sh [FOLDER_WITH_WHEELS]
#   from pkg      Python, NumPy, Clang, CMake, Ninja
#   from wheels   Sprig and what it needs: from FOLDER_WITH_WHEELS (dist/wheelhouse-aarch64, whose pure wheels fit), and what is
#                 not there from PyPI (MarkupSafe has a wheel for Android there); without a folder, Sprig from this checkout
#   built here    llama.cpp, for this processor, because no wheel for Android exists; about ten minutes on a recent phone
# It may be run again: what is there stays. Checked with stand-ins for pkg and pip and, as for the import of the library,
# with a Python that calls its platform "android"; nobody has run it on a phone yet.
set -eu

say() { printf '%s\n' "$*"; }
fail() {
  printf 'termux.sh: %s\n' "$*" >&2
  exit 1
}

wheels=${1-}
home=${SPRIG_VENV:-$HOME/sprig}
cpuinfo=${SPRIG_CPUINFO:-/proc/cpuinfo}
meminfo=${SPRIG_MEMINFO:-/proc/meminfo}

[ "$(uname -o 2>/dev/null)" = Android ] || fail "this is no Android: on Linux take the wheelhouse (docs/devices.md)"
command -v pkg >/dev/null || fail "there is no pkg here: install Termux (from F-Droid or GitHub, not from the Play Store) and run this in it"
[ "$(uname -m)" = aarch64 ] || fail "this phone's system is $(uname -m); Sprig needs a 64-bit one (aarch64)"
if [ -n "$wheels" ]; then
  [ -d "$wheels" ] || fail "there is no folder $wheels"
  wheels=$(cd "$wheels" && pwd)
  set -- "$wheels"/sprig_llm-*.whl
  [ -f "$1" ] || fail "$wheels has no wheel of Sprig: copy dist/wheelhouse-aarch64 of a workstation, where make wheels makes it"
else
  set -- "$(cd "$(dirname "$0")/.." && pwd)"
  [ -f "$1/pyproject.toml" ] || fail "name the folder with Sprig's wheels, a copy of dist/wheelhouse-aarch64: sh termux.sh FOLDER"
fi

free=$(df -Pk "$HOME" | awk 'NR == 2 { print int($4 / 1024) }')
[ "$free" -ge 2500 ] || fail "$free MB are free, and Clang, the source of llama.cpp and what is built of it take 2500: make room"
memory=$(awk '$1 == "MemTotal:" { print int($2 / 1024) }' "$meminfo")
[ "$memory" -ge 1800 ] || fail "this phone has $memory MB of memory, and the compiler alone needs 500 for each file: 1800 MB is the least"
# One compiler for each GB, and no more than there are cores.
jobs=$((memory / 1024))
cores=$(nproc)
[ "$jobs" -le "$cores" ] || jobs=$cores

say "Installing Python, NumPy and a compiler (pkg)"
pkg install -y python python-numpy clang cmake ninja libandroid-spawn || fail "pkg could not install them: pkg update, then run this again"

if [ ! -x "$home/bin/python" ]; then
  # NumPy has no wheel for Android; it is seen through the system's packages.
  python -m venv --system-site-packages "$home" || fail "no virtual environment could be made in $home"
fi
pip() { "$home/bin/python" -m pip "$@"; }

if ! "$home/bin/python" -c 'import importlib.util, sys; sys.exit(importlib.util.find_spec("llama_cpp") is None)'; then
  # Named one by one: -march=native has taken features of phones that then ended the program (SIGILL).
  arch=armv8-a
  features() { grep -m 1 -i '^features' "$cpuinfo" | grep -qw "$1"; }
  if features asimddp; then arch=armv8.2-a+dotprod; fi
  if features asimddp && features asimdhp; then arch=$arch+fp16; fi
  if features asimddp && features i8mm; then arch=$arch+i8mm; fi
  say "Building llama.cpp for $arch with $jobs compilers at a time: about ten minutes. Keep the phone awake (termux-wake-lock)"
  pip install -q 'scikit-build-core>=0.9.2' || fail "pip could not install scikit-build-core: is there a network?"
  # Half of the source is for programs that are not used (install/only_used.cmake says more).
  printf 'set(%s)\n' 'LLAMA_BUILD_COMMON OFF' 'LLAVA_BUILD OFF' 'CMAKE_PLATFORM_NO_VERSIONED_SONAME ON' >"$home/only_used.cmake"
  switches="-DGGML_OPENMP=OFF -DGGML_NATIVE=OFF -DGGML_CPU_ARM_ARCH=$arch"
  CMAKE_BUILD_PARALLEL_LEVEL=$jobs CMAKE_ARGS="$switches -DCMAKE_PROJECT_llama_cpp_INCLUDE=$home/only_used.cmake" \
    pip install --no-deps --no-build-isolation --no-binary llama-cpp-python 'llama-cpp-python==0.3.36' ||
    fail "llama.cpp could not be built; what stands above says why. Less memory: close other apps and run this again"
fi

say "Installing Sprig"
pip install -q ${wheels:+--find-links "$wheels"} "$1" || fail "pip could not install Sprig; what stands above says why"

"$home/bin/python" -c 'from agent.engine.llama_import import import_llama; import_llama()' ||
  fail "Sprig is installed, but llama.cpp cannot be loaded: $home/bin/sprig doctor says more"
say "Ready: $home/bin/sprig chat"
