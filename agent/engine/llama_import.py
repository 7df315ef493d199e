"""llama.cpp's Python bindings, imported where they can be and in the one way that also works on Android.

Only the low-level module is loaded. The package's own ``__init__`` brings NumPy, diskcache and a server's dependencies, a third
of a second on a workstation and seconds on a board, for nothing that is used here.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from agent.errors import SprigError

_NAME = "llama_cpp"


def import_llama() -> ModuleType:
    """The low-level API, ``llama_cpp.llama_cpp``. SprigError in one line when it is missing or broken."""
    name = sys.platform
    try:
        if name == "android":
            # The bindings know no "android", though the library that Termux builds is an ordinary Linux one.
            sys.platform = "linux"
        module = _low_level()
    except (ImportError, OSError, RuntimeError) as e:
        reason = " ".join(str(e).split())
        raise SprigError(f"llama.cpp cannot be loaded ({reason}): pip install --force-reinstall llama-cpp-python") from None
    finally:
        sys.platform = name
    _load_backends(module)
    return module


def _low_level() -> ModuleType:
    if _NAME in sys.modules or f"{_NAME}.{_NAME}" in sys.modules:
        return importlib.import_module(f"{_NAME}.{_NAME}") if _NAME in sys.modules else sys.modules[f"{_NAME}.{_NAME}"]
    spec = importlib.util.find_spec(_NAME)
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("the package llama-cpp-python is not installed")
    # A package without its __init__, for as long as the import takes: whoever imports llama_cpp later gets the whole.
    shell = ModuleType(_NAME)
    shell.__path__ = list(spec.submodule_search_locations)
    shell.__spec__ = spec
    sys.modules[_NAME] = shell
    try:
        return importlib.import_module(f"{_NAME}.{_NAME}")
    finally:
        if sys.modules.get(_NAME) is shell:
            del sys.modules[_NAME]


def _load_backends(module: ModuleType) -> None:
    """A library that holds one kernel for each kind of CPU must be told to choose; llama-cpp-python never does."""
    import ctypes

    folder = Path(module.__file__ or "").parent / "lib"
    if not any(folder.glob("libggml-cpu-*")):
        return
    ggml = ctypes.CDLL(str(next(folder.glob("libggml.*"))))
    if ggml.ggml_backend_reg_count() == 0:
        ggml.ggml_backend_load_all_from_path(os.fsencode(folder))
