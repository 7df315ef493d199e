"""An architecture that is not here: a llama.cpp checkout's own script makes a BF16 GGUF, and the one pass goes on from that.

The script sees a folder of links with weights and plain small files, no Python file of the model and no token, and is kept
offline, so that no code of a model repository can run in it.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.errors import OutputError, UnsupportedError
from agent.home import models
from pipeline.sources.source import fetch, open_source

_SCRIPT = "convert_hf_to_gguf.py"
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "SSH_AUTH_SOCK")


@contextmanager
def convert_with_llama_cpp(
    model: str, checkout: Path, *, revision: str | None, token: str | None, offline: bool, out: Path | str | None
) -> Iterator[Path]:
    """A BF16 GGUF of the model in a folder beside the output, removed at the end.

    Args:
        checkout: the root of a llama.cpp checkout; its Python requirements must be installed here (extra ``train``).

    Raises:
        UnsupportedError: there is no script, or it refuses the model; its last line says why.
    """
    script = checkout.expanduser() / _SCRIPT
    if not script.is_file():
        raise UnsupportedError(f"--llama-cpp: {checkout} has no {_SCRIPT}; give the root of a llama.cpp checkout")
    source = open_source(model, revision=revision, token=token, offline=offline)
    if source.kind == "gguf":
        raise UnsupportedError(f"{model} is a GGUF already; --llama-cpp is for checkpoints")
    beside = Path(out).expanduser().parent if out else models()
    try:
        beside.mkdir(parents=True, exist_ok=True)
        folder = tempfile.TemporaryDirectory(prefix=".sprig-", dir=beside)
    except OSError as e:
        raise OutputError(f"cannot write in {beside}: {e.strerror}") from None
    with folder as work:
        inside = Path(work) / source.name.rsplit("/", 1)[-1]
        inside.mkdir()
        for name, content in source.files.items():
            target = inside / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for name, path in fetch(source).items():
            (inside / name).symlink_to(path.resolve())
        result = Path(work) / f"{inside.name}.gguf"
        _run(script, inside, result, model)
        yield result


def _run(script: Path, folder: Path, result: Path, model: str) -> None:
    environment = {k: v for k, v in os.environ.items() if not any(s in k.upper() for s in _SECRET)}
    environment |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, str(script.resolve()), str(folder), "--outfile", str(result), "--outtype", "bf16"],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    if done.returncode or not result.is_file():
        said = [line for line in done.stderr.strip().splitlines() if line.strip()]
        raise UnsupportedError(
            f"llama.cpp's own script does not convert {model} either: {said[-1].strip() if said else 'it gave no reason'}"
        )
