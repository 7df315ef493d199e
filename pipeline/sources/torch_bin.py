"""Checkpoints in torch's own format (``pytorch_model.bin``), read by its weights-only loader and by nothing else.

The format is a zip file around a pickle, and a pickle can hold code. torch.load(weights_only=True) refuses such a one; before
torch 2.6 it could be deceived (CVE-2025-32434), so an older torch is refused. torch is imported here only.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.errors import CheckpointError, UnsupportedError
from pipeline.sources.checkpoint import Checkpoint, RawRows, TensorInfo, merge_headers, refuse_pointer

if TYPE_CHECKING:
    from types import ModuleType

OLDEST_TORCH = (2, 6)
_NAMES = {
    "float64": "F64", "float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64", "int32": "I32", "int16": "I16",
    "int8": "I8", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2",
}  # fmt: skip


def _torch() -> ModuleType:
    try:
        import torch
    except ImportError:
        raise UnsupportedError(
            "a .bin checkpoint needs torch to be read safely: pip install '.[train]' in the checkout of Sprig"
        ) from None
    version = tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2])
    if version < OLDEST_TORCH:
        raise UnsupportedError(
            f"torch {torch.__version__} can be made to run code by a .bin file (CVE-2025-32434): pip install 'torch>=2.6'"
        )
    return torch  # type: ignore[no-any-return]


class TorchCheckpoint(Checkpoint):
    """Tensors of ``.bin`` files, mapped into memory by torch."""

    def __init__(self, paths: Mapping[str, Path], index: Mapping[str, str] | None = None) -> None:
        """
        Args:
            paths: file name -> where it is.
            index: tensor -> file name, when the checkpoint is sharded.

        Raises:
            UnsupportedError: no torch, or one that is too old.
            CheckpointError: a file is broken, holds code, or is not a table of tensors.
        """
        torch = _torch()
        self._data: dict[str, Any] = {}
        found: dict[str, dict[str, TensorInfo]] = {}
        for file, path in paths.items():
            table = _load(torch, file, path)
            found[file] = {name: _info(name, tensor, file) for name, tensor in table.items()}
            self._data.update(table)
        self.tensors = merge_headers(found, index)
        self._bytes = torch.uint8

    def rows(self, name: str, start: int, stop: int) -> RawRows:
        info = self.tensors[name]
        matrix = self._data[name].reshape(info.n_rows, info.row_length)[start:stop].contiguous()
        rows: RawRows = matrix.view(self._bytes).numpy().reshape(stop - start, info.row_bytes)
        return rows

    def close(self) -> None:
        self._data.clear()


def _load(torch: ModuleType, file: str, path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as f:
            # Before torch 1.6 a checkpoint was a bare pickle, which cannot be mapped and is held whole.
            head = f.read(64)
        refuse_pointer(file, head)
        mapped = not head.startswith(b"\x80")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            table = torch.load(path, weights_only=True, mmap=mapped, map_location="cpu")
    except CheckpointError:
        raise
    except Exception as e:  # whatever a hostile pickle makes the loader raise
        if type(e).__name__ == "UnpicklingError":
            what = "holds something other than weights, which could be code, and was not run"
            raise CheckpointError(f"{file} {what}; use a safetensors version of this model") from None
        first = next(iter(str(e).splitlines()), "") or type(e).__name__
        raise CheckpointError(f"{file} is not a whole torch checkpoint ({first[:200]}); download it again") from None
    good = isinstance(table, Mapping) and all(
        isinstance(name, str) and isinstance(tensor, torch.Tensor) for name, tensor in table.items()
    )
    if not good:
        raise CheckpointError(f"{file} is not a table of named tensors; use a safetensors version of this model")
    return dict(table)


def _info(name: str, tensor: Any, file: str) -> TensorInfo:
    kind = str(tensor.dtype).removeprefix("torch.")
    if kind not in _NAMES or str(tensor.layout) != "torch.strided" or tensor.is_quantized:
        raise CheckpointError(f"{file}: tensor {name!r} is stored as {kind}, {tensor.layout}; use a plain checkpoint")
    return TensorInfo(name, _NAMES[kind], tuple(tensor.shape), file, 0, tensor.numel() * tensor.element_size())
