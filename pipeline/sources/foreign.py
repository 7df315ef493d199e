"""A detour for an architecture that Sprig does not know: the script of a llama.cpp checkout makes a BF16 GGUF first.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.errors import OutputError, UnsupportedError
from agent.files import human_size
from pipeline.sources.source import Source, cached_bytes, fetch

_SCRIPT = "convert_hf_to_gguf.py"
_SECRET = ("TOKEN", "KEY", "SECRET", "PASSWORD", "SSH_AUTH_SOCK")


@dataclass(frozen=True, slots=True)
class Detour:
    """The way through llama.cpp's script. The size of the output is known only when the script is done.

    Attributes:
        source: the checkpoint.
        script: the script in the checkout.
        reason: why Sprig does not convert it itself.
    """

    source: Source
    script: Path
    reason: str

    @property
    def download(self) -> int:
        """Bytes still to be fetched."""
        return self.weights - cached_bytes(self.source)

    @property
    def weights(self) -> int:
        """Bytes of the checkpoint's weights; the BF16 file is no larger."""
        return sum(w.size for w in self.source.weights)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for ``--json``."""
        return {
            "model": self.source.name,
            "kind": self.source.kind,
            "commit": self.source.commit,
            "converter": str(self.script),
            "reason": self.reason,
            "download": self.download,
            "disk": self.weights,
        }

    def lines(self) -> list[str]:
        """The plan for people, a line each."""
        commit = f" @ {self.source.commit[:12]}" if self.source.commit else ""
        return [
            f"model         {self.source.name}{commit}",
            f"converter     {self.script}, since the {self.reason}",
            f"download      {human_size(self.download) if self.download else 'nothing'}",
            f"disk          up to {human_size(self.weights)} for a BF16 file, beside the output and removed at the end",
            "size          known when the script has made the BF16 file",
        ]

    @contextmanager
    def convert(self, beside: Path) -> Iterator[Path]:
        """A BF16 GGUF of the model, in a folder in ``beside`` that is removed at the end.

        Raises:
            UnsupportedError: the script refuses the model; its last line says why.
            OutputError: the folder cannot be made.
        """
        try:
            beside.mkdir(parents=True, exist_ok=True)
            folder = tempfile.TemporaryDirectory(prefix=".sprig-", dir=beside)
        except OSError as e:
            raise OutputError(f"cannot write in {beside}: {e.strerror}") from None
        with folder as work:
            inside = Path(work) / self.source.name.rsplit("/", 1)[-1]
            inside.mkdir()
            for name, content in self.source.files.items():
                target = inside / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            for name, path in fetch(self.source).items():
                (inside / name).symlink_to(path.resolve())
            result = Path(work) / f"{inside.name}.gguf"
            _run(self.script, inside, result, self.source.name)
            yield result


def find_detour(source: Source, checkout: Path, reason: str) -> Detour:
    """Find the script in a llama.cpp checkout. Its Python requirements must be installed here (extra ``train``).

    Args:
        checkout: the root of the checkout.
        reason: the message with which Sprig refused the model.

    Raises:
        UnsupportedError: the checkout has no script.
    """
    script = checkout.expanduser() / _SCRIPT
    if not script.is_file():
        raise UnsupportedError(f"--llama-cpp: {checkout} has no {_SCRIPT}; give the root of a llama.cpp checkout")
    return Detour(source, script, reason.partition("; --llama-cpp")[0])


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
