"""What sentence-transformers adds to a model: how one vector is made of all tokens, and dense layers behind that."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from gguf import PoolingType

from agent.errors import CheckpointError, UnsupportedError
from pipeline.format.ggml import to_float
from pipeline.sources.checkpoint import SOURCE_TYPES, parse_safetensors_header
from pipeline.sources.json_object import json_object

_MODE = "pooling_mode_"
_POOLING = {
    "mean_tokens": PoolingType.MEAN, "mean": PoolingType.MEAN, "cls_token": PoolingType.CLS, "cls": PoolingType.CLS,
    "lasttoken": PoolingType.LAST,
}  # fmt: skip

_FLOATS = ("F32", "F16", "BF16")


def pooling_type(files: Mapping[str, bytes]) -> int | None:
    """llama.cpp's number for how sentence-transformers makes one vector of all tokens; None where no file says.

    Source: ``NAME_Pooling/config.json`` of https://sbert.net, and ``enum llama_pooling_type``.

    Raises:
        CheckpointError: the file is broken.
        UnsupportedError: a way of pooling that llama.cpp does not have.
    """
    name = next((name for name in sorted(files) if name.endswith("_Pooling/config.json")), None)
    if name is None:
        return None
    config = json_object(files[name], name)
    modes = {key.removeprefix(_MODE) for key, on in config.items() if on is True and key.startswith(_MODE)}
    if isinstance(config.get("pooling_mode"), str):
        modes.add(config["pooling_mode"])
    found = {_POOLING.get(mode) for mode in modes}
    if len(found) != 1 or None in found:
        how = " and ".join(sorted(modes))[:60] or "nothing"
        raise UnsupportedError(f"{name} pools by {how}; llama.cpp pools by mean, cls or last token")
    return found.pop()


def prompts(files: Mapping[str, bytes]) -> dict[str, str]:
    """What sentence-transformers puts before a "query" and before a "document", where its files name something.

    Source: ``prompts`` of config_sentence_transformers.json. CheckpointError: the file is broken.
    """
    name = "config_sentence_transformers.json"
    named = json_object(files[name], name).get("prompts") if name in files else None
    found = named if isinstance(named, dict) else {}
    return {kind: found[kind] for kind in ("query", "document") if isinstance(found.get(kind), str) and found[kind]}


def dense_paths(files: Mapping[str, bytes]) -> list[str]:
    """The folders of the dense layers that modules.json puts behind the model, in their order."""
    try:
        modules = json.loads(files.get("modules.json", b"[]"))
    except (ValueError, RecursionError):
        modules = []
    named = [m for m in modules if isinstance(m, dict)] if isinstance(modules, list) else []
    return [str(m.get("path")) for m in named if str(m.get("type")).endswith("Dense")]


def read_dense(files: Mapping[str, bytes], path: str) -> npt.NDArray[np.float32] | None:
    """The weights, float32 [width out, width in], of the dense layer in this folder.

    None where its file is not there, or where it does more than multiply (a bias, an activation).

    Raises:
        CheckpointError: its files are broken.
    """
    name, config = f"{path}/model.safetensors", f"{path}/config.json"
    if name not in files or config not in files:
        return None
    activation = json_object(files[config], config).get("activation_function", "Identity")
    infos = parse_safetensors_header(name, files[name], len(files[name]))
    info = infos.get("linear.weight")
    if info is None or len(info.shape) != 2 or info.dtype not in _FLOATS:
        raise CheckpointError(f"{name} does not hold linear.weight, a matrix of floats; download it again")
    if len(infos) > 1 or not str(activation).endswith("Identity"):
        return None
    raw = np.frombuffer(files[name], np.uint8, info.nbytes, info.offset).reshape(info.n_rows, -1)
    return to_float(raw, SOURCE_TYPES[info.dtype], info.shape[1])
