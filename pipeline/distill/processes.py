"""The processes that learn together under ``accelerate launch`` (DDP), or the one that is alone."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any

import torch

from agent.errors import SprigError, UnsupportedError


class Processes:
    """Who learns here, and on what.

    Attributes:
        rank, count: this process among all.
        device: of torch.

    Raises:
        SprigError: several processes were started and accelerate is not installed.
        UnsupportedError: accelerate is told to split the weights (FSDP, DeepSpeed); each process must hold them all.
    """

    def __init__(self) -> None:
        self._accelerator: Any = None
        self.rank, self.count = 0, 1
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if int(os.environ.get("WORLD_SIZE", "1")) < 2:
            return
        if find_spec("accelerate") is None:
            raise SprigError("several processes were started, and accelerate is not installed: pip install accelerate")
        from accelerate import Accelerator

        # Without cpu=True accelerate leaves every process alone on a machine that has only processors.
        self._accelerator = Accelerator(cpu=not torch.accelerator.is_available())
        kind = str(self._accelerator.distributed_type).rpartition(".")[2]
        if kind in ("FSDP", "DEEPSPEED", "MEGATRON_LM", "TP"):
            raise UnsupportedError(
                f"accelerate is set to {kind}; sprig distill learns with whole copies (DDP), choose multi-CPU or multi-GPU"
            )
        self.rank, self.count = self._accelerator.process_index, self._accelerator.num_processes
        self.device = self._accelerator.device

    @property
    def main(self) -> bool:
        """Whether this one writes and speaks."""
        return self.rank == 0

    def prepare(self, network: Any) -> Any:
        """The network as it computes with the others: gradients become their mean."""
        return network if self._accelerator is None else self._accelerator.prepare_model(network)

    def apart(self, network: Any) -> AbstractContextManager[Any]:
        """A block whose gradients stay here until a backward pass outside of it."""
        return nullcontext() if self._accelerator is None else self._accelerator.no_sync(network)

    def total(self, values: dict[str, float]) -> dict[str, float]:
        """The sums over all processes; every one calls it with the same names."""
        if self._accelerator is None:
            return values
        held = torch.tensor([values[name] for name in sorted(values)], dtype=torch.float64, device=self.device)
        return dict(zip(sorted(values), self._accelerator.reduce(held, "sum").tolist(), strict=True))

    def agree(self, value: float) -> float:
        """What the first process says."""
        return self.total({"value": value if self.main else 0.0})["value"]

    def wait(self) -> None:
        """Until all are here."""
        if self._accelerator is not None:
            self._accelerator.wait_for_everyone()
