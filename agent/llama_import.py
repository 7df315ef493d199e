"""llama.cpp's Python bindings, imported where they can be and in the one way that also works on Android."""

from __future__ import annotations

import sys
from types import ModuleType

from agent.errors import SprigError


def import_llama() -> ModuleType:
    """The low-level API, ``llama_cpp.llama_cpp``. SprigError in one line when it is missing or broken."""
    name = sys.platform
    try:
        if name == "android":
            # The bindings know no "android", though the library that Termux builds is an ordinary Linux one.
            sys.platform = "linux"
        import llama_cpp.llama_cpp as llama
    except (ImportError, OSError, RuntimeError) as e:
        reason = " ".join(str(e).split())
        raise SprigError(f"llama.cpp cannot be loaded ({reason}): pip install --force-reinstall llama-cpp-python") from None
    finally:
        sys.platform = name
    module: ModuleType = llama
    return module
