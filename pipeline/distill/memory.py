"""What a run takes of the memory, said before it is taken: a process that the kernel kills says nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import prod

from agent.device.machine import available_memory
from agent.errors import SprigError
from agent.files import human_size
from pipeline.distill.pair import Learning
from pipeline.sources.source import headers

_FLOAT = 4  # bytes
_LEARNED = 3  # numbers beside each that learns: its gradient and two moments
_LOGITS = 4  # times that the logits are held: of both networks, their logarithms, a gradient
_ADVICE = (
    "learn low-rank changes (--lora), in shorter or fewer sequences (--width, --batch), or keep the teacher's answers (--top-k)"
)


def need_for_weights(*models: Learning) -> None:
    """Raises SprigError when the weights of the models do not fit into what is free, in float32."""
    numbers = sum(prod(info.shape) for one in models if one.source is not None for info in headers(one.source).values())
    _need(_FLOAT * numbers, f"the weights of {' and '.join(one.name for one in models)} take", "take smaller ones")


def need_for_learning(learned: int, logits: int) -> None:
    """Raises SprigError when so many numbers that learn, and so many logits at once, do not fit; activations come on top."""
    _need(_FLOAT * (_LEARNED * learned + _LOGITS * logits), "learning takes at least", _ADVICE)


def _need(nbytes: int, takes: str, advice: str) -> None:
    if nbytes > (free := available_memory()):
        raise SprigError(f"{takes} {human_size(nbytes)} of memory, {human_size(free)} are free: {advice}")


@contextmanager
def said_in_one_line() -> Iterator[None]:
    """A block of torch's work: when the memory of the machine or of an accelerator is at its end, SprigError says so."""
    try:
        yield
    except (RuntimeError, MemoryError) as e:
        if not isinstance(e, MemoryError) and "memory" not in str(e).lower():
            raise
        raise SprigError(f"the memory is at its end in the learning: {_ADVICE}; --checkpointing helps too") from None
