"""How fast a device reads and writes with a model, predicted from the model's shape and the device's figures.

Writing a token takes a fixed time in each layer, and the time to read every weight that it needs and its K and V. Reading a
prompt takes the arithmetic of the weights at the speed of their type's kernels, that of attention, and what is done to each
number besides. Bytes over bandwidth alone promise a small model almost twice its speed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from agent.fit.profile import DeviceProfile, Figure
from agent.gguf.types import TYPES_BY_NAME
from agent.models.file import ModelFile
from agent.models.memory import CACHE_BYTES

PROMPT, GENERATE = 512, 128  # tokens, as `sprig bench` measures


@dataclass(frozen=True, slots=True)
class Prediction:
    """Tokens a second.

    Attributes:
        reads: a prompt of 512 tokens.
        writes: the first 128 tokens.
        writes_full: a token when the context is full.
    """

    reads: float
    writes: float
    writes_full: float


def predict(file: ModelFile, device: DeviceProfile, *, context: int, cache: str = "f16", repack: bool = True) -> Prediction:
    """Predict the speeds of a model on a device.

    Args:
        context: tokens that it holds when it is full.
        cache: type of K and V.
        repack: whether the weights are held repacked, where the processor has kernels for that.
    """
    first, full = (decode_seconds(file, device, depth=n, cache=cache) for n in (GENERATE // 2, context))
    return Prediction(1 / prefill_seconds(file, device, prompt=PROMPT, repack=repack), 1 / first, 1 / full)


def bytes_per_token(file: ModelFile) -> Mapping[str, int]:
    """Bytes of weights that are read for one token, by type: experts only as far as they are used, of an embedding that is not
    the output next to nothing."""
    read = Counter(file.matrices)
    for kind, size in file.experts.items():
        read[kind] -= int(size * (1 - file.expert_share))
    read.update(file.tied)
    return read


def decode_seconds(file: ModelFile, device: DeviceProfile, *, depth: int, cache: str = "f16") -> float:
    """Seconds of one token behind ``depth`` others."""
    speed = device.decode
    rates = {kind: speed.types.get(kind, speed.bandwidth).value * 1e9 for kind in bytes_per_token(file)}
    weights = sum(size / rates[kind] for kind, size in bytes_per_token(file).items())
    kept = CACHE_BYTES[cache] * (file.cache_width * depth + file.window_width * min(depth, file.window or depth)) + file.state
    return file.n_layer * speed.layer.value / 1e3 + weights + kept / (speed.bandwidth.value * 1e9)


def prefill_seconds(file: ModelFile, device: DeviceProfile, *, prompt: int, repack: bool = True) -> float:
    """Seconds of each token of a prompt of so many, from an empty context. The output is computed for the last one alone."""
    speed = device.prefill
    work = Counter(bytes_per_token(file))
    work.subtract(file.head)
    seconds = sum(_flops(kind, size) / (kernel(device, kind, repack).value * 1e9) for kind, size in work.items())
    depth = prompt / 2
    seen = file.window if file.window and file.window < depth else depth
    narrow = file.window_width / max(1, file.cache_width + file.window_width)
    seconds += 4 * file.query_width * (depth * (1 - narrow) + seen * narrow) / (speed.attention.value * 1e9)
    if speed.elementwise:
        seconds += file.n_layer * file.n_embd / (speed.elementwise.value * 1e9)
    return seconds


def kernel(device: DeviceProfile, kind: str, repack: bool = True) -> Figure:
    """The figure for prompts with weights of this type."""
    speed, packed = device.prefill, kind in device.processor.repacked
    if packed and not repack:
        return speed.plain
    return speed.types.get(kind) or (speed.repacked if packed else speed.plain)


def _flops(kind: str, size: int) -> float:
    """Of one token with weights of so many bytes: a multiplication and an addition each."""
    stored = TYPES_BY_NAME[kind]
    return 2.0 * size * stored.block / stored.nbytes
